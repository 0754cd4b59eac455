"""How many things a picture shows of what each word names, and where: numbers for the words, ahead of the encoder.

"three", "left" and "below" are about whole objects, and a token is only a part of one. So every visual token says
whether the centre of an object lies in its patch (as detectors do: Zhou et al., "Objects as Points", 2019); centres
counted where they match a word say how many there are of it, and the mean place of its matches says where it is.
Training teaches the centres (`rahf.training.auxiliary`).
"""

import math

import torch
from torch import Tensor, nn

THRESHOLDS = (0.0, 3.0, 6.0, 9.0)  # log odds from which on a patch shows what a word names: the four to begin with
_HIDDEN = 64
_MOST = 4.0  # the counts that prompts speak of; keeps the numbers near 1


class Layout(nn.Module):
    """Counts and places of what words name -> what is added to their tokens; nothing, to begin with."""

    def __init__(self, width: int, senses: int) -> None:
        super().__init__()
        self.centre = nn.Linear(width, 1)
        self.thresholds = nn.Parameter(torch.tensor(THRESHOLDS).repeat(senses, 1))
        numbers = senses * len(THRESHOLDS) + 4
        last = nn.Linear(_HIDDEN, width)
        self.to_text = nn.Sequential(nn.Linear(numbers, _HIDDEN), nn.GELU(), last)
        nn.init.constant_(self.centre.bias, -4.0)  # centres are rare
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def centres(self, patches: Tensor) -> Tensor:
        """Log odds (B,N) that the centre of an object lies in a patch, from patches (B,N,C)."""
        return self.centre(patches)[..., 0]

    def numbers(self, patches: Tensor, odds: list[Tensor]) -> Tensor:
        """(B,L,K) for L words: matching centres at each threshold in each sense, then the mean row and column of the
        matches in the first sense in [-1, 1], their spread, and the centres in all.

        odds: log odds (B,L,N) of each word against the ground at each patch, one tensor a sense.
        """
        centres = torch.sigmoid(self.centres(patches).float())
        counts = [
            (torch.sigmoid(values.float()[..., None, :] - levels[:, None]) * centres[:, None, None]).sum(dim=-1)
            for values, levels in zip(odds, self.thresholds, strict=True)
        ]
        chances = torch.softmax(odds[0].float(), dim=-1)
        grid = _grid(patches.shape[1], chances)
        place = chances @ grid
        spread = (chances @ grid.square().sum(dim=-1, keepdim=True) - place.square().sum(dim=-1, keepdim=True)).clamp(0)
        total = centres.sum(dim=-1)[:, None, None].expand(*place.shape[:2], 1)
        return torch.cat([torch.cat(counts, dim=-1) / _MOST, place, spread, total / _MOST], dim=-1)

    def forward(self, patches: Tensor, odds: list[Tensor]) -> Tensor:
        """(B,L,C), what is added to the words' tokens; arguments as of `numbers`."""
        return self.to_text(self.numbers(patches, odds).to(patches.dtype))


def _grid(count: int, like: Tensor) -> Tensor:
    """Rows and columns (N,2) in [-1, 1] of the middles of a square grid of N patches."""
    side = math.isqrt(count)
    middles = (torch.arange(side, device=like.device, dtype=like.dtype) * 2 + 1) / side - 1
    return torch.cartesian_prod(middles, middles)
