"""The Rich feedback tab: where a generated picture is wrong, how good it is, which words of its prompt it misses."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from rahf.config import HEATMAPS, SCORES
from rahf.feedback import THRESHOLD
from ui.errors import explained
from ui.feedback_service import MOST_PICTURES, Examined, FeedbackService
from ui.feedback_view import FeedbackView
from ui.photo_input import PhotoInput

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FAILED = "There is no feedback"
NO_PICTURE = "There is no picture yet. Upload one, paste one, or click an example below."
NO_PICTURES = f"Give 2 to {MOST_PICTURES} pictures that were made from one prompt."
INTO_VIEW = "() => document.querySelector('{}').scrollIntoView({{ block: 'nearest' }})"
ABOUT = """Where is a generated picture wrong, how good is it, and which words of its prompt does it not show? After
[Rich Human Feedback for Text-to-Image Generation](https://arxiv.org/abs/2312.10240) (Liang et al., CVPR 2024)."""


@dataclass(frozen=True)
class _Results:
    """What a result fills."""

    view: FeedbackView
    json_file: gr.DownloadButton
    report_file: gr.DownloadButton
    note: gr.HTML

    def outputs(self) -> list[Any]:
        return list(vars(self).values())

    def cleared(self) -> dict[Any, Any]:
        buttons = {button: gr.DownloadButton(interactive=False) for button in (self.json_file, self.report_file)}
        return {self.view: None, **buttons}


def build_feedback_tab(service: FeedbackService) -> None:
    """Lay out the tab inside the current ``gr.Blocks`` and wire it to the service."""
    gr.Markdown(ABOUT, elem_classes="quiet")
    if service.predictor is None:
        gr.HTML(_no_weights(service), elem_id="feedback-problem")
    with gr.Tabs():
        with gr.Tab("One picture", id="feedback-one"):
            picture, prompt = _one(service)
        with gr.Tab("Compare pictures", id="feedback-many"):
            _many(service)
    _endpoints(service, picture, prompt)


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
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict[Any, Any]]:
        if source is None:
            raise gr.Error(NO_PICTURE, title=FAILED, print_exception=False)
        with explained(FAILED):
            progress(0.02, desc="Starting")
            found = service.examine(source, text or "")
            yield {results.view: [found.item()]}
            yield _files(service, results, [found], found.to_dict())

    inputs, outputs = [picture, prompt], results.outputs()
    shared: dict[str, Any] = _shared(results)
    press.click(None, js=INTO_VIEW.format("#feedback-view-one"), api_visibility="private")
    press.click(run, inputs, outputs, **shared)
    prompt.submit(run, inputs, outputs, **shared)
    # Not `change`: an example changes the picture too, and its result may already be there.
    picture.input(results.cleared, None, outputs, queue=False, show_progress="hidden", api_visibility="private")
    with shelf:
        rows = [[row["files"][0], row["prompt"], row["planted"][0]] for row in _known_faults("one")]
        _examples(rows, inputs, inputs, run, results)
    return picture, prompt


def _many(service: FeedbackService) -> None:
    with gr.Row(equal_height=False):
        pictures = gr.Gallery(
            label="Pictures",
            file_types=["image"],
            type="filepath",
            sources=["upload", "clipboard"],
            interactive=True,
            columns=4,
            height=280,
            object_fit="contain",
            min_width=300,
            elem_id="feedback-pictures",
        )
        with gr.Column(min_width=300):
            prompt = _prompt("feedback-prompt-many")
            press = gr.Button("Compare", variant="primary", size="lg", elem_id="feedback-compare")
            gr.Markdown(f"2 to {MOST_PICTURES} pictures of one prompt. What counts how much:", elem_classes="quiet")
            weights = []
            for pair in (SCORES[:2], SCORES[2:]):
                with gr.Row():
                    weights += [gr.Slider(0, 2, 1, step=0.1, label=name.capitalize(), min_width=140) for name in pair]
    ranked = gr.State([])  # of what is shown: title, path, prompt
    results = _results(service, "many")

    def show(shown: Sequence[tuple[str, str, str]], values: Sequence[float]) -> Iterator[dict[Any, Any]]:
        found = service.examine_all([path for _, path, _ in shown], shown[0][2])
        order = service.rank(found, [title for title, _, _ in shown], dict(zip(SCORES, values, strict=True)))
        yield {results.view: [item.item() for item in order], ranked: shown}
        yield _files(service, results, [item.examined for item in order], [item.to_dict() for item in order])

    def run(
        chosen: Sequence[tuple[str, str | None]] | None,
        text: str,
        *values: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict[Any, Any]]:
        if not chosen or len(chosen) < 2:
            raise gr.Error(NO_PICTURES, title=FAILED, print_exception=False)
        with explained(FAILED):
            progress(0.02, desc="Starting")
            yield from show([(Path(path).name, path, text or "") for path, _ in chosen], values)

    def rank_again(shown: Sequence[tuple[str, str, str]], *values: float) -> Iterator[dict[Any, Any]]:
        """Other weights need no model: the feedback is remembered."""
        if not shown:
            yield {ranked: gr.skip()}
            return
        with explained(FAILED):
            yield from show(shown, values)

    outputs = [*results.outputs(), ranked]
    press.click(run, [pictures, prompt, *weights], outputs, **_shared(results))
    prompt.submit(run, [pictures, prompt, *weights], outputs, **_shared(results))
    for slider in weights:
        slider.release(
            rank_again,
            [ranked, *weights],
            outputs,
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
            concurrency_id="feedback",
        )
    rows = [[row["files"], row["prompt"], _numbered(row["planted"])] for row in _known_faults("many")]
    _examples(rows, [pictures, prompt], [pictures, prompt, *weights], run, results, [ranked])


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
    states: Sequence[gr.State] = (),
) -> None:
    """A click fills in an example and asks for feedback, which is remembered from then on."""
    planted = gr.Textbox(visible=False, label="Planted")  # only a column of the table
    shelf = gr.Examples(
        rows, [*filled, planted], label="Examples with known faults", examples_per_page=12, api_visibility="private"
    )
    outputs = [*results.outputs(), *states]
    shelf.dataset.click(None, js=INTO_VIEW.format(f"#{results.view.elem_id}"), api_visibility="private")
    shelf.load_input_event.then(run, inputs, outputs, **_shared(results))


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
    return _Results(view, json_file, report_file, note)


