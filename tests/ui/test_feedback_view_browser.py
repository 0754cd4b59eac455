"""The feedback view in a real browser, with heatmaps and words that are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from rahf.feedback import Feedback, WordFeedback
from rahf.model.config import SCORES
from rahf.prompts import split_words
from tests.browsing import Visit, needs_browser, open_page
from tests.tiny import photo
from ui.feedback.view import FeedbackView, ViewItem, write_files

pytestmark = needs_browser

WIDTH, HEIGHT = 60, 40
PIXELS = """(name) => {
  const canvas = document.querySelector(`#one canvas[data-map=${name}]`);
  return [canvas.hidden, canvas.style.opacity,
    [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]];
}"""
EVIL = 'a <img src=x onerror="window.hacked=1"> "red" & `cat` ${alert(1)} {{props}}'
PARTLY = "🦄🦄 a zorbly red cat"  # letters that JavaScript counts twice, before a word that nobody knows
HEBREW = "שתי ציפורים red bird על העץ"


@dataclass
class ViewVisit(Visit):
    """A page with views of known feedback."""

    def canvas(self, name: str) -> tuple[bool, float, np.ndarray]:
        """Whether a heatmap of the single view is hidden, how opaque it is, and its pixels (H, W, 4)."""
        hidden, opacity, values = self.page.evaluate(PIXELS, name)
        return hidden, float(opacity), np.array(values, np.uint8).reshape(HEIGHT, WIDTH, 4)

    def slide(self, label: str, value: float, where: str = "#one") -> None:
        self.page.locator(where).get_by_label(label).fill(str(value))


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
    feedback = replace(known_feedback(changes.pop("prompt", EVIL)), **changes.pop("feedback", {}))
    (folder / key).mkdir()
    picture, maps = write_files(np.asarray(photo(WIDTH, HEIGHT)), feedback, folder / key)
    return ViewItem(key, f"{key}.png", picture, maps, feedback, **changes)


@pytest.fixture(scope="module")
def view(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewVisit]:
    """A page with views of known feedback, opened once."""
    folder = tmp_path_factory.mktemp("view")
    single = view_item(folder, "single", reasons=("not shown: <b>red</b>",))
    hebrew = view_item(folder, "hebrew", prompt=HEBREW)
    spans = split_words(PARTLY)
    words = [WordFeedback(w.text, w.start, w.end, 0.0, judged=w.text != "zorbly") for w in spans]
    words[-1] = replace(words[-1], probability=0.9)
    doubts = {"words": tuple(words), "intervals": {"plausibility": (0.1, 0.6)}, "unsure": ("alignment",)}
    partly = view_item(folder, "partly", prompt=PARTLY, feedback=doubts)
    pair = [view_item(folder, name, place=place, value=0.5) for place, name in enumerate(("a", "b"), start=1)]
    with gr.Blocks() as demo:
        one = FeedbackView([single], layout="one", elem_id="one")
        FeedbackView([hebrew], layout="one", elem_id="hebrew")
        FeedbackView([partly], layout="one", elem_id="partly")
        many = FeedbackView(pair, layout="many", elem_id="many")
        gr.Button("Clear").click(lambda: None, None, one)
        gr.Button("Fill").click(lambda: [single], None, one)
        gr.Button("Turn").click(lambda: pair[::-1], None, many)
    _, url, _ = demo.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, allowed_paths=[str(folder)], run_history=False
    )
    seen = open_page(browser, ViewVisit, url)
    for name in ("one", "hebrew", "partly", "many"):
        seen.page.locator(f"#{name} .rahf-ready").wait_for()
        seen.page.locator(f"#{name} summary").click()  # the sliders
    yield seen
    seen.page.close()
    demo.close()


@pytest.fixture
def shown(view: ViewVisit) -> Iterator[ViewVisit]:
    """The view with its controls as at the start."""
    view.slide("Opacity", 0.75)
    view.slide("Map threshold", 0.25)
    view.slide("Word threshold", 0.5)
    view.page.locator("#one").get_by_label("Both").check()
    yield view
    assert not view.problems


def grey(name: str) -> np.ndarray:
    return np.round(known_feedback().heatmaps[name] * 255)


def test_heatmaps_are_painted_by_value_from_the_threshold_on(shown: ViewVisit) -> None:
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


def test_colours_grow_darker_and_stay_apart(shown: ViewVisit) -> None:
    shown.slide("Map threshold", 0)
    red = shown.canvas("implausibility")[2][20, 30:, :3].astype(float)  # opaque from one half on
    light = red @ [0.299, 0.587, 0.114]
    assert (np.diff(light) < 0).all()
    assert (red[:, 0] >= red[:, 2]).all()
    blue = shown.canvas("misalignment")[2][5, 5, :3].astype(float)
    assert blue[2] > blue[0]


def test_the_map_can_be_chosen_and_opacity_set(shown: ViewVisit) -> None:
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


def test_the_line_under_the_picture_reads_the_maps(shown: ViewVisit) -> None:
    page = shown.page
    line = page.locator("#one .rahf-probe")
    shown.slide("Map threshold", 0.5)
    parts = [round(100 * float((grey(name) >= 127.5).mean())) for name in ("implausibility", "misalignment")]
    page.mouse.move(1, 1)
    assert line.inner_text().startswith(f"Implausible in {parts[0]}% of the picture, misaligned in {parts[1]}% (")
    frame = page.locator("#one .rahf-frame")
    frame.hover(position={"x": 2, "y": 2})
    assert line.inner_text() == "Implausible 0.00, misaligned 0.80 here"
    page.mouse.move(1, 1)
    frame.focus()
    for _ in range(5):
        page.keyboard.press("Shift+ArrowRight")  # from the middle to the right edge
    value = grey("implausibility")[20, -1] / 255
    assert line.inner_text() == f"Implausible {value:.2f}, misaligned 0.10 here"
    assert frame.get_attribute("aria-label") == line.inner_text()
    page.keyboard.press("Escape")
    assert "from 0.50 on" in line.inner_text()
    frame.blur()


def test_words_are_tinted_told_and_marked(shown: ViewVisit) -> None:
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


def test_words_can_be_read_with_the_keyboard_and_pinned(shown: ViewVisit) -> None:
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


def test_a_word_that_is_not_judged_says_so(shown: ViewVisit) -> None:
    page = shown.page
    unknown = page.locator("#partly .rahf-prompt .rahf-unjudged")
    assert unknown.all_inner_texts() == ["zorbly"]
    assert unknown.get_attribute("title") == "not judged: not in the vocabulary"
    assert unknown.get_attribute("aria-label") == "zorbly: not judged: not in the vocabulary"
    assert "dotted" in unknown.evaluate("(word) => getComputedStyle(word).textDecoration")
    unknown.hover()
    assert page.locator("#partly .rahf-told").inner_text() == "“zorbly”: not judged: not in the vocabulary"
    shown.slide("Word threshold", 0.01, "#partly")  # not even then is it one that is not shown
    assert page.locator("#partly .rahf-prompt .rahf-missed").all_inner_texts() == ["cat"]
    assert page.locator("#partly .rahf-prompt").inner_text() == PARTLY
    assert page.locator("#one .rahf-prompt .rahf-unjudged").count() == 0
    legend = page.locator("#partly .rahf-kinds")
    assert legend.inner_text() == "Words: shown, not shown, not judged"
    shown.slide("Word threshold", 0.5, "#partly")


def test_intervals_are_drawn_and_doubt_is_said(shown: ViewVisit) -> None:
    meters = shown.page.locator("#partly").get_by_role("meter")
    said = [meters.nth(n).get_attribute("aria-valuetext") for n in range(4)]
    assert said == ["0.25, 90% interval 0.10 to 0.60", "0.50, unsure", "0.75", "1.00"]
    ranges = shown.page.locator("#partly .rahf-range")
    assert [ranges.nth(n).is_visible() for n in range(4)] == [True, False, False, False]
    ends = ranges.first.evaluate(
        """(range) => {
          const bar = range.parentElement.getBoundingClientRect(), box = range.getBoundingClientRect();
          return [(box.left - bar.left) / bar.width, (box.right - bar.left) / bar.width];
        }"""
    )
    assert ends == pytest.approx([0.1, 0.6], abs=0.01)
    doubts = shown.page.locator("#partly .rahf-unsure")
    assert [doubts.nth(n).is_visible() for n in range(4)] == [False, True, False, False]


def test_words_from_right_to_left_keep_their_order(shown: ViewVisit) -> None:
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


def test_what_a_prompt_holds_stays_text(shown: ViewVisit) -> None:
    page = shown.page
    assert page.evaluate("window.hacked") is None
    assert page.locator("#one .rahf-prompt img, #one .rahf-reasons b").count() == 0
    assert page.locator("#one .rahf-reasons").inner_text() == "not shown: <b>red</b>"


def test_scores_are_bars_that_can_be_read_aloud(shown: ViewVisit) -> None:
    meters = shown.page.locator("#one").get_by_role("meter")
    assert [meters.nth(n).get_attribute("aria-label") for n in range(4)] == list(SCORES)
    assert [meters.nth(n).get_attribute("aria-valuenow") for n in range(4)] == ["0.25", "0.50", "0.75", "1.00"]
    shares = meters.evaluate_all(
        "(all) => all.map((bar) => bar.firstChild.getBoundingClientRect().width / bar.clientWidth)"
    )
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1], abs=0.01)


def test_clearing_and_filling_again(shown: ViewVisit) -> None:
    page = shown.page
    before = page.locator("#one").bounding_box()
    page.get_by_role("button", name="Clear").click()
    page.locator("#one .rahf-view:not(.rahf-ready)").wait_for()
    assert page.locator("#one .rahf-frame").is_hidden()
    assert abs(page.locator("#one").bounding_box()["height"] - before["height"]) < 40
    page.get_by_role("button", name="Fill").click()
    page.locator("#one .rahf-ready").wait_for()
    assert page.locator("#one .rahf-word").count() == len(known_feedback().words)


def test_another_order_moves_the_cards_and_keeps_them(shown: ViewVisit) -> None:
    page = shown.page
    page.evaluate("document.querySelectorAll('#many .rahf-item')[0].kept = true")
    page.get_by_role("button", name="Turn").click()
    page.wait_for_function("document.querySelectorAll('#many .rahf-item')[1].kept === true")
    assert page.locator("#many .rahf-title bdi").all_inner_texts() == ["b.png", "a.png"]
