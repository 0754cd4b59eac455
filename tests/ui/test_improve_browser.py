"""The Improve tab in a real browser: a picture is painted on, mended, and handed to and fro; with tiny real models."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rahf.improve.generator import wrap
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from tests.browsing import LOOK_NAMES, LOOKS, Visit, needs_browser, open_page
from tests.rahf.conftest import TINY
from tests.rahf.improve.pipelines import make
from tests.tiny import photo, tiny_pipeline
from ui.animate.service import AnimationService
from ui.feedback.service import FeedbackService
from ui.improve.service import ImproveService

pytestmark = needs_browser
PROMPT = "a red apple"


@pytest.fixture(scope="module")
def page_url() -> Iterator[str]:
    from app import create_demo, launch

    torch.manual_seed(0)
    feedback = FeedbackService(Predictor(RAHF(TINY), name="tiny"), "tiny")
    improve = ImproveService(lambda: wrap(make("sd-inpaint"), "tiny"), feedback, "tiny")
    demo = create_demo(AnimationService(tiny_pipeline(), "tiny"), feedback, improve=improve)
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield url
    demo.close()


@pytest.fixture(params=LOOKS, ids=LOOK_NAMES)
def visit(request: pytest.FixtureRequest, browser: Any, page_url: str) -> Iterator[Visit]:
    seen = open_page(browser, Visit, page_url, *request.param)
    seen.page.get_by_role("tab", name="Improve").click()
    seen.page.locator("#improve-repair").wait_for()
    seen.page.wait_for_timeout(1000)  # components of a tab just opened may yet get their empty first values
    yield seen
    seen.page.close()


def upload(page: Any, path: Path) -> None:
    photo(96, 64, seed=page.viewport_size["width"]).save(path)
    page.locator("#improve-picture input[type=file]").set_input_files(str(path))
    page.locator("#improve-picture img").first.wait_for()
    page.locator("#improve-prompt textarea").fill(PROMPT)


def fewer(page: Any) -> None:
    """One picture, one round, few steps."""
    page.get_by_text("Advanced").locator("visible=true").click()
    page.wait_for_timeout(1000)
    for label in ("Pictures to choose from", "Rounds", "Steps"):
        box = page.get_by_label(f"number input for {label}").locator("visible=true")
        box.fill("2" if label == "Steps" else "1")
        box.press("Enter")


def pixels_at(page: Any, selector: str) -> np.ndarray:
    """(H, W, 3) uint8 of a picture on the page, as the server holds it."""
    answer = page.request.get(page.locator(selector).last.get_attribute("src"))
    assert answer.ok
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"))


def test_what_is_painted_is_drawn_anew_and_nothing_else(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    upload(page, tmp_path / "picture.png")
    fewer(page)
    page.get_by_text("Paint where to draw anew").click()
    canvas = page.locator("#improve-painter canvas")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    with page.expect_response(lambda answer: answer.request.method == "POST"):  # the stroke goes to the server
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.3 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"], steps=4)
        page.mouse.up()
    assert "What is painted" in page.locator("#improve-painter .painter-status").inner_text()
    page.locator("#improve-repair").click()
    page.locator("#improve-told table").wait_for()
    page.locator("#improve-tried img").first.wait_for()
    tried = pixels_at(page, "#improve-tried img")
    given = np.asarray(photo(96, 64, seed=page.viewport_size["width"]).convert("RGB"))
    changed = np.abs(tried.astype(int) - given).max(2) > 0
    assert changed.any()
    rows, columns = np.nonzero(changed)
    assert 0.1 * 96 < columns.min() <= columns.max() < 0.5 * 96
    assert 0.05 * 64 < rows.min() <= rows.max() < 0.65 * 64
    assert visit.overflow() <= 0
    assert not visit.problems


def test_a_picture_goes_from_tab_to_tab(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    fewer(page)
    page.locator("#improve-prompt textarea").fill(PROMPT)
    page.locator("#improve-draw").click()
    page.locator("#improve-single img").wait_for()
    page.locator("#improve-picture img").first.wait_for()
    page.locator("#improve-look").click()
    page.locator("#feedback-button").wait_for()
    page.locator("#feedback-picture img").first.wait_for()
    page.wait_for_function(f"document.querySelector('#feedback-prompt textarea').value === '{PROMPT}'")
    page.wait_for_timeout(500)  # what was handed on has arrived altogether
    page.locator("#feedback-prompt textarea").fill("two cats")
    page.wait_for_timeout(300)
    page.locator("#feedback-improve").click()
    page.locator("#improve-repair").wait_for()
    page.wait_for_function("document.querySelector('#improve-prompt textarea').value === 'two cats'")
    assert not visit.problems


def test_mistakes_are_explained(visit: Visit) -> None:
    page = visit.page
    page.locator("#improve-repair").click()
    page.get_by_text("There is no picture yet").first.wait_for()
    page.locator("#improve-draw").click()
    page.get_by_text("there is no prompt").first.wait_for()
