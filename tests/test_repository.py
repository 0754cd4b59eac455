"""The repository as a whole: what is tracked, what importing does, what a Space reads."""

from __future__ import annotations

import ast
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

from foundation.weights.table import refreshed, weight_files

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 10 * 1000 * 1000  # a plain git push to a Space refuses larger files


def tracked() -> list[Path]:
    """Files git knows, or all files outside the build folders where there is no git."""
    try:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in names.decode().split("\0") if name and (ROOT / name).is_file()]


def front_matter() -> dict[str, object]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text.split("---")[1]))


def test_files_stay_small_enough_for_a_plain_push() -> None:
    large = [str(path.relative_to(ROOT)) for path in tracked() if path.stat().st_size > LIMIT]
    assert not large


def test_no_path_of_a_machine_is_written_down() -> None:
    found = []
    pattern = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt)/[\w.-]+")
    for path in tracked():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".js", ".mjs", ".css", ".html", ".yml", ".json", ""}:
            text = path.read_text(encoding="utf-8", errors="ignore")
            found += [f"{path.relative_to(ROOT)}: {match}" for match in pattern.findall(text)]
    assert not found


def imported_modules(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import gid", "import gid.cli.main"])
def test_importing_is_light(code: str) -> None:
    heavy = {"torch", "diffusers", "transformers", "gradio", "numba", "cv2", "matplotlib", "scipy", "spaces"}
    assert not imported_modules(code) & heavy


def test_importing_gid_writes_nothing_and_opens_no_device(tmp_path: Path) -> None:
    code = "import gid, gid.motion.spectrum, torch; assert not torch.cuda.is_initialized()"
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert not list(tmp_path.iterdir())


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("foundation", {"gid", "rahf", "ui", "gradio", "app"}),
        ("gid", {"rahf", "ui", "gradio", "app"}),
        ("rahf", {"gid", "ui", "gradio", "app"}),
        ("ui", {"app"}),
    ],
)
def test_imports_point_one_way(package: str, forbidden: set[str]) -> None:
    wrong = {
        str(path.relative_to(ROOT)): sorted(imports_of(path) & forbidden)
        for path in (ROOT / package).rglob("*.py")
        if imports_of(path) & forbidden
    }
    assert not wrong


def test_front_matter_is_what_a_space_needs() -> None:
    card = SpaceCard.load(ROOT / "README.md")
    data = card.data.to_dict()
    assert data["sdk"] == "gradio"
    assert data["license"] == "apache-2.0"
    assert (ROOT / data["app_file"]).is_file()
    assert len(data["short_description"]) <= 60
    assert data["tags"]
    assert data["suggested_hardware"]
    # Written as a string: 3.10 as a number would become 3.1.
    assert front_matter()["python_version"] == "3.12"
    assert data["colorFrom"] in COLOURS
    assert data["colorTo"] in COLOURS


COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def test_the_gradio_of_the_space_is_one_the_package_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    gradio = next(need for line in project["dependencies"] if (need := Requirement(line)).name == "gradio")
    assert gradio.specifier.contains(str(front_matter()["sdk_version"]))
    assert gradio.specifier.contains(version("gradio"))


def test_requirements_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    # The same, but for torch: newer builds than the platform's would not find its GPUs.
    listed = [line.partition(",<2.14")[0] if line.startswith("torch>") else line for line in listed]
    assert sorted(listed) == sorted(project["dependencies"])
    assert not any(line.startswith("spaces") for line in listed), "the platform brings its own"


def test_weights_md_lists_every_file() -> None:
    text = (ROOT / "weights.md").read_text(encoding="utf-8")
    assert refreshed(text, ROOT) == text, "run python -m foundation.weights.table"
    assert all(f"`{path.relative_to(ROOT).as_posix()}`" in text for path in weight_files(ROOT))


def test_every_example_is_credited_and_small() -> None:
    credits = (ROOT / "examples" / "CREDITS.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").iterdir():
        if path.suffix in {".jpg", ".png"}:
            assert f"| {path.name} |" in credits, f"{path.name} has no credit"
            assert path.stat().st_size < 150_000
