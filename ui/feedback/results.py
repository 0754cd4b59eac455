"""Feedback as the page and its files tell it: with reasons, which follow the positions of the sliders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rahf.feedback import THRESHOLD, Feedback
from ui.feedback.view import ViewItem


@dataclass(frozen=True)
class Thresholds:
    """What counts against a picture.

    Attributes:
        regions: from which value on, 0 to 1, a region of a heatmap.
        words: from which probability on, 0 to 1, a word; None is where the weights draw the line themselves.
    """

    regions: float = THRESHOLD
    words: float | None = None

    @classmethod
    def read(cls, payload: Mapping[str, Any] | None) -> Thresholds:
        """From the browser's report of its sliders, in which nothing is trusted.

        Raises ValueError for anything but two numbers from 0 to 1.
        """
        try:
            found = cls(float((payload or {})["threshold"]), float((payload or {})["words"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("the browser sent something that is no threshold: move a slider again") from error
        for value in (found.regions, found.words):
            if value is None or not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"a threshold is {value}; it must be from 0 to 1")
        return found

    def of(self, feedback: Feedback) -> tuple[float, float]:
        """Both as numbers, for this feedback."""
        return self.regions, feedback.word_threshold if self.words is None else self.words


@dataclass(frozen=True, eq=False)
class Examined:
    """A picture, its prompt and what was found.

    pixels: (H, W, 3) uint8 at the working size; file_size: (width, height) of the file as it is meant to be seen.
    """

    key: str
    pixels: np.ndarray
    file_size: tuple[int, int]
    feedback: Feedback
    picture: Path
    maps: dict[str, Path]

    def item(self, thresholds: Thresholds = Thresholds()) -> ViewItem:
        """For the page."""
        reasons = reasons_of(self.feedback, thresholds)
        return ViewItem(self.key, "", self.picture, self.maps, self.feedback, reasons, thresholds.of(self.feedback))

    def to_dict(self, thresholds: Thresholds = Thresholds()) -> dict[str, Any]:
        """Plain values for JSON. Regions are in pixels of `image_size`, the size that was looked at."""
        regions, words = thresholds.of(self.feedback)
        return {
            **self.feedback.to_dict(regions),
            "file_size": list(self.file_size),
            "threshold": regions,
            "word_threshold": words,
            "against": self.feedback.reasons(regions, words),
        }


@dataclass(frozen=True, eq=False)
class Ranked:
    """One of several pictures: place from 1, weighted mean of its scores, and why it is not higher."""

    title: str
    place: int
    value: float
    reasons: tuple[str, ...]
    examined: Examined
    thresholds: Thresholds = Thresholds()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = self.examined.to_dict(self.thresholds)
        return {"file": self.title, "place": self.place, "value": self.value, **found}

    def item(self) -> ViewItem:
        """For the page."""
        found = self.examined
        told = self.thresholds.of(found.feedback)
        return ViewItem(
            found.key, self.title, found.picture, found.maps, found.feedback, self.reasons, told, self.place, self.value
        )


def reasons_of(feedback: Feedback, thresholds: Thresholds = Thresholds()) -> tuple[str, ...]:
    """What speaks against a picture, said for the page; never empty."""
    regions, words = thresholds.of(feedback)
    found = feedback.reasons(regions, words)
    return tuple(found) or (f"nothing stands out: no word from {words:.2f}, no region from {regions:.2f} on",)


def behind_best(best: Feedback, other: Feedback, weights: dict[str, float]) -> str | None:
    """The score that costs a picture most against the best one; None where it loses nothing."""
    total = sum(weights.values())
    losses = {name: weights[name] * (best.scores[name] - other.scores[name]) / total for name in weights}
    name = max(losses, key=lambda key: losses[key])
    if losses[name] <= 0:
        return None
    return f"{name} {other.scores[name]:.2f} against {best.scores[name]:.2f} of the best"
