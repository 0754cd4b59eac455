"""The menus of weights as a visitor sees them: a real browser. Skipped where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

import rahf.model.rahf as rahf_model
from gid.diffusion.loading import KIND as GID
from rahf.model.loading import KIND as RAHF
from tests.browsing import LOOK_NAMES, LOOKS, Visit, needs_browser, open_page
from tests.rahf.conftest import TINY
from tests.tiny import tiny_pipeline
from tests.ui.test_app_browser import set_quick

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app with other weights on both menus, and a line about weights that were asked for in vain."""
    from app import create_demo, launch
    from rahf.predictor import Predictor
    from ui.animate.service import AnimationService
    from ui.feedback.service import FeedbackService
    from ui.weights_menu import ChosenService
    from ui.weights_names import fallback_note

    folder = tmp_path_factory.mktemp("menu")
    tiny_pipeline().save_pretrained(folder / "other")
    torch.manual_seed(1)
    terms = {"weights_license": "CC BY-NC 4.0", "weights_source": "a release"}
    rahf_model.RAHF(TINY.changed(word_threshold=0.3, **terms)).save_pretrained(folder / "released")
    patch = pytest.MonkeyPatch()
    patch.setenv("GID_MENU", str(folder / "other"))
    patch.setenv("RAHF_MENU", str(folder / "released"))
    for name in ("GID_WEIGHTS", "RAHF_WEIGHTS", "GRADIO_SERVER_NAME"):
        patch.delenv(name, raising=False)
    patch.setattr(constants, "HF_HUB_OFFLINE", True)
    motion = ChosenService(AnimationService(tiny_pipeline(), "embedded"), GID, "cpu")
    torch.manual_seed(0)
    judge = FeedbackService(Predictor(rahf_model.RAHF(TINY), name="embedded"), "embedded")
    notes = (fallback_note("nobody/nothing", "they are not there"), "")
    demo = create_demo(motion, ChosenService(judge, RAHF, "cpu"), notes=notes)
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield url
    demo.close()
    patch.undo()


@pytest.fixture(params=LOOKS, ids=LOOK_NAMES)
def look(request: pytest.FixtureRequest) -> tuple[str, int, int]:
    return request.param


def visit_app(browser: Any, url: str, look: tuple[str, int, int]) -> Visit:
    visit = open_page(browser, Visit, url, *look)
    visit.page.locator("#animate-button").wait_for()
    return visit


def keep_picture(visit: Visit, name: str) -> None:
    """For people, where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        visit.page.wait_for_timeout(500)
        visit.page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_the_page_names_no_path_of_this_machine(page_url: str, browser: Any) -> None:
    visit = open_page(browser, Visit, page_url)
    config = visit.page.evaluate("() => JSON.stringify(window.gradio_config)")
    assert "released" in config
    assert "/released" not in config
    assert "/other" not in config
    visit.page.close()


def test_choosing_weights_of_motion(browser: Any, page_url: str, picture: Path, look: tuple[str, int, int]) -> None:
    visit, other = visit_app(browser, page_url, look), visit_app(browser, page_url, look)
    page = visit.page
    assert "nobody/nothing" in page.locator("#weights-fallback").inner_text()
    set_quick(visit)
    menu = page.locator("#gid-weights-menu input")
    assert menu.input_value() == "embedded"
    menu.click()
    page.get_by_role("option", name="other").click()
    page.locator("#animate-photo input[type=file]").set_input_files(str(picture))
    page.locator("#animate-photo img").first.wait_for()
    page.wait_for_function("() => document.querySelector('#gid-weights-menu input').value === 'other'")
    page.locator("#animate-button").click()
    page.locator("#animate-note").get_by_text("Motion by the other weights").wait_for()

    menu.fill("someone/else")
    menu.press("Enter")
    page.locator("#gid-weights-note").get_by_text("HF_HUB_OFFLINE").wait_for()
    page.wait_for_function("() => document.querySelector('#gid-weights-menu input').value === 'embedded'")
    keep_picture(visit, f"motion-weights-{look[0]}")

    set_quick(other)  # another visit has chosen nothing
    other.page.locator("#animate-photo input[type=file]").set_input_files(str(picture))
    other.page.locator("#animate-photo img").first.wait_for()
    other.page.locator("#animate-button").click()
    other.page.locator("#animate-note").get_by_text("Motion by the embedded weights").wait_for()
    assert visit.overflow() <= 0
    assert visit.problems == other.problems == []
    visit.page.close()
    other.page.close()


def ask_for_feedback(page: Any, picture: Path) -> None:
    page.locator("#feedback-picture input[type=file]").set_input_files(str(picture))
    page.locator("#feedback-picture img").first.wait_for()
    page.locator("#feedback-prompt textarea").fill("a red cat on a mat")
    page.locator("#feedback-button").click()
    page.locator("#feedback-view-one .rahf-ready").wait_for()


def test_choosing_weights_of_feedback(browser: Any, page_url: str, picture: Path, look: tuple[str, int, int]) -> None:
    visit = visit_app(browser, page_url, look)
    page = visit.page
    page.get_by_role("tab", name="Rich feedback").click()
    ask_for_feedback(page, picture)
    note = page.locator("#feedback-note-one")
    note.get_by_text("Feedback by the embedded weights").wait_for()
    slider = page.locator("#feedback-view-one").get_by_label("Word threshold")
    assert slider.input_value() == "0.5"

    page.get_by_role("button", name="Advanced").locator("visible=true").click()
    menu, said = page.locator("#rahf-weights-menu input"), page.locator("#rahf-weights-note")
    assert menu.input_value() == "embedded"
    menu.click()
    page.get_by_role("option", name="released").click()
    said.get_by_text("for non-commercial use only (CC BY-NC 4.0)").wait_for()
    assert slider.input_value() == "0.5", "what is shown was found by the embedded weights"
    keep_picture(visit, f"feedback-weights-{look[0]}")
    page.locator("#feedback-button").click()
    note.get_by_text("Feedback by the released weights (a release).").wait_for()
    assert "non-commercial use only" in note.inner_text()
    page.wait_for_function("(slider) => slider.value === '0.3'", arg=slider.element_handle())  # its pictures load first

    menu.fill("someone/else")
    menu.press("Enter")
    said.get_by_text("HF_HUB_OFFLINE").wait_for()
    assert said.inner_text().endswith("The embedded weights answer instead.")
    page.wait_for_function("() => document.querySelector('#rahf-weights-menu input').value === 'embedded'")
    keep_picture(visit, f"feedback-fallback-{look[0]}")
    page.locator("#feedback-button").click()
    note.get_by_text("Feedback by the embedded weights").wait_for()
    assert visit.overflow() <= 0
    assert visit.problems == []
    visit.page.close()
