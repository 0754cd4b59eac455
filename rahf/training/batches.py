"""Samples -> batches of tensors, and the weighted losses over what is labelled in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rahf.data.samples import Sample
from rahf.model.config import HEATMAPS, SCORES, RAHFConfig
from rahf.model.rahf import RAHFOutput, Texts, TextTokens
from rahf.prompts import ALIGNED, MISALIGNED, TextTokenizer, encode_prompts, label_words
from rahf.training.auxiliary import Places, WordEnds, places_of, word_ends
from rahf.words import IGNORED, WordTargets, choice_logits, word_targets


@dataclass(frozen=True)
class LossWeights:
    """Weight of each loss. `choice` is the cross-entropy of marking or not marking a word, where the decoder chooses:
    the few tokens that matter among the many that only copy the prompt. `grounding`,
    `spotting`, `centring` and `judging` are the auxiliary tasks."""

    heatmap: float = 50.0
    score: float = 15.0
    words: float = 0.3
    choice: float = 2.0
    grounding: float = 0.3
    spotting: float = 2.0
    centring: float = 4.0
    judging: float = 2.0


@dataclass(frozen=True)
class Batch:
    """images (B,3,S,S) in [0, 1]; heatmaps (B,h,h) and scores (B,) by name, nan where a sample has no label; tokens of
    the prompts; targets of the words, and `marks`: for each prompt 1 for misaligned words, None where not labelled;
    `places` of the objects of composed scenes and `ends` of labelled words, for auxiliary tasks, if asked for."""

    images: Tensor
    heatmaps: dict[str, Tensor]
    scores: dict[str, Tensor]
    texts: Texts
    targets: WordTargets
    marks: list[list[int] | None]
    places: Places | None = None
    ends: WordEnds | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        texts = self.texts
        return Batch(
            images=self.images.to(device),
            heatmaps={name: tensor.to(device) for name, tensor in self.heatmaps.items()},
            scores={name: tensor.to(device) for name, tensor in self.scores.items()},
            texts=texts.to(device)
            if isinstance(texts, TextTokens)
            else {name: text.to(device) for name, text in texts.items()},
            targets=WordTargets(self.targets.ids.to(device), self.targets.places, self.targets.following),
            marks=self.marks,
            places=None if self.places is None else self.places.to(device),
            ends=None if self.ends is None else self.ends.to(device),
        )


def collate(
    samples: Sequence[Sample],
    config: RAHFConfig,
    tokenizer: TextTokenizer,
    auxiliary: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Batch:
    """Stack samples of any sizes; `auxiliary` lists the nouns and the colours whose places are wanted.

    Raises ValueError for a prompt the model cannot read.
    """
    words = [[word.text for word in label_words(sample.prompt)] for sample in samples]
    labels = [
        list(sample.words) if sample.words is not None else [ALIGNED] * len(row)
        for sample, row in zip(samples, words, strict=True)
    ]
    targets = word_targets(words, labels, tokenizer)
    for place, sample in enumerate(samples):
        if sample.words is None:
            targets.ids[place] = IGNORED
    marks = [
        [int(label == MISALIGNED) for label in row] if sample.words is not None else None
        for sample, row in zip(samples, labels, strict=True)
    ]
    return Batch(
        images=torch.stack([_square(sample.image, config.image_size) for sample in samples]),
        heatmaps={name: _heatmaps(samples, name, config.heatmap_size) for name in HEATMAPS},
        scores={name: torch.tensor([sample.scores.get(name, float("nan")) for sample in samples]) for name in SCORES},
        texts=encode_prompts([sample.prompt for sample in samples], config, tokenizer, label_words),
        targets=targets,
        marks=marks,
        places=places_of(samples, config.grid, *auxiliary) if auxiliary else None,
        ends=word_ends(words, marks if config.blind != "text" else [None] * len(marks), tokenizer)
        if auxiliary
        else None,
    )


def losses(output: RAHFOutput, batch: Batch, tokenizer: TextTokenizer) -> dict[str, Tensor]:
    """Unweighted losses: `heatmap` and `score`, mean squared errors over what is labelled; `words`, the cross-entropy
    of the marked prompts without padding; `choice`, that of marking each word."""
    heatmap = [_masked_mse(output.heatmaps[name], batch.heatmaps[name]) for name in output.heatmaps]
    score = [_masked_mse(output.scores[name], batch.scores[name]) for name in output.scores]
    found = {"heatmap": torch.stack(heatmap).mean(), "score": torch.stack(score).mean()}
    if output.word_logits is not None:
        found |= _word_losses(output.word_logits, batch, tokenizer)
    return found


def weigh(found: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of losses."""
    return torch.stack([getattr(weights, name) * loss for name, loss in found.items()]).sum()


def _word_losses(logits: Tensor, batch: Batch, tokenizer: TextTokenizer) -> dict[str, Tensor]:
    ids = batch.targets.ids
    total = F.cross_entropy(logits.flatten(0, 1).float(), ids.flatten(), ignore_index=IGNORED, reduction="sum")
    words = total / (ids != IGNORED).sum().clamp(min=1)
    odds = choice_logits(logits, batch.targets, tokenizer)
    kept = [(row, marks) for row, marks in zip(odds, batch.marks, strict=True) if marks is not None]
    if not kept:
        return {"words": words, "choice": logits.sum() * 0}
    chosen = torch.cat([row for row, _ in kept])
    truth = torch.tensor([mark for _, marks in kept for mark in marks], device=chosen.device, dtype=chosen.dtype)
    return {"words": words, "choice": F.binary_cross_entropy_with_logits(chosen, truth)}


def _masked_mse(predicted: Tensor, actual: Tensor) -> Tensor:
    """Mean squared error where `actual` is not nan; 0, with a gradient of 0, where nothing is labelled."""
    known = ~torch.isnan(actual)
    difference = torch.where(known, predicted.float() - torch.nan_to_num(actual), 0.0)
    return difference.square().sum() / known.sum().clamp(min=1)


def _square(image: np.ndarray, side: int) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    if pixels.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return pixels[0]


def _heatmaps(samples: Sequence[Sample], name: str, side: int) -> Tensor:
    rows = []
    for sample in samples:
        if name not in sample.heatmaps:
            rows.append(torch.full((side, side), float("nan")))
            continue
        heatmap = torch.from_numpy(np.ascontiguousarray(sample.heatmaps[name], dtype=np.float32))[None, None]
        rows.append(F.interpolate(heatmap, size=(side, side), mode="area")[0, 0])
    return torch.stack(rows)
