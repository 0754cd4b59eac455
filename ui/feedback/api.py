"""The Rich feedback tab as documented endpoints, for programs and assistants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from rahf.feedback import THRESHOLD
from rahf.model.config import HEATMAPS, SCORES
from ui.errors import explained
from ui.feedback.results import Thresholds
from ui.feedback.service import MOST_PICTURES, FeedbackService
from ui.photo_input import PhotoInput, PicturesInput

FAILED = "There is no feedback"
NO_PICTURE = "There is no picture yet. Upload one, paste one, or click an example below."
NO_PICTURES = f"Give 2 to {MOST_PICTURES} pictures that were made from one prompt."


def build_endpoints(service: FeedbackService, picture: PhotoInput, prompt: gr.Textbox) -> None:
    """Offer `/feedback` and `/rank`; the first takes the picture and the prompt of the page."""

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
            return found.to_dict(Thresholds(threshold, word_threshold)), report, maps[0], maps[1]

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
            found, titles = service.examine_all(images, prompt or ""), [Path(path).name for path in images]
            order = service.rank(found, titles, weights, Thresholds(threshold, word_threshold))
            return [item.to_dict() for item in order]

    def number(label: str, value: float, most: float | None = 1) -> gr.Number:
        return gr.Number(value, label=label, minimum=0, maximum=most, visible=False)

    thresholds = [number("threshold", THRESHOLD), number("word_threshold", service.word_threshold)]
    answers = [gr.JSON(visible=False, label="feedback")]
    pictures = [gr.Image(visible=False, label=label, type="filepath", format="png") for label in ("report", *HEATMAPS)]
    shared: dict[str, Any] = {"api_visibility": "public", "concurrency_id": "feedback"}
    gr.Button(visible=False).click(
        feedback, [picture, prompt, *thresholds], [*answers, *pictures], api_name="feedback", **shared
    )
    several = PicturesInput(visible=False, label="images")
    weights = [number(name, 1, None) for name in SCORES]
    gr.Button(visible=False).click(
        rank,
        [several, prompt, *weights, *thresholds],
        gr.JSON(visible=False, label="ranking"),
        api_name="rank",
        **shared,
    )
