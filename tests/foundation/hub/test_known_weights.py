"""weights.md and the Space's front matter name exactly what the code knows, and invent nothing."""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
from pathlib import Path

import pytest
import yaml

from foundation.weights.known import FLTWR, GID_SMALL, KNOWN, PUBLIC_RAHF
from foundation.weights.resolver import HubName
from foundation.weights.table import CHECKPOINTS, FILES, UNKNOWN, refreshed
from gid.diffusion.loading import EMBEDDED as GID_EMBEDDED
from rahf.model.conversion import PUBLIC_LICENSE, PUBLIC_PARAMETERS

ROOT = Path(__file__).resolve().parents[3]
SHA256 = re.compile(r"`([0-9a-f]{64})`")


def rows(text: str, marks: tuple[str, str]) -> list[list[str]]:
    """The cells of a generated table, without its head."""
    inside = text.split(marks[0])[1].split(marks[1])[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in inside]


def test_every_file_is_listed_with_its_digest() -> None:
    text = (ROOT / "weights.md").read_text(encoding="utf-8")
    assert refreshed(text, ROOT) == text, "run python -m foundation.weights.table"
    listed = {name.strip("`"): (int(size), digest.strip("`")) for name, size, digest in rows(text, FILES)}
    there = {}
    for folder in ("gid/weights", "rahf/weights"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                name = path.relative_to(ROOT).as_posix()
                there[name] = (len(content), hashlib.sha256(content).hexdigest())
    assert listed == there


def test_every_checkpoint_is_listed_and_no_digest_is_invented() -> None:
    text = (ROOT / "weights.md").read_text(encoding="utf-8")
    listed = {row[0].strip("`"): row for row in rows(text, CHECKPOINTS)}
    for weights in KNOWN:
        if weights.embedded is not None and not (ROOT / weights.embedded).is_dir():
            assert weights.name not in listed
            continue
        row = listed[weights.name]
        assert len(row) == 10
        if weights.embedded is None:
            assert set(SHA256.findall(row[6])) == set(weights.files.values())
            assert (row[6] == UNKNOWN) == (not weights.files)
    assert "642,612,710" in listed["rahf_model.pt"][5]
    assert "none stated" in listed["unet_v1.pth"][7]
    assert PUBLIC_RAHF.parameters == PUBLIC_PARAMETERS
    assert PUBLIC_RAHF.licence == PUBLIC_LICENSE
    assert FLTWR.files == {}
    assert ROOT / str(GID_SMALL.embedded) == GID_EMBEDDED


def test_tables_follow_what_is_there(tmp_path: Path) -> None:
    begin_end = "\n\n".join("\n".join(marks) for marks in (FILES, CHECKPOINTS))
    (tmp_path / "gid/weights").mkdir(parents=True)
    (tmp_path / "gid/weights/config.json").write_text("{}")
    without = refreshed(f"before\n{begin_end}\nafter\n", tmp_path)
    assert [row[0] for row in rows(without, FILES)] == ["`gid/weights/config.json`"]
    assert "rahf-small" not in without
    (tmp_path / "rahf/weights").mkdir(parents=True)
    (tmp_path / "rahf/weights/model.safetensors").write_bytes(b"1234")
    (tmp_path / "rahf/weights/.hidden").write_bytes(b"")
    both = refreshed(without, tmp_path)
    assert [row[:2] for row in rows(both, FILES)][1] == ["`rahf/weights/model.safetensors`", "4"]
    assert "rahf-small" in both
    assert both.startswith("before\n")
    assert both.endswith("after\n")
    shutil.rmtree(tmp_path / "rahf")
    assert refreshed(both, tmp_path) == without
    with pytest.raises(ValueError, match="lost its marks"):
        refreshed("nothing", tmp_path)


def hub_names_in_code() -> set[str]:
    """Repositories that are written down as constants anywhere in the packages."""
    found = set()
    for package in ("foundation", "gid", "rahf", "ui"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
                if re.fullmatch(r"\w[\w.-]*/[\w.-]+(@[\w.-]+)?(/[\w.-]+)*", text) and (name := HubName.parse(text)):
                    found.add(name.repo)
    # File formats and folders look alike.
    return {name for name in found if not re.search(r"/\d+$", name) and name.split("/")[0] not in NO_OWNERS}


NO_OWNERS = {"gid", "rahf", "runs", "image", "video", "text", "application", "gradio_api"}


def test_every_hub_repository_in_the_code_is_known() -> None:
    known = {weights.repo for weights in KNOWN if weights.repo is not None}
    assert hub_names_in_code() == known


def front_matter() -> dict:
    return yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])


def test_the_front_matter_names_no_repository_that_the_code_does_not_use() -> None:
    """The embedded weights are in the Space itself: nothing has to be preloaded, and no model of ours is on the Hub."""
    matter = front_matter()
    known = {weights.repo: weights for weights in KNOWN if weights.repo is not None}
    assert set(matter.get("models", [])) <= set(known)
    for line in matter.get("preload_from_hub", []):
        repo, *rest = line.split()
        assert repo in known
        if len(rest) == 2:
            assert rest[1] == known[repo].revision


def test_pinned_revisions_are_commits() -> None:
    for weights in KNOWN:
        assert weights.revision is None or re.fullmatch(r"[0-9a-f]{40}", weights.revision)
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in weights.files.values())
        assert not (weights.files and weights.embedded), "those are computed, not written down"
