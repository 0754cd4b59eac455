"""Bringing coarse motion to the photo's grid, with its edges on the photo's edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class PhotoGuide:
    """Bilinear interpolation whose four weights also ask how alike the colours are (joint bilateral upsampling).

    Motion is predicted on a coarse grid; a cell across an object's edge should not drag the background along. Only
    the four cells around a pixel are used, so where motion is smooth this *is* bilinear interpolation, whatever the
    photo's texture: wider or regression-based filters print the texture into the motion, which then shimmers.
    The weights are computed once a photo.

    Args:
        photo: (1, 3, H, W) in [0, 1].
        height, width: of the coarse maps.
        colour: distance in RGB at which two colours stop counting as alike.
        floor: weight of a cell of quite another colour; it decides where no cell is alike.
    """

    def __init__(self, photo: Tensor, height: int, width: int, colour: float = 0.15, floor: float = 0.02) -> None:
        size = photo.shape[2:]
        self.rows, row_shares = _neighbours(size[0], height, photo.device)
        self.columns, column_shares = _neighbours(size[1], width, photo.device)
        coarse = F.interpolate(photo, (height, width), mode="area")
        weights = []
        for down in (0, 1):
            for right in (0, 1):
                cell = self._taken(coarse, down, right)
                alike = ((photo - cell).square().sum(1, keepdim=True) / (-2 * colour**2)).exp() + floor
                weights.append(alike * row_shares[down][:, None] * column_shares[right][None, :])
        total = torch.stack(weights).sum(0)
        self.weights = [weight / total for weight in weights]

    def __call__(self, maps: Tensor) -> Tensor:
        """(B, C, height, width) -> (B, C, H, W)."""
        pairs = [(down, right) for down in (0, 1) for right in (0, 1)]
        parts = [self._taken(maps, *pair) * weight for pair, weight in zip(pairs, self.weights, strict=True)]
        return parts[0] + parts[1] + parts[2] + parts[3]

    def _taken(self, maps: Tensor, down: int, right: int) -> Tensor:
        return maps.index_select(2, self.rows[down]).index_select(3, self.columns[right])


def _neighbours(fine: int, coarse: int, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """For each fine pixel, its two coarse cells and their bilinear shares (pixel centres at half integers)."""
    place = ((torch.arange(fine, device=device) + 0.5) * (coarse / fine) - 0.5).clamp(0, coarse - 1)
    first = place.floor().long()
    share = place - first
    return [first, (first + 1).clamp(max=coarse - 1)], [1 - share, share]
