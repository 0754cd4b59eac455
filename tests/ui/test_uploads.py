"""The cache of uploads: its size, its end, and that a photo in it is opened, hashed and decoded once a click."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import gid.motion.coherence as coherence
from gid.limits import MotionOptions
from gid.poking.responses import Response
from gid.poking.simulation import Gesture
from tests.tiny import photo, tiny_pipeline
from tests.ui.site import Site
from ui import uploads
from ui.animate.service import AnimationService
from ui.poke.service import PokeService

ROOT = Path(__file__).resolve().parents[2]


def filled(folder: Path, ages: list[float], size: int = 1000) -> list[Path]:
    """Files of so many seconds of age, each in a folder of its own as gradio's are."""
    paths = []
    for number, age in enumerate(ages):
        path = folder / f"{number:064x}" / "photo.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * size)
        os.utime(path, (time.time() - age,) * 2)
        paths.append(path)
    return paths


def test_the_oldest_go_first_and_the_young_stay(tmp_path: Path) -> None:
    paths = filled(tmp_path, [5000, 4000, 3000, 2000, 10, 5])
    assert uploads.trim(tmp_path, 10_000) == 6000
    assert all(path.exists() for path in paths)
    assert uploads.trim(tmp_path, 4000, keep={str(paths[0])}) == 4000
    assert [path.exists() for path in paths] == [True, False, False, True, True, True]
    assert not paths[1].parent.exists()
    assert uploads.trim(tmp_path, 0, keep={str(paths[0])}) == 3000
    assert [path.exists() for path in paths] == [True, False, False, False, True, True]


def test_parts_of_broken_uploads_go(tmp_path: Path) -> None:
    for name, age in (("tmpold", 5000), ("tmpnew", 5)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert uploads.trim(tmp_path, 10_000) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tmpnew"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    work = (
        "import sys, time; from ui import uploads; folder = uploads.uploads_folder(); "
        "(folder / 'kept').write_text('x'); print(folder, flush=True); time.sleep(float(sys.argv[1]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}

    def start(seconds: float) -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", work, str(seconds)],
            cwd=ROOT,
            env={**environment, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip()).parent

    killed, left = start(600)
    living, stays = start(600)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.is_dir()
        ended, own = start(0)
        ended.wait()
        assert not left.exists()
        assert not own.exists(), "it cleans up after itself"
        assert (stays / "uploads" / "kept").exists(), "whoever is alive is left alone"
    finally:
        living.kill()
        living.wait()


# -- one open, one hash, one decode ------------------------------------------------------------------------------------

OPENED: list[str] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        OPENED.append(os.fsdecode(args[0]))


@pytest.fixture(scope="module", autouse=True)
def watched() -> None:
    """An audit hook tells of every file that is opened, by whichever library; it cannot be taken off again."""
    sys.addaudithook(_watch)


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch, path: str) -> Iterator[dict[str, int]]:
    """How often a file was opened and how many pictures were begun to decode meanwhile."""
    counts = {"opened": 0, "decoded": 0}
    original = PIL.Image.open

    def count(*args: Any, **options: Any) -> Any:
        counts["decoded"] += 1
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(PIL.Image, "open", count)
        OPENED.clear()
        yield counts
    counts["opened"] = sum(name == path for name in OPENED)


@pytest.mark.parametrize("name", ["feedback", "animate", "poke"])
def test_a_click_opens_its_photo_once(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    rest = {
        "feedback": ["a red cat", 0.5, 0.5],
        "animate": [1, 1, 1, True, 0, 1, 1, 128, True],
        "poke": [10, 10, 5, 5, "drag", 0.5, 0, 0, 1],
    }
    path = tmp_path / f"{name}.png"
    photo(seed=len(name)).save(path)
    sent = site.upload(path)
    with counting(monkeypatch, sent) as counts:
        assert site.call(name, [{"path": sent}, *rest[name]]).success
    assert counts == {"opened": 1, "decoded": 1}
    with counting(monkeypatch, sent) as counts:  # another question about the same photo
        assert site.call(name, [{"path": sent}, *rest[name]]).success
    assert counts == {"opened": 0, "decoded": 0}


def test_a_poke_solves_its_photo_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Canvas, page, a tab that is opened again, and videos: one sparse system."""
    solved: list[int] = []
    original = coherence.splu

    def count(*args: Any, **options: Any) -> Any:
        solved.append(1)
        return original(*args, **options)

    path, options = tmp_path / "photo.png", MotionOptions(steps=1)
    photo(seed=9).save(path)
    animation = AnimationService(tiny_pipeline(), "tiny")
    service = PokeService(animation)
    animation.motion(path, options)  # may solve systems of its own
    monkeypatch.setattr(coherence, "splu", count)
    key = service.photo(path, options)
    assert len(solved) == 1
    assert service.known_photo(path, options) == key == service.photo(path, options)
    for pull in (0.1, 0.2):
        service.video(key, Response((Gesture((0.5, 0.5), (pull, 0.0)),), seconds=0.5))
    service.answer(path, options, Response((Gesture((0.5, 0.5), (0.05, 0.0)),), seconds=0.5))
    assert len(solved) == 1
    service.photo(path, MotionOptions(steps=1, seed=1))
    assert len(solved) > 1, "another motion is another system"
