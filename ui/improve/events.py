"""What happens on the Improve tab: a picture is drawn, marked, painted on, mended, and handed on."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr

from rahf.improve.repair import FAULTS, MISSING, RepairOptions
from ui import values
from ui.errors import explained
from ui.improve.api import FAILED, NOT_ASKED
from ui.improve.jobs import DRAW, LIMITS, REPAIR, WAYS, Job
from ui.improve.painter import MaskPainter, painted
from ui.improve.questions import told as told_of
from ui.improve.results import told
from ui.improve.service import NO_PICTURE, ImproveService, Result
from ui.photo_input import PhotoInput
from ui.progress import show
from ui.weights_menu import Choice

NO_LOOP = "There is no loop yet. Make one in the Animate tab."
WHAT = {"What looks wrong": FAULTS, "Words that are not shown": MISSING}
Updates = dict[Any, Any]


@dataclass(frozen=True)
class Parts:
    """The components that events fill. ``mask``: the file of what is painted; ``result``: what stands on the page."""

    picture: PhotoInput
    prompt: gr.Textbox
    painter: MaskPainter
    slider: gr.ImageSlider
    single: gr.Image
    told: gr.HTML
    tried: gr.Gallery
    report: gr.DownloadButton
    go_on: gr.Button
    look: gr.Button
    note: gr.HTML
    mask: gr.State
    result: gr.State

    def outputs(self) -> list[Any]:
        """What a result fills."""
        kept = ("slider", "single", "told", "tried", "report", "go_on", "look", "note", "result")
        return [getattr(self, name) for name in kept]


@dataclass(frozen=True)
class Settings:
    """The values of the Advanced accordion as they came, in its order; nothing in them is trusted."""

    what: Any
    candidates: Any
    rounds: Any
    seed: Any
    steps: Any
    guidance: Any

    def job(self, tool: str, prompt: Any, service: ImproveService) -> Job:
        """What is asked. Raises ValueError naming value, limit and remedy."""
        count = values.whole("candidates", self.candidates)
        for name in LIMITS:
            LIMITS[name].check(name, values.finite(name, getattr(self, name) or 0))
        options = RepairOptions(
            what=WHAT.get(self.what, self.what), candidates=count, rounds=values.whole("rounds", self.rounds)
        )
        return Job(
            tool=tool,
            prompt=values.text("prompt", prompt),
            seed=values.whole("seed", self.seed or 0),
            setting=service.setting(values.whole("steps", self.steps), values.finite("guidance", self.guidance)),
            repair=options,
            count=count,
        )


class ImproveEvents:
    """The handlers of the tab's events."""

    def __init__(self, choice: Choice[ImproveService], parts: Parts) -> None:
        self._choice = choice
        self._parts = parts

    def run_drawing(self, prompt: str | None, *settings: Any) -> Updates:
        """A picture from the prompt; it becomes the one to improve."""
        with explained(FAILED):
            service = self._choice.current()
            result = service.answer(Settings(*settings).job(DRAW, prompt, service), progress=show)
            return {**self._shown(service, result, prompt), self._parts.picture: str(result.after)}

    def run_repair(self, source: str | None, prompt: str | None, mask: str | None, *settings: Any) -> Updates:
        """The button of the tab."""
        if source is None:
            raise gr.Error(NO_PICTURE, title=FAILED, print_exception=False)
        with explained(FAILED):
            service = self._choice.current()
            job = Settings(*settings).job(REPAIR, prompt, service)
            return self._shown(service, service.answer(job, source, mask, show), prompt)

    def run_another(self, way: str | None, prompt: str | None, *settings: Any) -> Updates:
        """One of the other ways, from the prompt alone."""
        with explained(FAILED):
            service = self._choice.current()
            tool = values.choice("way", way, list(WAYS))
            return self._shown(
                service, service.answer(Settings(*settings).job(WAYS[tool], prompt, service), progress=show), prompt
            )

    def ask(self, source: str | None, prompt: str | None) -> str:
        """The checklist of the picture."""
        if source is None:
            raise gr.Error(NO_PICTURE, title=NOT_ASKED, print_exception=False)
        with explained(NOT_ASKED):
            return told_of(self._choice.current().questions(source, values.text("prompt", prompt), progress=show))

    def ask_of_loop(self, video: str | None) -> str:
        """The checklist of the loop on the Animate tab."""
        if video is None:
            raise gr.Error(NO_LOOP, title=NOT_ASKED, print_exception=False)
        with explained(NOT_ASKED):
            return told_of(self._choice.current().questions(None, video=video, progress=show))

    def opened(self, source: str | None) -> Updates:
        """Another picture: it can be painted on; what was painted on the last one is forgotten."""
        parts = self._parts
        if source is None:
            return {parts.painter: None, parts.mask: None}
        with explained(FAILED):
            return {parts.painter: self._choice.current().canvas(source), parts.mask: None}

    def mark(self, source: str | None, prompt: str | None) -> Updates:
        """Paint what the feedback marks, to be changed by hand."""
        if source is None:
            raise gr.Error(NO_PICTURE, title=FAILED, print_exception=False)
        with explained(FAILED):
            canvas = self._choice.current().canvas(source, values.text("prompt", prompt), show)
            if canvas.mask is None:
                gr.Info("The feedback marks nothing in this picture. Paint over what you want to be drawn anew.")
            return {self._parts.painter: canvas, self._parts.mask: str(canvas.mask) if canvas.mask else None}

    def paint(self, event: gr.EventData) -> str | None:
        """A stroke has ended."""
        return painted(event._data)

    def go_on(self, result: tuple[str, str] | None) -> Any:
        """The result becomes the picture to improve."""
        return result[0] if result else gr.skip()

    def hand_on(self, result: tuple[str, str] | None) -> Any:
        """The result and its prompt, for the Rich feedback tab."""
        return (*result, gr.Tabs(selected="feedback")) if result else (gr.skip(), gr.skip(), gr.skip())

    def _shown(self, service: ImproveService, result: Result, prompt: str | None) -> Updates:
        parts = self._parts
        pair = (str(result.before), str(result.after)) if result.before is not None else None
        others = [(str(path), caption) for path, caption in result.others]
        return {
            parts.slider: gr.ImageSlider(value=pair, visible=pair is not None),
            parts.single: gr.Image(value=str(result.after), visible=pair is None),
            parts.told: told(result.answer),
            parts.tried: gr.Gallery(value=others, visible=bool(others)),
            parts.report: gr.DownloadButton(value=str(service.report_file(result)), interactive=True),
            parts.go_on: gr.Button(interactive=True),
            parts.look: gr.Button(interactive=True),
            parts.note: f'<p class="quiet">{html.escape(service.note)}</p>',
            parts.result: (str(result.after), prompt or ""),
        }
