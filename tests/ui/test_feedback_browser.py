"""The whole Rich feedback tab in a real browser, with a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image

from rahf.model.config import SCORES
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from tests.browsing import LOOK_NAMES, LOOKS, Visit, needs_browser, open_page
from tests.rahf.conftest import TINY
from tests.tiny import photo
from ui.feedback.results import Thresholds
from ui.feedback.service import FeedbackService
from ui.feedback.tab import build_feedback_tab
from ui.theme import STYLES, make_theme

pytestmark = needs_browser


def serve(service: FeedbackService) -> tuple[gr.Blocks, str]:
    with gr.Blocks() as demo:
        with gr.Tab("Other"):
            gr.Markdown("Nothing here")
        with gr.Tab("Rich feedback"):
            build_feedback_tab(service)
    _, url, _ = demo.launch(
        server_name="127.0.0.1",
        prevent_thread_lock=True,
        quiet=True,
        theme=make_theme(),
        css_paths=STYLES,
        run_history=False,
    )
    return demo, url


@pytest.fixture(scope="module")
def service() -> FeedbackService:
    torch.manual_seed(0)
    return FeedbackService(Predictor(RAHF(TINY), name="embedded"), "embedded")


@pytest.fixture(scope="module")
def tab_url(service: FeedbackService) -> Iterator[str]:
    demo, url = serve(service)
    yield url
    demo.close()


@pytest.fixture(params=LOOKS, ids=LOOK_NAMES)
def visit(request: pytest.FixtureRequest, browser: Any, tab_url: str) -> Iterator[Visit]:
    seen = open_page(browser, Visit, tab_url, *request.param)
    seen.page.get_by_role("tab", name="Rich feedback").click()
    seen.page.locator("#feedback-button").wait_for()
    yield seen
    seen.page.close()


def places(page: Any) -> list[float]:
    """Where things stand on the page, from its top."""
    selectors = ["#feedback-prompt", "#feedback-view-one .rahf-frame + *, #feedback-view-one .rahf-probe"]
    selectors += ["#feedback-view-one .rahf-words", "#feedback-view-one .rahf-reasons", "#feedback-note-one"]
    return [float(page.locator(s).last.evaluate("(e) => e.getBoundingClientRect().top + scrollY")) for s in selectors]


def test_upload_to_feedback_without_a_jump(visit: Visit, service: FeedbackService, tmp_path: Path) -> None:
    page = visit.page
    path = tmp_path / "picture.png"
    photo(96, 64, seed=page.viewport_size["width"]).save(path)
    page.locator("#feedback-picture input[type=file]").set_input_files(str(path))
    page.locator("#feedback-picture img").first.wait_for()
    prompt = "a red cat on a mat"
    page.locator("#feedback-prompt textarea").fill(prompt)
    before = places(page)
    page.locator("#feedback-button").click()
    page.locator("#feedback-view-one .rahf-ready").wait_for()
    page.get_by_role("button", name="Save as JSON").locator("visible=true").and_(page.locator(":enabled")).wait_for()
    assert places(page) == pytest.approx(before, abs=1)
    truth = service.examine(str(path), prompt).feedback
    meters = page.locator("#feedback-view-one").get_by_role("meter")
    read = [float(meters.nth(n).get_attribute("aria-valuenow")) for n in range(4)]
    assert read == pytest.approx(list(truth.scores.values()), abs=0.006)
    assert "other words are not judged" in page.locator("#feedback-note-one").inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").locator("visible=true").click()
    assert json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["prompt"] == prompt
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the report").locator("visible=true").click()
    with Image.open(download.value.path()) as sheet:
        assert sheet.width > 900
    assert visit.overflow() <= 0
    assert not visit.problems


def test_an_example_is_looked_at_with_one_click(visit: Visit) -> None:
    page = visit.page
    page.locator("tbody td").locator("visible=true").first.click()
    page.locator("#feedback-view-one .rahf-ready").wait_for()
    rows = json.loads((Path(__file__).parents[2] / "examples" / "feedback.json").read_text(encoding="utf-8"))
    assert page.locator("#feedback-view-one .rahf-prompt").inner_text() == rows[0]["prompt"]
    assert page.locator("#feedback-view-one .rahf-frame img").evaluate("(image) => image.naturalWidth") > 0
    assert not visit.problems


def test_mistakes_are_explained(visit: Visit) -> None:
    page = visit.page
    page.locator("#feedback-button").click()
    page.get_by_text("There is no picture yet").first.wait_for()
    page.get_by_role("tab", name="Compare pictures").click()
    page.locator("#feedback-compare").click()
    page.get_by_text("Give 2 to 12 pictures").first.wait_for()


def test_several_pictures_are_ranked_and_ranked_again(visit: Visit, service: FeedbackService, tmp_path: Path) -> None:
    page = visit.page
    page.get_by_role("tab", name="Compare pictures").click()
    paths = [tmp_path / f"{name}.png" for name in ("one", "two", "three")]
    for seed, path in enumerate(paths):
        photo(96, 64, seed=seed).save(path)
    page.wait_for_timeout(1000)  # a gallery on a tab just opened may yet get its empty first value and lose an upload
    page.locator("#feedback-pictures input[type=file]").set_input_files([str(path) for path in paths])
    page.wait_for_function("document.querySelectorAll('#feedback-pictures img').length === 3")
    page.locator("#feedback-prompt-many textarea").fill("two birds")
    page.locator("#feedback-compare").click()
    page.locator("#feedback-view-many .rahf-ready").wait_for()
    found = service.examine_all([str(path) for path in paths], "two birds")

    def order(weights: dict[str, float]) -> list[str]:
        return [item.title for item in service.rank(found, [path.name for path in paths], weights)]

    titles = page.locator("#feedback-view-many .rahf-title bdi")
    assert titles.all_inner_texts() == order(dict.fromkeys(SCORES, 1.0))
    only = next(name for name in SCORES if order({name: 1.0}) != order(dict.fromkeys(SCORES, 1.0)))
    for name in SCORES:
        if name != only:
            box = page.get_by_label(f"number input for {name.capitalize()}")
            box.fill("0")
            box.press("Enter")
            slider = page.get_by_label(f"range slider for {name.capitalize()}")
            slider.dispatch_event("pointerup")
    page.wait_for_function(
        "(wanted) => [...document.querySelectorAll('#feedback-view-many .rahf-title bdi')]"
        ".map((title) => title.innerText).join() === wanted",
        arg=",".join(order({only: 1.0})),
    )
    assert page.locator("#feedback-view-many .rahf-item").count() == 3
    assert "of the best" in page.locator("#feedback-view-many .rahf-item").last.inner_text()
    page.locator("#feedback-view-many summary").click()
    page.locator("#feedback-view-many").get_by_label("Map threshold").fill("0")
    told = [reasons[-1] for reasons in reasons_on(page, "#feedback-view-many")]
    ranked = service.rank(found, [path.name for path in paths], {only: 1.0}, Thresholds(0.0))
    assert told == [item.reasons[-1] for item in ranked]
    assert all("(96x64 px)" in reason for reason in told)
    assert visit.overflow() <= 0
    assert not visit.problems


def reasons_on(page: Any, view: str) -> list[list[str]]:
    """The reasons of every picture, once they fit the sliders."""
    page.wait_for_function(
        "(view) => [...document.querySelectorAll(`${view} .rahf-reasons`)].every((list) => list.ariaBusy !== 'true')",
        arg=view,
    )
    lists = page.locator(f"{view} .rahf-reasons")
    return [lists.nth(place).locator("li").all_inner_texts() for place in range(lists.count())]


def test_reasons_follow_the_sliders(visit: Visit, service: FeedbackService, tmp_path: Path) -> None:
    page, view = visit.page, "#feedback-view-one"
    path, prompt = tmp_path / "picture.png", "a red cat on a mat"
    photo(96, 64, seed=7 + page.viewport_size["width"]).save(path)
    page.locator("#feedback-picture input[type=file]").set_input_files(str(path))
    page.locator("#feedback-picture img").first.wait_for()
    page.locator("#feedback-prompt textarea").fill(prompt)
    page.locator(f"{view} summary").click()
    page.locator(view).get_by_label("Map threshold").fill("0.9")  # before there is anything to tell
    page.locator("#feedback-button").click()
    page.locator(f"{view} .rahf-ready").wait_for()
    truth = service.examine(str(path), prompt).feedback
    assert truth.reasons(0.9, 0.5) != truth.reasons(), "or the test shows nothing"
    for regions, words in ((0.9, 0.5), (0.4, 0.01), (0.0, 0.99)):
        page.locator(view).get_by_label("Map threshold").fill(str(regions))
        page.locator(view).get_by_label("Word threshold").fill(str(words))
        expected = truth.reasons(regions, words)
        if not expected:
            expected = [f"nothing stands out: no word from {words:.2f}, no region from {regions:.2f} on"]
        assert reasons_on(page, view) == [expected]
    save = page.get_by_role("button", name="Save as JSON").locator("visible=true")
    with page.expect_download() as download:
        save.click()
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert (saved["threshold"], saved["word_threshold"], saved["against"]) == (0, 0.99, truth.reasons(0, 0.99))
    assert not visit.problems


def test_without_weights_the_tab_says_what_to_do(browser: Any) -> None:
    demo, url = serve(FeedbackService.load("<i>nowhere</i>"))
    try:
        seen = open_page(browser, Visit, url)
        seen.page.get_by_role("tab", name="Rich feedback").click()
        alert = seen.page.locator("#feedback-problem").get_by_role("alert")
        alert.wait_for()
        assert "Set RAHF_WEIGHTS" in alert.inner_text()
        assert "<i>nowhere</i>" in alert.inner_text()
        assert seen.page.locator("#feedback-button").is_visible()
        seen.page.close()
        assert not seen.problems
    finally:
        demo.close()
