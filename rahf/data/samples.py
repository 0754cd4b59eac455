"""One labelled image, whatever set it comes from; what was not labelled is absent, never zero."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from rahf.model.config import HEATMAPS, SCORES
from rahf.prompts import split_words


class RecordError(ValueError):
    """A record that is damaged or contradicts itself; the message names it."""


@dataclass(frozen=True, eq=False)
class SceneObject:
    """An object of a composed scene: its mask (H,W) bool, its noun, and the colour it was tinted with, if it was."""

    mask: np.ndarray
    noun: str
    colour: str | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """image (H,W,3) uint8; heatmaps by name, (h,w) float32 in [0, 1]; scores by name in [0, 1], higher is better;
    words: one label for each word of the prompt, 0 = misaligned, or None if words were not labelled; objects: what is
    really in the picture and where, known only of composed scenes.

    Raises RecordError, which names the sample, for another shape, unknown labels, scores out of range, or labels that
    do not fit the prompt's words.
    """

    name: str
    image: np.ndarray
    prompt: str
    heatmaps: Mapping[str, np.ndarray] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    words: tuple[int, ...] | None = None
    objects: tuple[SceneObject, ...] = ()

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise RecordError(f"{self.name}: the image is {self.image.shape} {self.image.dtype}, not (H,W,3) uint8")
        strange = sorted((set(self.heatmaps) - set(HEATMAPS)) | (set(self.scores) - set(SCORES)))
        if strange:
            raise RecordError(f"{self.name}: labels {', '.join(strange)} are unknown")
        for name, value in self.scores.items():
            if not 0 <= value <= 1:
                raise RecordError(f"{self.name}: {name} is {value}, outside [0, 1]")
        count = len(split_words(self.prompt))
        if self.words is not None and len(self.words) != count:
            raise RecordError(f"{self.name}: {len(self.words)} word labels came with {count} words")


class SampleSource(Protocol):
    """A set of samples with random access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
