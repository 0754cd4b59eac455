"""The Rich feedback tab: where a generated picture is wrong, how good it is, which words of its prompt it misses."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from rahf.model.config import SCORES
from ui.feedback.api import build_endpoints
from ui.feedback.events import ManyEvents, OneEvents, Results, note_of
from ui.feedback.results import Thresholds
from ui.feedback.service import MOST_PICTURES, FeedbackService
from ui.feedback.view import FeedbackView
from ui.photo_input import PhotoInput, generated_picture
from ui.weights_menu import Choice, build_weights_menu

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
class FeedbackTab:
    """The components that the page around the tab needs. ``improve``: the button that hands the picture on."""

    picture: PhotoInput
    prompt: gr.Textbox
    improve: gr.Button
    press: gr.Button


def build_feedback_tab(choice: Choice[FeedbackService]) -> FeedbackTab:
    """Lay out the tab inside the current ``gr.Blocks`` and wire it to the service of each visit."""
    gr.Markdown(ABOUT, elem_classes="quiet")
    service = choice.current()
    problem = gr.HTML(_problem(service), visible=service.predictor is None, elem_id="feedback-problem")
    with gr.Tabs():
        with gr.Tab("One picture", id="feedback-one"):
            tab = _one(choice)
        with gr.Tab("Compare pictures", id="feedback-many"):
            _many(choice)
    with gr.Accordion("Advanced", open=False, visible=False) as advanced:
        menu = build_weights_menu(choice, "feedback")
    if menu is not None:
        advanced.visible = True

        def still_missing() -> gr.HTML:
            return gr.HTML(visible=choice.current().predictor is None)

        menu.change(still_missing, None, problem, queue=False, api_visibility="private")
    build_endpoints(choice)
    return tab


def _one(choice: Choice[FeedbackService]) -> FeedbackTab:
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300, scale=2):
            picture = generated_picture("feedback-picture", "Drop or paste a generated picture")
            prompt = _prompt("feedback-prompt")
            press = gr.Button("Give feedback", variant="primary", size="lg", elem_id="feedback-button")
            shelf = gr.Column()
        with gr.Column(min_width=320, scale=3):
            results = _results(choice, "one")
            improve = gr.Button("Improve this picture", visible=False, elem_id="feedback-improve")
    events = OneEvents(choice, results)
    inputs, outputs = [picture, prompt, results.thresholds], results.outputs()
    shared: dict[str, Any] = _shared(results)
    press.click(None, js=INTO_VIEW.format("#feedback-view-one"), api_visibility="private")
    press.click(events.run, inputs, outputs, **shared)
    prompt.submit(events.run, inputs, outputs, **shared)
    results.view.settle(events.tell_again, results.shown, outputs, **AGAIN)
    # Not `change`: an example changes the picture too, and its result may already be there.
    picture.input(events.clear, None, outputs, queue=False, show_progress="hidden", api_visibility="private")
    with shelf:
        rows = [[row["files"][0], row["prompt"], row["planted"][0]] for row in _known_faults("one")]
        _examples(rows, inputs[:2], inputs, events.run, results)
    return FeedbackTab(picture, prompt, improve, press)


def _many(choice: Choice[FeedbackService]) -> None:
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
    results = _results(choice, "many")
    events = ManyEvents(choice, results)
    inputs, outputs = [pictures, prompt, results.thresholds, *weights], results.outputs()
    press.click(events.run, inputs, outputs, **_shared(results))
    prompt.submit(events.run, inputs, outputs, **_shared(results))
    results.view.settle(events.tell_again, [results.shown, *weights], outputs, **AGAIN)
    for slider in weights:
        slider.release(events.rank_again, [results.shown, results.thresholds, *weights], outputs, **AGAIN)
    with shelf:
        rows = [[row["files"], row["prompt"], _numbered(row["planted"])] for row in _known_faults("many")]
        _examples(rows, inputs[:2], inputs, events.run, results)


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
    results: Results,
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


def _results(choice: Choice[FeedbackService], layout: Any) -> Results:
    service = choice.current()
    view = FeedbackView(
        layout=layout,
        word_threshold=service.word_threshold,
        elem_id=f"feedback-view-{layout}",
        container=False,
    )
    with gr.Row(elem_classes="downloads"):
        json_file = gr.DownloadButton("Save as JSON", interactive=False, size="md", min_width=140)
        report_file = gr.DownloadButton("Save the report", interactive=False, size="md", min_width=140)
    note = gr.HTML(note_of(service), elem_classes="quiet", elem_id=f"feedback-note-{layout}")
    return Results(view, json_file, report_file, note, gr.State([]), gr.State(Thresholds()))


def _shared(results: Results) -> dict[str, Any]:
    return {"api_visibility": "private", "concurrency_id": "feedback", "show_progress_on": results.view}


def _problem(service: FeedbackService) -> str:
    return f'<p role="alert">{html.escape(service.missing)}</p>'
