"""The Improve tab: one picture and its prompt, mended where the feedback finds it wrong, and other ways beside it."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from rahf.improve.repair import RepairOptions
from ui.animate.tab import AnimateTab
from ui.feedback.tab import FeedbackTab
from ui.improve.api import build_endpoints
from ui.improve.events import WHAT, ImproveEvents, Parts
from ui.improve.jobs import LIMITS, WAYS
from ui.improve.painter import MaskPainter
from ui.improve.service import ImproveService
from ui.photo_input import PhotoInput, generated_picture
from ui.theme import into_view
from ui.weights_menu import Choice, build_weights_menu

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROMPTS = ("two red apples", "a blue car and a yellow flower", "three green hearts")
ABOUT = "What the feedback finds wrong is drawn anew, several times, and the best is kept if it is better."
QUEUE: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "improve"}
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True)
class ImproveTab:
    """What the page around the tab needs of it."""

    picture: PhotoInput
    prompt: gr.Textbox
    parts: Parts
    events: ImproveEvents
    ask_of_loop: gr.Button
    answers: gr.HTML


def build_improve_tab(choice: Choice[ImproveService]) -> ImproveTab:
    """Lay out the tab inside the current ``gr.Blocks`` and wire it to the service of each visit."""
    service = choice.current()
    gr.Markdown(ABOUT, elem_classes="quiet")
    gr.HTML(
        f'<p role="alert">{html.escape(service.missing)}</p>', visible=bool(service.problem), elem_id="improve-problem"
    )
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300, scale=2):
            picture = generated_picture("improve-picture", "Drop a picture, or draw one from a prompt")
            prompt = gr.Textbox(
                label="Prompt",
                placeholder="two red apples above a cat",
                lines=2,
                max_lines=6,
                elem_id="improve-prompt",
            )
            with gr.Row(elem_classes="downloads"):
                draw = gr.Button("Draw it", elem_id="improve-draw", min_width=120)
                repair = gr.Button("Repair", variant="primary", elem_id="improve-repair", min_width=160)
            with gr.Accordion("Paint where to draw anew", open=False):
                painter = MaskPainter(elem_id="improve-painter", container=False)
                mark = gr.Button("Mark what the feedback finds", elem_id="improve-mark")
            shelf = gr.Column()
            settings, ways, another = _advanced(choice)
        with gr.Column(min_width=320, scale=3):
            parts = _results(service, picture, prompt, painter)
            with gr.Accordion("Checklist", open=False):
                with gr.Row(elem_classes="downloads"):
                    ask = gr.Button("Ask about the picture", elem_id="improve-ask", min_width=200)
                    ask_of_loop = gr.Button("Ask about the loop of Animate", elem_id="improve-ask-loop", min_width=200)
                answers = gr.HTML(elem_id="improve-answers")
    events = ImproveEvents(choice, parts)
    _wire(events, parts, (draw, repair, mark), settings)
    with shelf:
        gr.Examples(
            _examples(),
            [picture, prompt],
            label="Examples with known faults, and prompts to draw",
            examples_per_page=12,
            api_visibility="private",
        )
    another.click(None, js=into_view("#improve-told"), api_visibility="private")
    another.click(events.run_another, [ways, prompt, *settings], parts.outputs(), show_progress_on=parts.told, **QUEUE)
    ask.click(events.ask, [picture, prompt], answers, show_progress_on=answers, **QUEUE)
    build_endpoints(choice)
    return ImproveTab(picture, prompt, parts, events, ask_of_loop, answers)


def _examples() -> list[list[str | None]]:
    """Pictures with planted faults, listed in examples/feedback.json, and prompts that the embedded generator knows."""
    rows = json.loads((EXAMPLES / "feedback.json").read_text(encoding="utf-8"))
    faulty = [[str(EXAMPLES / row["files"][0]), row["prompt"]] for row in rows if row["kind"] == "one"]
    return [*faulty, *([None, prompt] for prompt in PROMPTS)]


def join(tab: ImproveTab, feedback: FeedbackTab, animate: AnimateTab, tabs: gr.Tabs) -> None:
    """Hand pictures and prompts over: from Rich feedback to this tab, and results back; loops to the checklist."""

    def handed_over(picture: str | None, prompt: str | None) -> Any:
        return picture, prompt, gr.Tabs(selected="improve")

    there = [tab.picture, tab.prompt, tabs]
    feedback.improve.visible = True
    feedback.improve.click(handed_over, [feedback.picture, feedback.prompt], there, **QUIET)
    back = [feedback.picture, feedback.prompt, tabs]
    tab.ask_of_loop.click(tab.events.ask_of_loop, animate.video, tab.answers, show_progress_on=tab.answers, **QUEUE)
    tab.parts.look.click(tab.events.hand_on, tab.parts.result, back, **QUIET)


def _advanced(choice: Choice[ImproveService]) -> tuple[list[Any], gr.Radio, gr.Button]:
    """Settings in the order of `Settings`, and the other ways."""
    options = RepairOptions()
    usual = choice.current().usual
    with gr.Accordion("Other ways", open=False):
        ways = gr.Radio(list(WAYS), value=next(iter(WAYS)), label="From the prompt alone", elem_id="improve-ways")
        another = gr.Button("Try it", elem_id="improve-another")
    with gr.Accordion("Advanced", open=False):
        what = gr.Radio(list(WHAT), value=next(iter(WHAT)), label="Repair")
        count = _slider("candidates", "Pictures to choose from", options.candidates)
        rounds = _slider("rounds", "Rounds", options.rounds)
        seed = gr.Number(0, label="Seed", precision=0, minimum=LIMITS["seed"].low, maximum=LIMITS["seed"].high)
        step_slider = _slider("steps", "Steps", usual.steps)
        guidance_slider = _slider("guidance", "Guidance by the prompt", usual.guidance, 0.5)
        build_weights_menu(choice, "improve")
    return [what, count, rounds, seed, step_slider, guidance_slider], ways, another


def _slider(name: str, label: str, value: float, step: float = 1) -> gr.Slider:
    return gr.Slider(LIMITS[name].low, LIMITS[name].high, value, step=step, label=label)


def _results(service: ImproveService, picture: PhotoInput, prompt: gr.Textbox, painter: MaskPainter) -> Parts:
    slider = gr.ImageSlider(
        label="Before and after", type="filepath", interactive=False, visible=False, elem_id="improve-slider"
    )
    single = gr.Image(label="Picture", type="filepath", interactive=False, height=360, elem_id="improve-single")
    told = gr.HTML(elem_id="improve-told")
    with gr.Row(elem_classes="downloads"):
        go_on = gr.Button("Go on with this one", interactive=False, elem_id="improve-go-on", min_width=160)
        look = gr.Button("Look at it in Rich feedback", interactive=False, elem_id="improve-look", min_width=200)
        report = gr.DownloadButton("Save the report", interactive=False, elem_id="improve-report", min_width=160)
    tried = gr.Gallery(
        label="What was tried", columns=4, height=260, interactive=False, visible=False, elem_id="improve-tried"
    )
    note = gr.HTML(f'<p class="quiet">{html.escape(service.note)}</p>', elem_id="improve-note")
    return Parts(
        picture, prompt, painter, slider, single, told, tried, report, go_on, look, note, gr.State(None), gr.State(None)
    )


def _wire(events: ImproveEvents, parts: Parts, buttons: tuple[gr.Button, ...], settings: list[Any]) -> None:
    draw, repair, mark = buttons
    for button in (draw, repair):
        button.click(None, js=into_view("#improve-told"), api_visibility="private")
    working = {**QUEUE, "show_progress_on": parts.told}
    draw.click(events.run_drawing, [parts.prompt, *settings], [*parts.outputs(), parts.picture], **working)
    asked = [parts.picture, parts.prompt, parts.mask, *settings]
    repair.click(events.run_repair, asked, parts.outputs(), **working)
    parts.picture.change(events.opened, parts.picture, [parts.painter, parts.mask], **QUIET)
    marked = {**QUEUE, "show_progress_on": parts.painter}
    mark.click(events.mark, [parts.picture, parts.prompt], [parts.painter, parts.mask], **marked)
    parts.painter.paint(events.paint, None, parts.mask, queue=False, **QUIET)
    parts.go_on.click(events.go_on, parts.result, parts.picture, **QUIET)
