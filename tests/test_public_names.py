"""What `import gid` and `import rahf` offer: few names, found when asked for."""

from __future__ import annotations

import pytest

import gid
import rahf


@pytest.mark.parametrize("package", [gid, rahf])
def test_every_public_name_is_there(package: object) -> None:
    names = package.__all__
    assert len(names) <= 8
    for name in names:
        found = getattr(package, name)
        assert found.__name__ == name
        assert found.__module__.split(".")[0] in (package.__name__, "foundation")


def test_other_names_are_refused_with_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"'gid' has no attribute 'nothing'; it offers GIDPipeline"):
        gid.nothing  # noqa: B018