def _files(service: FeedbackService, results: _Results, found: Sequence[Examined], values: Any) -> dict[Any, Any]:
    return {
        results.json_file: gr.DownloadButton(value=str(service.json_file(values, "feedback")), interactive=True),
        results.report_file: gr.DownloadButton(value=str(service.report_file(found, "feedback")), interactive=True),
        results.note: _note(service),
    }


def _shared(results: _Results) -> dict[str, Any]:
    return {"api_visibility": "private", "concurrency_id": "feedback", "show_progress_on": results.view}


def _note(service: FeedbackService) -> str:
    return f'<p class="quiet">{html.escape(service.note)}</p>'


def _no_weights(service: FeedbackService) -> str:
    return f'<p role="alert">{html.escape(service.missing)}</p>'


def _endpoints(service: FeedbackService, picture: PhotoInput, prompt: gr.Textbox) -> None:
    def feedback(
        image: str | None, prompt: str, threshold: float, word_threshold: float
    ) -> tuple[dict[str, Any], str, str, str]:
        """Say where a generated picture is wrong, how good it is, and which words of its prompt it does not show.

        Args:
            image: the picture, any common image format, up to 4:1 and 100 megapixels.
            prompt: the text that the picture was made from.
            threshold: from which value on, 0 to 1, a region of a heatmap is listed.
            word_threshold: from which probability on, 0 to 1, a word counts as not shown.

        Returns:
            Scores, words and regions as JSON, the report as a picture, and the implausibility and the misalignment
            heatmap as grey pictures in which white means 1.
        """
        if image is None:
            raise gr.Error(NO_PICTURE, title=FAILED, print_exception=False)
        with explained(FAILED):
            found = service.examine(image, prompt or "")
            maps = [str(service.map_file(found, name)) for name in HEATMAPS]
            report = str(service.report_file([found], "report"))
            return found.to_dict(threshold, word_threshold), report, maps[0], maps[1]

    def rank(
        images: list[str] | None,
        prompt: str,
        plausibility: float,
        alignment: float,
        aesthetics: float,
        overall: float,
        threshold: float,
        word_threshold: float,
    ) -> list[dict[str, Any]]:
        """Rank several pictures that were made from one prompt, best first, with what speaks against each.

        Args:
            images: 2 to 12 pictures.
            prompt: the text that all of them were made from.
            plausibility: how much the plausibility score counts, 0 or more.
            alignment: how much the alignment score counts, 0 or more.
            aesthetics: how much the aesthetics score counts, 0 or more.
            overall: how much the overall score counts, 0 or more.
            threshold: from which value on, 0 to 1, a region of a heatmap is listed.
            word_threshold: from which probability on, 0 to 1, a word counts as not shown.

        Returns:
            For each picture, best first: file, place, value (the weighted mean of its scores), scores, words, regions.
        """
        if not images or len(images) < 2:
            raise gr.Error(NO_PICTURES, title=FAILED, print_exception=False)
        with explained(FAILED):
            weights = dict(zip(SCORES, (plausibility, alignment, aesthetics, overall), strict=True))
            order = service.rank(
                service.examine_all(images, prompt or ""), [Path(path).name for path in images], weights
            )
            return [item.to_dict(threshold, word_threshold) for item in order]

    def number(label: str, value: float, most: float | None = 1) -> gr.Number:
        return gr.Number(value, label=label, minimum=0, maximum=most, visible=False)

    thresholds = [number("threshold", THRESHOLD), number("word_threshold", service.word_threshold)]
    answers = [gr.JSON(visible=False, label="feedback")]
    pictures = [gr.Image(visible=False, label=label, type="filepath", format="png") for label in ("report", *HEATMAPS)]
    shared: dict[str, Any] = {"api_visibility": "public", "concurrency_id": "feedback"}
    gr.Button(visible=False).click(
        feedback, [picture, prompt, *thresholds], [*answers, *pictures], api_name="feedback", **shared
    )
    several = gr.File(file_count="multiple", type="filepath", visible=False, label="images")
    weights = [number(name, 1, None) for name in SCORES]
    gr.Button(visible=False).click(
        rank,
        [several, prompt, *weights, *thresholds],
        gr.JSON(visible=False, label="ranking"),
        api_name="rank",
        **shared,
    )
