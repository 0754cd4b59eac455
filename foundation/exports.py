"""Public names of a package that are imported when they are asked for, so that importing the package stays light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` (PEP 562) for public names.

    Args:
        package: name of the package, for its error.
        places: public name -> ``module:attribute``.

    Raises:
        AttributeError: by the function returned, for a name that is not public.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it offers {', '.join(places)}")
        module, _, attribute = places[name].partition(":")
        return getattr(import_module(module), attribute)

    return find
