"""What the model has to say about one image: typed, picklable, and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

# Regions are read off heatmaps at a quarter of full scale unless told otherwise.
THRESHOLD = 0.25


@dataclass(frozen=True)
class WordFeedback:
    """A word, its place in the original prompt, and the probability in [0, 1] that the image does not show it.

    judged: whether the model knows the word at all; the probability of one that it does not know is 0, meaning nothing.
    """

    text: str
    start: int
    end: int
    probability: float
    judged: bool = True


@dataclass(frozen=True)
class Region:
    """A connected part of a heatmap above a threshold: its box and area in pixels, and its highest value."""

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float


@dataclass(frozen=True, eq=False)
class Feedback:
    """Feedback on one image.

    heatmaps: by name, (H,W) float32 in [0, 1] at the image's own size; empty if not asked for.
    scores: by name, in [0, 1], higher is better.
    words: every word of the prompt; empty if not asked for.
    generated: the model's own marked prompt, if asked for. noncommercial: whether the weights are.
    word_threshold: from which probability on the weights take a word for misaligned.
    intervals: by score, the 90% interval that the model gives; empty if it gives none.
    unsure: the scores of which the model says that it does not know.
    judged_as: what the image was taken for, "composed scene" or "picture", where the weights tell the two apart.
    """

    prompt: str
    image_size: tuple[int, int]
    scores: dict[str, float]
    heatmaps: dict[str, np.ndarray] = field(default_factory=dict)
    words: tuple[WordFeedback, ...] = ()
    generated: str | None = None
    model: str = ""
    noncommercial: bool = False
    word_threshold: float = 0.5
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    unsure: tuple[str, ...] = ()
    judged_as: str = ""

    def misaligned(self, threshold: float | None = None) -> list[WordFeedback]:
        """The judged words whose probability is at least `threshold`, by default that of the weights."""
        threshold = self.word_threshold if threshold is None else threshold
        return [word for word in self.words if word.judged and word.probability >= threshold]

    def not_judged(self) -> list[WordFeedback]:
        """The words that the model does not know; they count neither for nor against the image."""
        return [word for word in self.words if not word.judged]

    def segments(self) -> list[tuple[str, float | None]]:
        """The prompt cut into words with their probability, and with None what stands between and words that are not
        judged; joined, the prompt."""
        pieces: list[tuple[str, float | None]] = []
        place = 0
        for word in self.words:
            if word.start > place:
                pieces.append((self.prompt[place : word.start], None))
            pieces.append((self.prompt[word.start : word.end], word.probability if word.judged else None))
            place = word.end
        if place < len(self.prompt):
            pieces.append((self.prompt[place:], None))
        return pieces

    def regions(self, name: str, threshold: float = THRESHOLD) -> list[Region]:
        """Connected regions of heatmap `name` at or above `threshold`, the largest first.

        Raises ValueError if there is no such heatmap.
        """
        if name not in self.heatmaps:
            raise ValueError(f"this feedback has no heatmap {name!r}; it has {', '.join(self.heatmaps) or 'none'}")
        heatmap = self.heatmaps[name]
        labels, _ = ndimage.label(heatmap >= threshold)
        found = []
        for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels[rows, columns] == index
            found.append(
                Region(
                    x=columns.start,
                    y=rows.start,
                    width=columns.stop - columns.start,
                    height=rows.stop - rows.start,
                    area=int(inside.sum()),
                    peak=float(heatmap[rows, columns][inside].max()),
                )
            )
        return sorted(found, key=lambda region: -region.area)

    def reasons(self, threshold: float = THRESHOLD, word_threshold: float | None = None) -> list[str]:
        """What speaks against the image, in words and regions; empty if nothing does."""
        said = []
        missed = self.misaligned(word_threshold)
        if missed:
            said.append("not shown: " + ", ".join(word.text for word in missed))
        for name in self.heatmaps:
            for region in self.regions(name, threshold)[:3]:
                said.append(f"{name} {region.peak:.2f} {_place(region, self.image_size)}")
        return said

    def to_dict(self, threshold: float = THRESHOLD) -> dict[str, Any]:
        """Plain values for JSON; heatmaps as their mean, highest value and regions."""
        return {
            "prompt": self.prompt,
            "image_size": list(self.image_size),
            "scores": dict(self.scores),
            "words": [vars(word) for word in self.words],
            "heatmaps": {
                name: {
                    "mean": float(heatmap.mean()),
                    "max": float(heatmap.max()),
                    "regions": [vars(region) for region in self.regions(name, threshold)],
                }
                for name, heatmap in self.heatmaps.items()
            },
            "generated": self.generated,
            "model": self.model,
            "noncommercial": self.noncommercial,
            "word_threshold": self.word_threshold,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "unsure": list(self.unsure),
            "judged_as": self.judged_as,
        }


def rank(feedback: Sequence[Feedback], weights: dict[str, float] | None = None) -> list[tuple[int, float]]:
    """Indices and weighted mean scores, best first; all scores count alike unless `weights` says otherwise.

    Raises ValueError for an unknown score or weights that do not add up to more than 0.
    """
    if not feedback:
        return []
    chosen = weights if weights is not None else dict.fromkeys(feedback[0].scores, 1.0)
    unknown = sorted(set(chosen) - set(feedback[0].scores))
    if unknown:
        raise ValueError(f"no score is called {', '.join(unknown)}; there are {', '.join(feedback[0].scores)}")
    total = sum(chosen.values())
    if total <= 0 or min(chosen.values()) < 0:
        raise ValueError(f"weights {chosen} must not be negative and must add up to more than 0")
    values = [sum(chosen[name] * item.scores[name] for name in chosen) / total for item in feedback]
    return sorted(enumerate(values), key=lambda pair: -pair[1])


def _place(region: Region, image_size: tuple[int, int]) -> str:
    width, height = image_size
    column = int(3 * (region.x + region.width / 2) / width)
    row = int(3 * (region.y + region.height / 2) / height)
    vertical, horizontal = ("upper", "middle", "lower")[min(row, 2)], ("left", "centre", "right")[min(column, 2)]
    return f"in the {vertical} {horizontal} ({region.width}x{region.height} px)"
