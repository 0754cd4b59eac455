"""The Rich feedback tab in a real browser: the view with known heatmaps, and the whole tab with a tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from rahf.config import SCORES
from rahf.feedback import Feedback, WordFeedback
from rahf.model import RAHF
from rahf.predictor import Predictor
from rahf.prompts import split_words
from tests.rahf.conftest import TINY
from tests.tiny import photo
from ui.feedback import build_feedback_tab
from ui.feedback_service import FeedbackService
from ui.feedback_view import FeedbackView, ViewItem, write_files
from ui.theme import STYLES, make_theme

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

PATIENCE = 120_000  # milliseconds; a machine under load is slow, not broken
WIDTH, HEIGHT = 60, 40
EVIL = 'a <img src=x onerror="window.hacked=1"> "red" & `cat` ${alert(1)} {{props}}'
HEBREW = "שתי ציפורים red bird על העץ"
PIXELS = """(name) => {
  const canvas = document.querySelector(`#one canvas[data-map=${name}]`);
  return [canvas.hidden, canvas.style.opacity,
    [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]];
}"""


@dataclass
class Visit:
    """A page with everything it did wrong."""

    page: Any
    problems: list[str] = field(default_factory=list)

    def canvas(self, name: str) -> tuple[bool, float, np.ndarray]:
        """Whether a heatmap of the single view is hidden, how opaque it is, and its pixels (H, W, 4)."""
        hidden, opacity, values = self.page.evaluate(PIXELS, name)
        return hidden, float(opacity), np.array(values, np.uint8).reshape(HEIGHT, WIDTH, 4)

    def slide(self, label: str, value: float, where: str = "#one") -> None:
        self.page.locator(where).get_by_label(label).fill(str(value))


def open_page(browser: Any, url: str, width: int = 1280, height: int = 900, theme: str = "light") -> Visit:
    """A page that takes down every error and every request that leaves the machine."""
    page = browser.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
    page.set_default_timeout(PATIENCE)
    seen = Visit(page)
    page.on("pageerror", lambda error: seen.problems.append(f"error: {error}"))
    page.on("console", lambda line: seen.problems.append(line.text) if line.type == "error" else None)

    def check(request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
            seen.problems.append(f"request to {request.url}")

    page.on("request", check)
    page.goto(f"{url}?__theme={theme}")
    return seen


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def known_feedback(prompt: str = EVIL, height: int = HEIGHT, width: int = WIDTH) -> Feedback:
    """Implausibility rises from left to right; misalignment is 0.8 in a corner and 0.1 elsewhere."""
    rising = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    corner = np.full((height, width), 0.1, np.float32)
    corner[:10, :20] = 0.8
    words = split_words(prompt)
    chances = np.linspace(0, 1, len(words))
    return Feedback(
        prompt,
        (width, height),
        {"plausibility": 0.25, "alignment": 0.5, "aesthetics": 0.75, "overall": 1.0},
        {"implausibility": rising, "misalignment": corner},
        tuple(WordFeedback(w.text, w.start, w.end, float(p)) for w, p in zip(words, chances, strict=True)),
    )


def view_item(folder: Path, key: str, **changes: Any) -> ViewItem:
    feedback = known_feedback(changes.pop("prompt", EVIL))
    (folder / key).mkdir()
    picture, maps = write_files(np.asarray(photo(WIDTH, HEIGHT)), feedback, folder / key)
    return ViewItem(key, f"{key}.png", picture, maps, feedback, **changes)


@pytest.fixture(scope="module")
def view(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """A page with views of known feedback, opened once."""
    folder = tmp_path_factory.mktemp("view")
    single = view_item(folder, "single", reasons=("not shown: <b>red</b>",))
    hebrew = view_item(folder, "hebrew", prompt=HEBREW)
    pair = [view_item(folder, name, place=place, value=0.5) for place, name in enumerate(("a", "b"), start=1)]
    with gr.Blocks() as demo:
        one = FeedbackView([single], layout="one", elem_id="one")
        FeedbackView([hebrew], layout="one", elem_id="hebrew")
        many = FeedbackView(pair, layout="many", elem_id="many")
        gr.Button("Clear").click(lambda: None, None, one)
        gr.Button("Fill").click(lambda: [single], None, one)
        gr.Button("Turn").click(lambda: pair[::-1], None, many)
    _, url, _ = demo.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, allowed_paths=[str(folder)], run_history=False
    )
    seen = open_page(browser, url)
    for name in ("one", "hebrew", "many"):
        seen.page.locator(f"#{name} .rahf-ready").wait_for()
    yield seen
    seen.page.close()
    demo.close()


@pytest.fixture
def shown(view: Visit) -> Iterator[Visit]:
    """The view with its controls as at the start."""
    view.slide("Opacity", 0.75)
    view.slide("Map threshold", 0.25)
    view.slide("Word threshold", 0.5)
    view.page.locator("#one").get_by_label("Both").check()
    yield view
    assert not view.problems


def grey(name: str) -> np.ndarray:
    return np.round(known_feedback().heatmaps[name] * 255)


def test_heatmaps_are_painted_by_value_from_the_threshold_on(shown: Visit) -> None:
    for threshold in (0.0, 0.5, 0.85):
        shown.slide("Map threshold", threshold)
        for name in ("implausibility", "misalignment"):
            hidden, opacity, pixels = shown.canvas(name)
            values = grey(name)
            assert not hidden
            assert opacity == 0.75
            inside = values >= threshold * 255
            assert not pixels[~inside].any()
            padded = np.pad(inside, 1, constant_values=True)
            deep = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inside
            alpha = np.minimum(255, 2 * values)
            assert np.abs(pixels[..., 3][deep] - alpha[deep]).max() <= 1 if deep.any() else True
            assert (pixels[..., 3][inside & ~deep] == 255).all()  # the rim


def test_colours_grow_darker_and_stay_apart(shown: Visit) -> None:
    shown.slide("Map threshold", 0)
    red = shown.canvas("implausibility")[2][20, 30:, :3].astype(float)  # opaque from one half on
    light = red @ [0.299, 0.587, 0.114]
    assert (np.diff(light) < 0).all()
    assert (red[:, 0] >= red[:, 2]).all()
    blue = shown.canvas("misalignment")[2][5, 5, :3].astype(float)
    assert blue[2] > blue[0]


def test_the_map_can_be_chosen_and_opacity_set(shown: Visit) -> None:
    visible = {
        "Implausible": (True, False),
        "Misaligned": (False, True),
        "Both": (True, True),
        "Neither": (False, False),
    }
    for label, expected in visible.items():
        shown.page.locator("#one").get_by_label(label, exact=True).check()
        assert tuple(not shown.canvas(name)[0] for name in ("implausibility", "misalignment")) == expected
    shown.slide("Opacity", 0.2)
    assert shown.canvas("implausibility")[1] == 0.2
    assert shown.page.locator("#one").get_by_text("20%", exact=True).is_visible()


def test_the_line_under_the_picture_reads_the_maps(shown: Visit) -> None:
    page = shown.page
    line = page.locator("#one .rahf-probe")
    shown.slide("Map threshold", 0.5)
    parts = [round(100 * float((grey(name) >= 127.5).mean())) for name in ("implausibility", "misalignment")]
    page.mouse.move(1, 1)
    assert line.inner_text().startswith(f"Implausible in {parts[0]}% of the picture, Misaligned in {parts[1]}%")
    frame = page.locator("#one .rahf-frame")
    frame.hover(position={"x": 2, "y": 2})
    assert line.inner_text() == "Implausible 0.00, Misaligned 0.80 here"
    page.mouse.move(1, 1)
    frame.focus()
    for _ in range(5):
        page.keyboard.press("Shift+ArrowRight")  # from the middle to the right edge
    value = grey("implausibility")[20, -1] / 255
    assert line.inner_text() == f"Implausible {value:.2f}, Misaligned 0.10 here"
    assert frame.get_attribute("aria-label") == line.inner_text()
    page.keyboard.press("Escape")
    assert "from 0.50 on" in line.inner_text()
    frame.blur()


def test_words_are_tinted_told_and_marked(shown: Visit) -> None:
    page = shown.page
    words = page.locator("#one .rahf-word")
    truth = known_feedback().words
    assert words.all_inner_texts() == [word.text for word in truth]
    assert page.locator("#one .rahf-prompt").inner_text() == EVIL
    told = page.locator("#one .rahf-told")
    words.nth(3).hover()
    assert (
        told.inner_text() == f"“{truth[3].text}”: {round(100 * truth[3].probability)}% likely not shown in the picture"
    )
    alphas = words.evaluate_all(
        """(all) => all.map((word) => {
          const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          canvas.fillStyle = getComputedStyle(word).backgroundColor; canvas.fillRect(0, 0, 1, 1);
          return canvas.getImageData(0, 0, 1, 1).data[3];
        })"""
    )
    assert np.abs(np.array(alphas) - [255 * 0.6 * round(word.probability, 2) for word in truth]).max() <= 2
    for threshold in (0.3, 0.8):
        shown.slide("Word threshold", threshold)
        marked = words.evaluate_all("(all) => all.map((word) => word.classList.contains('rahf-missed'))")
        assert marked == [word.probability >= threshold for word in truth]
    last = words.last
    assert last.get_attribute("aria-label") == f"{truth[-1].text}: 100% not shown, marked"


def test_words_can_be_read_with_the_keyboard_and_pinned(shown: Visit) -> None:
    page = shown.page
    words, told = page.locator("#one .rahf-word"), page.locator("#one .rahf-told")
    assert words.evaluate_all("(all) => all.filter((word) => word.tabIndex === 0).length") == 1
    words.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert told.inner_text().startswith(f"“{words.nth(2).inner_text()}”")
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    assert told.inner_text().startswith(f"“{words.last.inner_text()}”")
    words.last.blur()
    assert told.inner_text().startswith(f"“{words.nth(2).inner_text()}”")  # pinned
    assert words.nth(2).get_attribute("aria-pressed") == "true"
    words.nth(2).focus()
    page.keyboard.press("Escape")
    words.nth(2).blur()
    assert "Point at a word" in told.inner_text()


def test_words_from_right_to_left_keep_their_order(shown: Visit) -> None:
    page = shown.page
    words = page.locator("#hebrew .rahf-word")
    assert words.all_inner_texts() == HEBREW.split()
    places = [box["x"] for box in (words.nth(n).bounding_box() for n in range(words.count()))]
    first, second, red, bird, upon, tree = places
    assert first > second > red > upon > tree  # Hebrew runs to the left
    assert bird > red  # and the English inside it to the right
    words.first.focus()
    page.keyboard.press("ArrowLeft")
    assert words.nth(1).evaluate("(word) => word === document.activeElement")
    words.nth(1).blur()


def test_what_a_prompt_holds_stays_text(shown: Visit) -> None:
    page = shown.page
    assert page.evaluate("window.hacked") is None
    assert page.locator("#one .rahf-prompt img, #one .rahf-reasons b").count() == 0
    assert page.locator("#one .rahf-reasons").inner_text() == "not shown: <b>red</b>"


def test_scores_are_bars_that_can_be_read_aloud(shown: Visit) -> None:
    meters = shown.page.locator("#one").get_by_role("meter")
    assert [meters.nth(n).get_attribute("aria-label") for n in range(4)] == list(SCORES)
    assert [meters.nth(n).get_attribute("aria-valuenow") for n in range(4)] == ["0.25", "0.50", "0.75", "1.00"]
    shares = meters.evaluate_all(
        "(all) => all.map((bar) => bar.firstChild.getBoundingClientRect().width / bar.clientWidth)"
    )
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1], abs=0.01)


def test_clearing_and_filling_again(shown: Visit) -> None:
    page = shown.page
    before = page.locator("#one").bounding_box()
    page.get_by_role("button", name="Clear").click()
    page.locator("#one .rahf-view:not(.rahf-ready)").wait_for()
    assert page.locator("#one .rahf-frame").is_hidden()
    assert abs(page.locator("#one").bounding_box()["height"] - before["height"]) < 40
    page.get_by_role("button", name="Fill").click()
    page.locator("#one .rahf-ready").wait_for()
    assert page.locator("#one .rahf-word").count() == len(known_feedback().words)


def test_another_order_moves_the_cards_and_keeps_them(shown: Visit) -> None:
    page = shown.page
    page.evaluate("document.querySelectorAll('#many .rahf-item')[0].kept = true")
    page.get_by_role("button", name="Turn").click()
    page.wait_for_function("document.querySelectorAll('#many .rahf-item')[1].kept === true")
    assert page.locator("#many .rahf-title bdi").all_inner_texts() == ["b.png", "a.png"]


# The whole tab ---------------------------------------------------------------------------------------------------


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


@pytest.fixture(params=[("light", 1280, 900), ("dark", 390, 844)], ids=["desktop-light", "phone-dark"])
def visit(request: pytest.FixtureRequest, browser: Any, tab_url: str) -> Iterator[Visit]:
    theme, width, height = request.param
    seen = open_page(browser, tab_url, width, height, theme)
    seen.page.get_by_role("tab", name="Rich feedback").click()
    seen.page.locator("#feedback-button").wait_for()
    yield seen
    seen.page.close()


def places(page: Any) -> list[float]:
    """Where things stand on the page, from its top."""
    selectors = ["#feedback-prompt", "#feedback-view-one .rahf-frame + *, #feedback-view-one .rahf-probe"]
    selectors += ["#feedback-view-one .rahf-words", "#feedback-view-one .rahf-reasons", "#feedback-note-one"]
    return [float(page.locator(s).last.evaluate("(e) => e.getBoundingClientRect().top + scrollY")) for s in selectors]


def overflow(page: Any) -> int:
    """By how many pixels the page is wider than the window."""
    return int(page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth"))


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
    assert "only composed scenes" in page.locator("#feedback-note-one").inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").locator("visible=true").click()
    assert json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["prompt"] == prompt
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the report").locator("visible=true").click()
    with Image.open(download.value.path()) as sheet:
        assert sheet.width > 900
    assert overflow(page) <= 0
    assert not visit.problems


def test_an_example_is_looked_at_with_one_click(visit: Visit) -> None:
    page = visit.page
    page.locator("tbody td").locator("visible=true").first.click()
    page.locator("#feedback-view-one .rahf-ready").wait_for()
    rows = json.loads((Path(__file__).parent.parent / "examples" / "feedback.json").read_text(encoding="utf-8"))
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
    assert overflow(page) <= 0
    assert not visit.problems


def test_without_weights_the_tab_says_what_to_do(browser: Any) -> None:
    demo, url = serve(FeedbackService.load("<i>nowhere</i>"))
    try:
        seen = open_page(browser, url)
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
