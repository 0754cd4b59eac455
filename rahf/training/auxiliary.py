"""Auxiliary tasks for composed scenes, which training uses and the weights leave out.

*Grounding*: every visual token names the object it lies on, and its colour. A prompt's words say only for a whole
picture what is in it, which is slow to learn from. In a composed scene the place of every object is known, so the
tokens are taught directly to match the words' embeddings (in the manner of GLIP, Li et al. 2022), before the fusing
encoder compares the two.

*Spotting*: every visual token says how implausible its patch is, again before the fusing encoder: a melted corner of
a small object has to be seen by the image tower itself.

*Centring*: every visual token says whether the centre of an object lies in its patch (see `rahf.model.layout`).

*Judging*: the encoder's token at the end of every word says whether that word is misaligned. The decoder says so too,
but only once it has learned to write; this teaches the encoder from the first step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rahf.data.samples import Sample
from rahf.model.rahf import RAHF, RAHFOutput
from rahf.model.word_embedding import spelling_hashes
from rahf.prompts import TextTokenizer, pad

GROUND, UNKNOWN = 0, -100
COVERED = 0.3  # part of a token's patch that an object must cover to be its object


@dataclass(frozen=True)
class Places:
    """What lies where: places of nouns and colours (B,g·g) int64 in the lists of words, from 1; 0 for the ground, -100
    where nothing is known; and centres (B,g·g), 1.0 where an object has its own, nan where nothing is known."""

    nouns: Tensor
    colours: Tensor
    centres: Tensor

    def to(self, device: torch.device | str) -> "Places":
        """The places on another device."""
        return Places(self.nouns.to(device), self.colours.to(device), self.centres.to(device))


@dataclass(frozen=True)
class WordEnds:
    """All labelled words of a batch: row in the batch (N,) and place of the last byte in its text (N,), int64, and 1.0
    for those that are misaligned (N,)."""

    rows: Tensor
    ends: Tensor
    marks: Tensor

    def to(self, device: torch.device | str) -> "WordEnds":
        """The words on another device."""
        return WordEnds(self.rows.to(device), self.ends.to(device), self.marks.to(device))


def word_ends(
    words: Sequence[Sequence[str]], marks: Sequence[Sequence[int] | None], tokenizer: TextTokenizer
) -> WordEnds:
    """Where the words of cleaned prompts end among their tokens; rows without marks are left out."""
    rows: list[int] = []
    ends: list[int] = []
    labels: list[float] = []
    for row, (prompt, chosen) in enumerate(zip(words, marks, strict=True)):
        if chosen is None:
            continue
        lengths = np.cumsum([len(piece) for piece in tokenizer.pieces(prompt)])
        rows += [row] * len(prompt)
        ends += (lengths - 1).tolist()
        labels += [float(mark) for mark in chosen]
    return WordEnds(torch.tensor(rows, dtype=torch.long), torch.tensor(ends, dtype=torch.long), torch.tensor(labels))


def places_of(samples: Sequence[Sample], grid: int, nouns: Sequence[str], colours: Sequence[str]) -> Places:
    """Targets for a batch; samples without objects are unknown everywhere."""
    found = np.full((2, len(samples), grid * grid), UNKNOWN, np.int64)
    centres = np.full((len(samples), grid * grid), np.nan, np.float32)
    for row, sample in enumerate(samples):
        if not sample.objects:
            continue
        masks = np.stack([item.mask for item in sample.objects])
        parts = F.adaptive_avg_pool2d(torch.from_numpy(masks).float()[None], grid)[0].flatten(1).numpy()
        best, covered = parts.argmax(axis=0), parts.max(axis=0)
        noun = np.array([nouns.index(item.noun) + 1 for item in sample.objects])
        colour = np.array([colours.index(item.colour) + 1 if item.colour else UNKNOWN for item in sample.objects])
        found[0, row] = np.where(covered >= COVERED, noun[best], GROUND)
        found[1, row] = np.where(covered >= COVERED, colour[best], UNKNOWN)
        centres[row] = 0
        centres[row, [_centre(item.mask, grid) for item in sample.objects if item.mask.any()]] = 1
    return Places(torch.from_numpy(found[0]), torch.from_numpy(found[1]), torch.from_numpy(centres))


def _centre(mask: np.ndarray, grid: int) -> int:
    """The patch, of grid·grid, that holds the middle of the box around a mask (H,W)."""
    place = 0
    for axis in (0, 1):
        where = np.flatnonzero(mask.any(axis=1 - axis))
        place = place * grid + int((where[0] + where[-1] + 1) / 2 / mask.shape[axis] * grid)
    return place


class Auxiliary(nn.Module):
    """The layers of the tasks. Raises ValueError for a model without word embeddings."""

    noun_rows: Tensor
    colour_rows: Tensor

    def __init__(self, model: RAHF, tokenizer: TextTokenizer, nouns: Sequence[str], colours: Sequence[str]) -> None:
        super().__init__()
        if not model.config.word_rows:
            raise ValueError("tokens are matched with word embeddings; this model has none (word_rows is 0)")
        self.nouns, self.colours = tuple(nouns), tuple(colours)
        width = model.config.text_width
        self.register_buffer("noun_rows", _rows(nouns, tokenizer, model.config.word_rows))
        self.register_buffer("colour_rows", _rows(colours, tokenizer, model.config.word_rows))
        self.misaligned = nn.Linear(width, 1)
        self.implausible = nn.Linear(width, 1)

    def forward(
        self, model: RAHF, output: RAHFOutput, places: Places, words: WordEnds, implausibility: Tensor
    ) -> dict[str, Tensor]:
        """The losses `grounding`, `spotting`, `judging` and, for a model with a layout, `centring`.

        implausibility: true heatmaps (B,h,h), nan where not labelled. Raises ValueError for an output without words.
        """
        if output.visual is None or output.context is None:
            raise ValueError("the output holds no words to judge; call the model with targets")
        found = {
            "grounding": self.grounding(model, output.visual, places),
            "spotting": self.spotting(output.visual, implausibility),
            "judging": self.judging(output.context, words),
        }
        if model.word_matching is not None and model.word_matching.layout is not None:
            logits = model.word_matching.layout.centres(model.word_matching.norm(output.visual[:, 1:]))
            found["centring"] = _binary(logits, places.centres)
        return found

    def judging(self, context: Tensor, words: WordEnds) -> Tensor:
        """Cross-entropy of marking each word, from the encoder's text tokens (B,L,C)."""
        logits = self.misaligned(context[words.rows, words.ends])[:, 0].float()
        if not len(logits):
            return context.sum() * 0
        return F.binary_cross_entropy_with_logits(logits, words.marks)

    def spotting(self, visual: Tensor, implausibility: Tensor) -> Tensor:
        """Cross-entropy of how implausible each patch is, from visual tokens (B,1+g·g,C) and heatmaps (B,h,h)."""
        logits = self.implausible(visual[:, 1:])[..., 0]
        return _binary(logits, F.adaptive_avg_pool2d(implausibility[:, None], math.isqrt(logits.shape[1])).flatten(1))

    def grounding(self, model: RAHF, visual: Tensor, places: Places) -> Tensor:
        """Cross-entropy of nouns plus that of colours, by the model's own matching, from visual tokens (B,1+g·g,C)."""
        return _entropy(self.logits(model, visual, "noun"), places.nouns) + _entropy(
            self.logits(model, visual, "colour"), places.colours
        )

    def logits(self, model: RAHF, visual: Tensor, sense: str) -> Tensor:
        """Fit (B,g·g,1+W) of the visual tokens (B,1+g·g,C) with the ground and with all words of a sense."""
        if model.word_embedding is None or model.word_matching is None:
            raise ValueError("tokens are matched with word embeddings; this model has none (word_rows is 0)")
        rows = self.noun_rows if sense == "noun" else self.colour_rows
        words = torch.cat([model.word_matching.ground, model.word_embedding.spelling(rows.to(visual.device))])
        return model.word_matching.logits(visual[:, 1:], words, sense)


def _binary(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of log odds where `target` is not nan; 0 where nothing is known."""
    known = ~torch.isnan(target)
    if not bool(known.any()):
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits[known].float(), target[known])


def _rows(words: Sequence[str], tokenizer: TextTokenizer, rows: int) -> Tensor:
    return spelling_hashes(pad([tokenizer.encode(word) for word in words]).ids, rows, causal=False)[:, 0].clone()


def _entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over what is known; the ground, which is most of a picture, counts as much as all the rest."""
    known = target.flatten() != UNKNOWN
    if not bool(known.any()):
        return logits.sum() * 0
    logits, target = logits.flatten(0, 1)[known].float(), target.flatten()[known]
    ground = target == GROUND
    loss = F.cross_entropy(logits, target, reduction="none")
    parts = [loss[kind].mean() for kind in (ground, ~ground) if bool(kind.any())]
    return torch.stack(parts).mean()
