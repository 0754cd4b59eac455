"""Without a network and without a cache: every feature of the four tabs works on the embedded weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from foundation.video import write_video
from tests.browsing import Visit, needs_browser, open_page
from tests.swaying import textured_photo
from tests.ui.test_app_browser import set_quick
from tools.space import ask_app, free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "examples" / "flower.jpg"
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of `app.py` with an empty home and no way out, and the file of what it tried to reach."""
    home, port = tmp_path_factory.mktemp("home"), free_port()
    tried = home / "tried"
    environment = {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with open(home / "log", "wb") as output:
        command = [sys.executable, "-m", "tests.ui.offline_app", str(tried)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_for(url, process, home / "log", 600)
        yield url, tried
        assert tried.read_text(encoding="utf-8") == "", "the app asked for something elsewhere"
        assert not list((home / "hf").rglob("*")), "something was fetched"
    finally:
        process.kill()
        process.wait()


def test_every_endpoint_answers(app: tuple[str, Path]) -> None:
    url, tried = app
    assert set(ask_app(url, PHOTO)) == {"/animate", "/poke", "/feedback", "/rank", "/repair"}
    assert tried.read_text(encoding="utf-8") == ""


@pytest.fixture
def visit(app: tuple[str, Path], browser: Any) -> Iterator[Visit]:
    seen = open_page(browser, Visit, app[0])
    seen.page.locator("#animate-button").wait_for()
    yield seen
    seen.page.close()
    assert not seen.problems
    assert app[1].read_text(encoding="utf-8") == ""


def saved(visit: Visit, button: str) -> bytes:
    """What a button of the open tab gives to keep."""
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name=button).locator("visible=true").and_(
            visit.page.locator(":enabled")
        ).click()
    return Path(download.value.path()).read_bytes()


def swaying_clip(path: Path) -> Path:
    """A blob that sways in front of a ground that stands still."""
    photo = textured_photo((160, 96)).permute(1, 2, 0).numpy()
    y, x = np.mgrid[0:96, 0:160].astype(np.float32)
    blob = np.clip(1 - ((x - 80) / 40) ** 2 - ((y - 48) / 30) ** 2, 0, None)
    frames = []
    for time in range(60):
        moved = cv2.remap(photo, x - 4 * blob * np.float32(np.sin(2 * np.pi * time / 30)), y, cv2.INTER_LINEAR)
        frames.append((moved.clip(0, 1) * 255).astype(np.uint8)[None])
    return write_video(path, frames)


@needs_browser
def test_animate_and_poke(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.locator("#animate-photo").wait_for()
    page.locator(".gallery-item").first.click()  # an example: a dandelion
    page.locator("#animate-photo img").first.wait_for()
    set_quick(visit)
    page.locator("#animate-button").click()
    page.locator("#animate-live canvas").wait_for(state="attached")
    page.wait_for_function("() => document.querySelector('#animate-video video')?.currentTime > 0")
    assert "Motion by the embedded weights" in page.locator("#animate-note").inner_text()
    page.locator("#animate-energy img").first.wait_for()
    assert saved(visit, "Save video")[4:8] == b"ftyp"
    assert b"gid-motion/1" in saved(visit, "Save motion")[:2000]

    page.get_by_role("tab", name="Poke").click()  # photo and motion come along
    page.locator("#poke-canvas .gid-poke-ready").wait_for()
    assert page.locator("#poke-render").is_disabled()  # there is no poke yet
    box = page.locator("#poke-canvas canvas").bounding_box()
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.35 * box["height"]  # its head
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y + 5, steps=4)
    page.mouse.up()
    page.wait_for_timeout(500)  # the gesture is on its way
    page.locator("#poke-render").click()
    page.wait_for_function("() => [...document.querySelectorAll('video')].some((video) => /poke-/.test(video.src))")
    assert b"<canvas" in saved(visit, "Take it home")

    clip = swaying_clip(tmp_path / "clip.mp4")
    page.get_by_role("button", name="Your own clip").click()
    page.locator("#poke-clip input[type=file]").set_input_files(str(clip))
    page.locator("#poke-clip video").wait_for()
    page.locator("#poke-measure").click()
    page.get_by_text("Motion measured in the clip").wait_for()


@needs_browser
def test_rich_feedback(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("tab", name="Rich feedback").click()
    page.locator("tbody td").locator("visible=true").first.click()
    page.locator("#feedback-view-one .rahf-ready").wait_for()
    page.locator("#feedback-note-one").get_by_text("Feedback by the embedded weights").wait_for()
    assert len(json.loads(saved(visit, "Save as JSON"))["scores"]) == 4
    assert saved(visit, "Save the report")[:4] == b"\x89PNG"
    page.get_by_role("tab", name="Compare pictures").click()
    page.locator("tbody td").locator("visible=true").first.click()
    page.locator("#feedback-view-many .rahf-ready").wait_for()
    places = page.locator("#feedback-view-many .rahf-title b").all_inner_texts()
    assert [place.strip() for place in places] == [f"{number}." for number in range(1, len(places) + 1)]
    assert len(places) >= 2


@needs_browser
def test_improve(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("tab", name="Improve").click()
    page.locator("#improve-repair").wait_for()
    page.wait_for_timeout(1000)
    page.locator("#improve-prompt textarea").fill("two red apples")
    page.locator("#improve-draw").click()
    page.locator("#improve-single img").wait_for()
    assert "embedded generator" in page.locator("#improve-note").inner_text()
    page.locator("#improve-told table").wait_for()
    page.locator("#improve-repair").click()
    page.locator("#improve-told th", has_text="before").wait_for()
    assert saved(visit, "Save the report")[:4] == b"\x89PNG"
