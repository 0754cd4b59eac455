"""The probability that each word is misaligned, under teacher forcing.

The decoder is fed the prompt's own words, so it can neither drop nor alter one. Behind each word it must choose between
the mark `_0` and whatever comes next without it; the probability of the mark among these two is the word's:
    p_i = P(mark | image, prompt, words 1..i) / (P(mark | ...) + P(next | ...)).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rahf.model.rahf import RAHF, Fused
from rahf.prompts import END, MISALIGNED, TextTokenizer

IGNORED = -100


@dataclass(frozen=True)
class WordTargets:
    """`ids` (B,T) of the marked prompts with end marks, -100 on padding; for every word of every prompt the place in T
    where the decoder chooses (`places`), and the id that follows there if the word carries no mark (`following`)."""

    ids: Tensor
    places: list[list[int]]
    following: list[list[int]]


def word_targets(
    words: Sequence[Sequence[str]], labels: Sequence[Sequence[int]], tokenizer: TextTokenizer
) -> WordTargets:
    """Targets for teacher forcing. Raises ValueError if words and labels differ in number."""
    rows, places, following = [], [], []
    for prompt, prompt_labels in zip(words, labels, strict=True):
        pieces = tokenizer.pieces(prompt)
        row: list[int] = []
        chosen: list[int] = []
        for piece, label in zip(pieces, prompt_labels, strict=True):
            row += piece
            chosen.append(len(row))
            if label == MISALIGNED:
                row += tokenizer.marker
        rows.append([*row, END])
        places.append(chosen)
        following.append([piece[0] for piece in pieces[1:]] + [END] if pieces else [])
    ids = torch.full((len(rows), max(map(len, rows), default=0)), IGNORED, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    return WordTargets(ids, places, following)


def choice_logits(logits: Tensor, targets: WordTargets, tokenizer: TextTokenizer) -> list[Tensor]:
    """For each prompt the log odds (words,) of the mark against what follows without it, from logits (B,T,V)."""
    odds = []
    for row, places, following in zip(logits, targets.places, targets.following, strict=True):
        at = row[torch.tensor(places, dtype=torch.long, device=row.device)].float()
        unmarked = at.gather(1, torch.tensor(following, dtype=torch.long, device=row.device)[:, None]).squeeze(1)
        odds.append(at[:, tokenizer.marker[0]] - unmarked)
    return odds


@torch.no_grad()
def word_probabilities(
    model: RAHF, fused: Fused, words: Sequence[Sequence[str]], tokenizer: TextTokenizer, passes: int = 2
) -> list[list[float]]:
    """For each prompt, for each word, the probability in [0, 1] that it is misaligned.

    The first pass takes every earlier word as aligned; each later pass takes the decisions (at one half) of the pass
    before, which is how the decoder was trained. `passes` of at least the number of words + 1 gives greedy decoding
    restricted to the prompt's words. Raises ValueError for no pass at all.
    """
    if passes < 1:
        raise ValueError(f"passes is {passes}; it must be at least 1")
    labels = [[1 - MISALIGNED] * len(prompt) for prompt in words]
    odds: list[Tensor] = []
    for _ in range(passes):
        targets = word_targets(words, labels, tokenizer)
        odds = choice_logits(model.decode(fused, targets.ids.to(fused.context.device)), targets, tokenizer)
        decided = [[MISALIGNED if value > 0 else 1 - MISALIGNED for value in row.tolist()] for row in odds]
        if decided == labels:
            break
        labels = decided
    return [torch.sigmoid(row).tolist() for row in odds]
