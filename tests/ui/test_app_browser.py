"""The app as a visitor sees it: a real browser. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browsing import LOOK_NAMES, LOOKS, Visit, needs_browser, open_page

pytestmark = needs_browser


@pytest.fixture(params=LOOKS, ids=LOOK_NAMES)
def visit(request: pytest.FixtureRequest, browser: Any, app_url: str) -> Iterator[Visit]:
    visit = open_page(browser, Visit, app_url, *request.param)
    visit.page.locator("#animate-button").wait_for()
    yield visit
    visit.page.close()


def set_quick(visit: Visit, seconds: int = 1, seed: int = 0) -> None:
    """A short, small video, as a visitor would type it."""
    page = visit.page
    page.get_by_role("button", name="Advanced").click()
    settings = (("Diffusion steps", 1), ("Longer side in pixels", 128), ("Seconds", seconds), ("Seed", seed))
    for label, value in settings:
        box = page.get_by_role("spinbutton", name=label)
        box.fill(str(value))
        box.blur()


def test_photo_to_playing_loop(visit: Visit, picture: Path) -> None:
    page = visit.page
    page.locator("#animate-photo input[type=file]").set_input_files(str(picture))
    page.locator("#animate-photo img").first.wait_for()
    # A seed of its own: what an earlier visit rendered is remembered and shown at once, without the live preview.
    set_quick(visit, seconds=4, seed=visit.page.viewport_size["width"])
    page.locator("#animate-button").click()
    # The live preview takes the photo (96 wide); a quick machine may show the video before anybody could see it sway.
    page.locator("#animate-live canvas[width='96']").wait_for(state="attached")
    page.locator("#animate-video video").wait_for()
    page.wait_for_function("() => document.querySelector('#animate-video video').currentTime > 0")
    state = page.evaluate(
        "() => { const v = document.querySelector('#animate-video video');"
        " return [v.loop, v.paused, v.videoWidth, v.muted, v.playsInline]; }"
    )
    assert state == [True, False, 96, True, True]  # phones start by themselves only what is silent and stays in place
    page.locator("#animate-energy img").first.wait_for()
    assert page.locator("#animate-bands rect").count() == 15
    assert page.get_by_role("button", name="Save motion").is_enabled()
    assert visit.overflow() <= 0
    assert visit.problems == []


def test_with_reduced_motion_a_video_waits_for_its_visitor(browser: Any, app_url: str, picture: Path) -> None:
    visit = open_page(browser, Visit, app_url)
    page = visit.page
    page.emulate_media(reduced_motion="reduce")
    page.locator("#animate-photo input[type=file]").set_input_files(str(picture))
    page.locator("#animate-photo img").first.wait_for()
    set_quick(visit, seed=7)
    page.locator("#animate-button").click()
    page.wait_for_function("() => document.querySelector('#animate-video video')?.readyState >= 3")
    page.wait_for_timeout(500)
    state = "() => { const v = document.querySelector('#animate-video video'); return [v.autoplay, v.paused]; }"
    assert page.evaluate(state) == [True, True]
    page.evaluate("() => document.querySelector('#animate-video video').play()")
    page.wait_for_function("() => document.querySelector('#animate-video video').currentTime > 0.2")
    assert page.evaluate(state) == [True, False]
    assert visit.problems == []
    page.close()


def test_strength_renders_again_without_pressing_animate(visit: Visit, picture: Path) -> None:
    page = visit.page
    page.locator("#animate-photo input[type=file]").set_input_files(str(picture))
    page.locator("#animate-photo img").first.wait_for()
    set_quick(visit)
    page.locator("#animate-button").click()
    page.wait_for_function("() => document.querySelector('#animate-video video')?.currentTime > 0")
    before = page.evaluate("() => document.querySelector('#animate-video video').src")
    slider = page.get_by_role("slider", name="range slider for Strength")
    slider.focus()
    slider.press("ArrowRight")
    slider.dispatch_event("pointerup")
    page.wait_for_function(
        "(old) => { const v = document.querySelector('#animate-video video'); return v && v.src !== old; }", arg=before
    )
    assert visit.problems == []


def test_animate_without_a_photo_explains(visit: Visit) -> None:
    visit.page.locator("#animate-button").click()
    visit.page.get_by_text("There is no photo yet").first.wait_for()


PLAYS = "() => document.querySelector('#animate-video video')?.currentTime > 0"


def test_one_click_animates_an_example(visit: Visit) -> None:
    page = visit.page
    for _ in range(2):  # the second visit's answer is remembered and comes at once
        set_quick(visit)
        page.locator(".gallery-item").first.click()
        page.locator("#animate-photo img").first.wait_for()
        page.wait_for_function(PLAYS)
        page.get_by_role("tab", name="Live preview").click()
        page.locator("#animate-live .gid-poke-ready").wait_for()
        page.reload()
    assert visit.problems == []


def test_another_photo_in_the_middle_gets_its_own_result(visit: Visit, picture: Path, tmp_path: Path) -> None:
    page = visit.page
    upright = tmp_path / "upright.png"
    with Image.open(picture) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(upright)
        width = image.height
    set_quick(visit, seconds=8, seed=2 * page.viewport_size["width"])
    files = page.locator("#animate-photo input[type=file]")
    files.set_input_files(str(picture))
    page.locator("#animate-photo img").first.wait_for()
    page.locator("#animate-button").click()
    page.locator("#animate-views .progress-text, #animate-note .progress-text").first.wait_for()
    page.locator("#animate-photo").get_by_role("button", name="Remove").click()
    files.set_input_files(str(upright))
    page.locator("#animate-photo img").first.wait_for()
    page.locator("#animate-button").click()  # not lost, though the first is still being rendered
    page.wait_for_function(PLAYS)
    assert page.evaluate("() => document.querySelector('#animate-video video').videoWidth") == width
    assert visit.problems == []
