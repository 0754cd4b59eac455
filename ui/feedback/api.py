"""The Rich feedback tab as documented endpoints, for programs and assistants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio.data_classes import FileData

from rahf.feedback import THRESHOLD
from rahf.model.config import HEATMAPS, SCORES
from ui import values
from ui.endpoints import offer
from ui.errors import explained
from ui.feedback.results import Thresholds
from ui.feedback.service import MOST_PICTURES, FeedbackService
from ui.progress import show
from ui.weights_menu import Choice

FAILED = "There is no feedback"
NO_PICTURE = "There is no picture yet. Upload one, paste one, or click an example below."
MOST_WEIGHT = 1000
NO_PICTURES = f"Give 2 to {MOST_PICTURES} pictures that were made from one prompt."


def build_endpoints(choice: Choice[FeedbackService]) -> None:
    """Offer `/feedback` and `/rank`."""
    _feedback(choice)
    _rank(choice)


def _feedback(choice: Choice[FeedbackService]) -> None:
    def feedback(
        image: FileData,
        prompt: str,
        threshold: float = THRESHOLD,
        word_threshold: float = choice.current().word_threshold,
    ) -> tuple[dict[str, Any], FileData, FileData, FileData]:
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
        with explained(FAILED):
            thresholds, said = _thresholds(threshold, word_threshold), values.text("prompt", prompt)
            service, path = choice.current(), values.upload(image, NO_PICTURE)
            found = service.examine(path, said, show)
            files = [service.report_file([found], "report"), *(service.map_file(found, name) for name in HEATMAPS)]
            report, *maps = (FileData(path=str(path)) for path in files)
            return found.to_dict(thresholds), report, maps[0], maps[1]

    offer(feedback, "feedback", "feedback")


def _rank(choice: Choice[FeedbackService]) -> None:
    def rank(
        images: list[FileData],
        prompt: str,
        plausibility: float = 1,
        alignment: float = 1,
        aesthetics: float = 1,
        overall: float = 1,
        threshold: float = THRESHOLD,
        word_threshold: float = choice.current().word_threshold,
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
        with explained(FAILED):
            thresholds, said = _thresholds(threshold, word_threshold), values.text("prompt", prompt)
            given = zip(SCORES, (plausibility, alignment, aesthetics, overall), strict=True)
            weights = {name: _weight(name, value) for name, value in given}
            paths = _paths(images)
            service = choice.current()
            found = service.examine_all(paths, said, show)
            order = service.rank(found, [Path(path).name for path in paths], weights, thresholds)
            return [item.to_dict() for item in order]

    offer(rank, "rank", "feedback")


def _thresholds(regions: Any, words: Any) -> Thresholds:
    for name, value in (("threshold", regions), ("word_threshold", words)):
        if not 0 <= values.finite(name, value) <= 1:
            raise ValueError(f"{name} is {value:g}; it must be from 0 to 1")
    return Thresholds(regions, words)


def _weight(name: str, value: Any) -> float:
    if not 0 <= values.finite(name, value) <= MOST_WEIGHT:
        raise ValueError(f"{name} is {value:g}; it must be from 0 to {MOST_WEIGHT}")
    return float(value)


def _paths(images: Any) -> list[str]:
    """2 to 12 uploaded pictures. Raises ValueError for anything else."""
    if not isinstance(images, list | tuple) or len(images) < 2:
        raise ValueError(NO_PICTURES)
    if len(images) > MOST_PICTURES:  # before files are looked at
        raise ValueError(f"there are {len(images)} pictures; at most {MOST_PICTURES} are compared at once")
    return [values.upload(image, NO_PICTURES) for image in images]
