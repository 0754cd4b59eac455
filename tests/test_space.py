"""The tree of a Space: complete, small, and it starts from a clean copy."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from foundation.weights.known import KNOWN
from tools.space import LIMIT, Measured, assemble_tree, tracked, visit

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        tracked()
    except ValueError:
        pytest.skip("not a git checkout")
    target = tmp_path_factory.mktemp("space") / "tree"
    assemble_tree(target)
    return target


def files(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}


def test_the_tree_holds_what_the_app_needs_and_no_more(tree: Path) -> None:
    held = files(tree)
    assert {"app.py", "requirements.txt", "README.md", "LICENSE", "gid/poking/canvas/canvas.js"} <= held
    assert {f"gid/weights/{name}/diffusion_pytorch_model.safetensors" for name in ("denoiser", "renderer")} <= held
    assert {"rahf/weights/config.json", "rahf/weights/model.safetensors.index.json"} <= held
    assert not [name for name in held if name.startswith(("tests/", "tools/", ".git")) or name.endswith(".pyc")]
    for name in held:
        assert (tree / name).read_bytes() == (ROOT / name).read_bytes()
        assert (tree / name).stat().st_size <= LIMIT
    packages = [name for name in held if name.startswith(("foundation/", "gid/", "rahf/"))]
    assert sum((tree / name).stat().st_size for name in packages) < 90_000_000


def test_no_link_of_its_pages_leads_nowhere(tree: Path) -> None:
    broken = []
    for page in ("README.md", "weights.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", (tree / page).read_text(encoding="utf-8")):
            if not target.startswith("http") and not (tree / target).exists():
                broken.append(f"{page}: {target}")
    assert not broken


def test_it_starts_from_a_clean_copy_and_answers(tree: Path) -> None:
    before = files(tree)
    found = visit(tree, sys.executable, Measured())
    assert set(found.answers_s) == {"/animate", "/poke", "/feedback", "/rank", "/repair"}
    # What importing leaves: gradio's stubs of the components, and loops compiled once and kept.
    left = {name for name in files(tree) - before if "__pycache__" not in name}
    assert left <= {name for name in left if name.endswith(".pyi")}


def repository(folder: Path, *names: str) -> Path:
    """A git checkout with some files of a Space."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    return folder


def test_what_cannot_be_pushed_is_refused(tmp_path: Path) -> None:
    root = repository(tmp_path / "root", "README.md", "app.py", "requirements.txt", "gid/weights/large.safetensors")
    with open(root / "gid/weights/large.safetensors", "wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(ValueError, match=rf"model_index\.json is missing; gid/weights/large\S+ has {LIMIT + 1} bytes"):
        assemble_tree(tmp_path / "out", root)
    with pytest.raises(ValueError, match="exists already"):
        assemble_tree(root, root)
    with pytest.raises(ValueError, match="no git checkout"):
        assemble_tree(tmp_path / "out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_untracked_files_stay_behind(tmp_path: Path) -> None:
    needed = ("README.md", "app.py", "requirements.txt", "gid/weights/model_index.json")
    root = repository(tmp_path / "root", *needed)
    (root / "gid" / "secret.py").touch()
    assert {path.as_posix() for path in assemble_tree(tmp_path / "out", root)} == set(needed)
    assert files(tmp_path / "out") == set(needed)


# -- what the front matter promises ------------------------------------------------------------------------------------


def front_matter() -> dict[str, object]:
    return dict(yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1]))


def test_the_python_of_the_space_is_one_the_package_and_the_platform_take() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = front_matter()["python_version"]
    assert isinstance(python, str), "3.10 as a number would become 3.1"
    assert SpecifierSet(project["requires-python"]).contains(f"{python}.0")
    assert python in ("3.10", "3.12"), "ZeroGPU offers these two"


def test_the_requirements_take_what_is_installed_here_and_on_the_platform() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    needs = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for need in needs:
        assert need.specifier.contains(version(need.name), prereleases=True), need
    torch = next(need for need in needs if need.name == "torch")
    assert torch.specifier.contains("2.13.0")
    assert not torch.specifier.contains("2.15.0"), "ZeroGPU does not offer it"


def test_models_and_preloads_are_those_the_space_reads() -> None:
    """The embedded weights need none; what is named must be known, and what is preloaded pinned."""
    data = front_matter()
    SpaceCard.load(ROOT / "README.md")
    known = {weights.repo for weights in KNOWN if weights.repo}
    models, preloads = data.get("models") or [], data.get("preload_from_hub") or []
    assert isinstance(models, list)
    assert isinstance(preloads, list)
    assert set(models) <= known
    for line in preloads:
        repo, *rest = str(line).split()
        assert repo in models
        assert re.fullmatch(r"[0-9a-f]{40}", rest[-1]), f"{repo} is preloaded without a revision"
