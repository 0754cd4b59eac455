"""The Rich feedback tab: where a generated picture is wrong, how good it is, which words of its prompt it misses."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from rahf.model.config import SCORES
from ui.errors import explained
from ui.feedback.api import FAILED, NO_PICTURE, NO_PICTURES, build_endpoints
from ui.feedback.results import Examined, Thresholds
from ui.feedback.service import MOST_PICTURES, FeedbackService, Shown
from ui.feedback.view import FeedbackView
from ui.photo_input import PhotoInput
from ui.weights_menu import build_weights_menu

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# On a phone the result is below the button; where its picture is in sight already, nothing moves.
INTO_VIEW = """() => {{
  const view = document.querySelector('{}'), picture = view.querySelector('.rahf-room') ?? view;
  if (picture.getBoundingClientRect().bottom > innerHeight) view.scrollIntoView({{ block: 'nearest' }});
}}"""
# What only tells again what is known.
AGAIN: dict[str, Any] = {
    "trigger_mode": "always_last",
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_id": "feedback",
}
ABOUT = "Where is a generated picture wrong, how good is it, and which words of its prompt does it not show?"


@dataclass(frozen=True)
class _Results:
    """What a result fills. ``shown``: what stands on the page, as `Shown`; ``thresholds``: what the sliders say."""

    view: FeedbackView
    json_file: gr.DownloadButton
    report_file: gr.DownloadButton
    note: gr.HTML
    shown: gr.State
    thresholds: gr.State

    def outputs(self) -> list[Any]:
        return list(vars(self).values())

    def cleared(self) -> dict[Any, Any]:
        buttons = {button: gr.DownloadButton(interactive=False) for button in (self.json_file, self.report_file)}
        return {self.view: None, self.shown: [], **buttons}


def build_feedback_tab(service: FeedbackService) -> None:
    """Lay out the tab inside the current ``gr.Blocks`` and wire it to the service."""
    gr.Markdown(ABOUT, elem_classes="quiet")
    problem = gr.HTML(_problem(service), visible=service.predictor is None, elem_id="feedback-problem")
    with gr.Tabs():
        with gr.Tab("One picture", id="feedback-one"):
            picture, prompt = _one(service)
        with gr.Tab("Compare pictures", id="feedback-many"):
            _many(service)
    with gr.Accordion("Advanced", open=False, visible=False) as advanced:
        menu = build_weights_menu(service, "feedback")
    if menu is not None:
        advanced.visible = True
        menu.change(
            lambda: gr.HTML(visible=service.predictor is None), None, problem, queue=False, api_visibility="private"
        )
    build_endpoints(service, picture, prompt)


def _one(service: FeedbackService) -> tuple[PhotoInput, gr.Textbox]:
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300, scale=2):
            picture = PhotoInput(
                label="Picture",
                sources=["upload", "clipboard"],
                type="filepath",
                image_mode=None,
                height=300,
                elem_id="feedback-picture",
                placeholder="Drop or paste a generated picture",
            )
            prompt = _prompt("feedback-prompt")
            press = gr.Button("Give feedback", variant="primary", size="lg", elem_id="feedback-button")
            shelf = gr.Column()
        with gr.Column(min_width=320, scale=3):
            results = _results(service, "one")

    def run(
        source: str | None,
        text: str,
        thresholds: Thresholds,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict[Any, Any]]:
        if source is None:
            raise gr.Error(NO_PICTURE, title=FAILED, print_exception=False)
        with explained(FAILED):
            progress(0.02, desc="Starting")
            found = service.examine(source, text or "")
            shown = [Shown("", found.key, source, text or "")]
            yield {results.view: [found.item(thresholds)], results.shown: shown, results.note: _note(service)}
            yield _files(service, results, [found], found.to_dict(thresholds))

    def tell_again(event: gr.EventData, shown: Sequence[Shown]) -> Iterator[dict[Any, Any]]:
        """The sliders have moved: the same feedback, with reasons that fit them."""
        if not shown:
            yield {results.shown: gr.skip()}
            return
        with explained(FAILED):
            thresholds = Thresholds.read(event._data)
            (found,) = service.recall(shown)
            yield {results.view: [found.item(thresholds)], results.thresholds: thresholds}
            yield _files(service, results, [found], found.to_dict(thresholds))

    inputs, outputs = [picture, prompt, results.thresholds], results.outputs()
    shared: dict[str, Any] = _shared(results)
    press.click(None, js=INTO_VIEW.format("#feedback-view-one"), api_visibility="private")
    press.click(run, inputs, outputs, **shared)
    prompt.submit(run, inputs, outputs, **shared)
    results.view.settle(tell_again, results.shown, outputs, **AGAIN)
    # Not `change`: an example changes the picture too, and its result may already be there.
    picture.input(results.cleared, None, outputs, queue=False, show_progress="hidden", api_visibility="private")
    with shelf:
        rows = [[row["files"][0], row["prompt"], row["planted"][0]] for row in _known_faults("one")]
        _examples(rows, [picture, prompt], inputs, run, results)
    return picture, prompt


def _many(service: FeedbackService) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            pictures = gr.Gallery(
                label="Pictures",
                file_types=["image"],
                type="filepath",
                sources=["upload", "clipboard"],
                interactive=True,
                columns=4,
                height=240,
                object_fit="contain",
                elem_id="feedback-pictures",
            )
            shelf = gr.Column()
        with gr.Column(min_width=300):
            prompt = _prompt("feedback-prompt-many")
            press = gr.Button("Compare", variant="primary", size="lg", elem_id="feedback-compare")
            gr.Markdown(f"2 to {MOST_PICTURES} pictures of one prompt. What counts how much:", elem_classes="quiet")
            weights = []
            for pair in (SCORES[:2], SCORES[2:]):
                with gr.Row():
                    weights += [gr.Slider(0, 2, 1, step=0.1, label=name.capitalize(), min_width=140) for name in pair]
    results = _results(service, "many")

    def show(
        shown: Sequence[Shown], found: Sequence[Examined], thresholds: Thresholds, values: Sequence[float]
    ) -> Iterator[dict[Any, Any]]:
        weights = dict(zip(SCORES, values, strict=True))
        order = service.rank(found, [item.title for item in shown], weights, thresholds)
        yield {results.view: [item.item() for item in order], results.shown: shown, results.thresholds: thresholds}
        yield _files(service, results, [item.examined for item in order], [item.to_dict() for item in order])

    def run(
        chosen: Sequence[tuple[str, str | None]] | None,
        text: str,
        thresholds: Thresholds,
        *values: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict[Any, Any]]:
        if not chosen or len(chosen) < 2:
            raise gr.Error(NO_PICTURES, title=FAILED, print_exception=False)
        with explained(FAILED):
            progress(0.02, desc="Starting")
            paths = [path for path, _ in chosen]
            found = service.examine_all(paths, text or "")
            shown = [Shown(Path(path).name, one.key, path, text or "") for path, one in zip(paths, found, strict=True)]
            yield from show(shown, found, thresholds, values)
            yield {results.note: _note(service)}

    def rank_again(shown: Sequence[Shown], thresholds: Thresholds, *values: float) -> Iterator[dict[Any, Any]]:
        """Other weights or thresholds need no model: the feedback is remembered."""
        if not shown:
            yield {results.shown: gr.skip()}
            return
        with explained(FAILED):
            yield from show(shown, service.recall(shown), thresholds, values)

    def tell_again(event: gr.EventData, shown: Sequence[Shown], *values: float) -> Iterator[dict[Any, Any]]:
        """The sliders have moved: the same ranking, with reasons that fit them."""
        with explained(FAILED):
            yield from rank_again(shown, Thresholds.read(event._data), *values)

    inputs, outputs = [pictures, prompt, results.thresholds, *weights], results.outputs()
    press.click(run, inputs, outputs, **_shared(results))
    prompt.submit(run, inputs, outputs, **_shared(results))
    results.view.settle(tell_again, [results.shown, *weights], outputs, **AGAIN)
    for slider in weights:
        slider.release(rank_again, [results.shown, results.thresholds, *weights], outputs, **AGAIN)
    with shelf:
        rows = [[row["files"], row["prompt"], _numbered(row["planted"])] for row in _known_faults("many")]
        _examples(rows, [pictures, prompt], inputs, run, results)


def _known_faults(kind: str) -> list[dict[str, Any]]:
    """Pictures with planted faults, listed in examples/feedback.json, their files as paths."""
    rows = json.loads((EXAMPLES / "feedback.json").read_text(encoding="utf-8"))
    return [{**row, "files": [str(EXAMPLES / name) for name in row["files"]]} for row in rows if row["kind"] == kind]


def _numbered(planted: Sequence[str]) -> str:
    return ". ".join(f"{place}: {told}" for place, told in enumerate(planted, start=1))


def _examples(
    rows: list[list[Any]],
    filled: list[Any],
    inputs: list[Any],
    run: Callable[..., Any],
    results: _Results,
) -> None:
    """A click fills in an example and asks for feedback, which is remembered from then on."""
    planted = gr.HTML(visible=False, label="Faults")  # only a column of the table; a textbox's is cut off
    shelf = gr.Examples(
        rows, [*filled, planted], label="Examples with known faults", examples_per_page=12, api_visibility="private"
    )
    shelf.dataset.click(None, js=INTO_VIEW.format(f"#{results.view.elem_id}"), api_visibility="private")
    shelf.load_input_event.then(run, inputs, results.outputs(), **_shared(results))


def _prompt(elem_id: str) -> gr.Textbox:
    return gr.Textbox(
        label="Prompt",
        placeholder="The text that the picture was made from",
        lines=2,
        max_lines=6,
        elem_id=elem_id,
    )


def _results(service: FeedbackService, layout: Any) -> _Results:
    view = FeedbackView(
        layout=layout,
        word_threshold=service.word_threshold,
        elem_id=f"feedback-view-{layout}",
        container=False,
    )
    with gr.Row(elem_classes="downloads"):
        json_file = gr.DownloadButton("Save as JSON", interactive=False, size="md", min_width=140)
        report_file = gr.DownloadButton("Save the report", interactive=False, size="md", min_width=140)
    note = gr.HTML(_note(service), elem_classes="quiet", elem_id=f"feedback-note-{layout}")
    return _Results(view, json_file, report_file, note, gr.State([]), gr.State(Thresholds()))


def _files(service: FeedbackService, results: _Results, found: Sequence[Examined], values: Any) -> dict[Any, Any]:
    return {
        results.json_file: gr.DownloadButton(value=str(service.json_file(values, "feedback")), interactive=True),
        results.report_file: gr.DownloadButton(value=str(service.report_file(found, "feedback")), interactive=True),
    }


def _shared(results: _Results) -> dict[str, Any]:
    return {"api_visibility": "private", "concurrency_id": "feedback", "show_progress_on": results.view}


def _note(service: FeedbackService) -> str:
    return f'<p class="quiet">{html.escape(service.note)}</p>'


def _problem(service: FeedbackService) -> str:
    return f'<p role="alert">{html.escape(service.missing)}</p>'
