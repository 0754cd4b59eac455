"""What happens on the Rich feedback tab: one picture, or several of one prompt, and sliders that tell again."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from rahf.model.config import SCORES
from ui import values
from ui.errors import explained
from ui.feedback.api import FAILED, NO_PICTURE, NO_PICTURES
from ui.feedback.results import Examined, Thresholds
from ui.feedback.service import MOST_PICTURES, FeedbackService, Shown
from ui.feedback.view import FeedbackView
from ui.progress import show
from ui.weights_menu import Choice

Updates = Iterator[dict[Any, Any]]


@dataclass(frozen=True)
class Results:
    """What a result fills. ``shown``: what stands on the page, as `Shown`; ``thresholds``: what the sliders say."""

    view: FeedbackView
    json_file: gr.DownloadButton
    report_file: gr.DownloadButton
    note: gr.HTML
    shown: gr.State
    thresholds: gr.State

    def outputs(self) -> list[Any]:
        """All of it."""
        return list(vars(self).values())

    def cleared(self) -> dict[Any, Any]:
        """Nothing in it."""
        buttons = {button: gr.DownloadButton(interactive=False) for button in (self.json_file, self.report_file)}
        return {self.view: None, self.shown: [], **buttons}

    def files(self, service: FeedbackService, found: Sequence[Examined], told: Any) -> dict[Any, Any]:
        """The buttons that save what is shown."""
        json_file, report = service.json_file(told, "feedback"), service.report_file(found, "feedback")
        return {
            self.json_file: gr.DownloadButton(value=str(json_file), interactive=True),
            self.report_file: gr.DownloadButton(value=str(report), interactive=True),
        }


def note_of(service: FeedbackService, found: Sequence[Examined] = ()) -> str:
    """The quiet line under a result; without one, what the weights know."""
    return f'<p class="quiet">{html.escape(service.note_on(found))}</p>'


class OneEvents:
    """The handlers of "One picture"."""

    def __init__(self, choice: Choice[FeedbackService], results: Results) -> None:
        self._choice = choice
        self._results = results

    def run(self, source: str | None, text: str | None, thresholds: Thresholds) -> Updates:
        """A click: feedback, then files of it."""
        if source is None:
            raise gr.Error(NO_PICTURE, title=FAILED, print_exception=False)
        with explained(FAILED):
            show(0.02, "Starting")
            service, results, prompt = self._choice.current(), self._results, values.text("prompt", text)
            found = service.examine(source, prompt, show)
            shown = [Shown("", found.key, source, prompt)]
            yield {
                results.view: [found.item(thresholds)],
                results.shown: shown,
                results.note: note_of(service, [found]),
            }
            yield results.files(service, [found], found.to_dict(thresholds))

    def clear(self) -> dict[Any, Any]:
        """Another picture: what was said of the last one disappears."""
        return {**self._results.cleared(), self._results.note: note_of(self._choice.current())}

    def tell_again(self, event: gr.EventData, shown: Sequence[Shown]) -> Updates:
        """The sliders have moved: the same feedback, with reasons that fit them."""
        results = self._results
        if not shown:
            yield {results.shown: gr.skip()}
            return
        with explained(FAILED):
            service, thresholds = self._choice.current(), Thresholds.read(event._data)
            (found,) = service.recall(shown, show)
            yield {results.view: [found.item(thresholds)], results.thresholds: thresholds}
            yield results.files(service, [found], found.to_dict(thresholds))


class ManyEvents:
    """The handlers of "Compare pictures"."""

    def __init__(self, choice: Choice[FeedbackService], results: Results) -> None:
        self._choice = choice
        self._results = results

    def run(
        self, chosen: Sequence[tuple[str, str | None]] | None, text: str | None, thresholds: Thresholds, *counts: float
    ) -> Updates:
        """A click: the pictures in their order, then files of it."""
        if not chosen or len(chosen) < 2:
            raise gr.Error(NO_PICTURES, title=FAILED, print_exception=False)
        with explained(FAILED):
            show(0.02, "Starting")
            if len(chosen) > MOST_PICTURES:
                raise ValueError(f"there are {len(chosen)} pictures; at most {MOST_PICTURES} are compared at once")
            service, prompt = self._choice.current(), values.text("prompt", text)
            paths = [path for path, _ in chosen]
            found = service.examine_all(paths, prompt, show)
            shown = [Shown(Path(path).name, one.key, path, prompt) for path, one in zip(paths, found, strict=True)]
            yield from self._ranked(shown, found, thresholds, counts)
            yield {self._results.note: note_of(service, found)}

    def rank_again(self, shown: Sequence[Shown], thresholds: Thresholds, *counts: float) -> Updates:
        """Other weights or thresholds need no model: the feedback is remembered."""
        if not shown:
            yield {self._results.shown: gr.skip()}
            return
        with explained(FAILED):
            yield from self._ranked(shown, self._choice.current().recall(shown, show), thresholds, counts)

    def tell_again(self, event: gr.EventData, shown: Sequence[Shown], *counts: float) -> Updates:
        """The sliders have moved: the same ranking, with reasons that fit them."""
        with explained(FAILED):
            yield from self.rank_again(shown, Thresholds.read(event._data), *counts)

    def _ranked(
        self, shown: Sequence[Shown], found: Sequence[Examined], thresholds: Thresholds, counts: Sequence[float]
    ) -> Updates:
        service, results = self._choice.current(), self._results
        weights = {name: values.finite(name, value) for name, value in zip(SCORES, counts, strict=True)}
        order = service.rank(found, [item.title for item in shown], weights, thresholds)
        yield {results.view: [item.item() for item in order], results.shown: shown, results.thresholds: thresholds}
        yield results.files(service, [item.examined for item in order], [item.to_dict() for item in order])
