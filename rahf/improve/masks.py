"""Where to draw anew: from a heatmap, or where there is room for what is missing."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

FREE = 0.45  # of the shorter side: the place that something missing gets


def mask_from_heatmap(heatmap: np.ndarray, threshold: float, floor: float, dilation: float) -> Tensor:
    """What a heatmap (H,W) in [0, 1] marks, as (H,W) bool; empty where nothing reaches `floor`.

    Args:
        heatmap: implausibility or misalignment.
        threshold: part of the heatmap's highest value from which a pixel is taken.
        floor: value that a pixel has to reach besides; without it every picture would have a worst place to mend.
        dilation: how far the mask grows, as part of the longer side. Heatmaps mark where a fault is, not its extent.
    """
    marked = heatmap >= max(threshold * float(heatmap.max()), floor, 1e-6)
    return torch.from_numpy(grow(marked, round(dilation * max(heatmap.shape))))


def grow(marked: np.ndarray, radius: int) -> np.ndarray:
    """A mask (H,W) bool and all that is within `radius` pixels of it."""
    if radius < 1 or not marked.any():
        return marked
    return np.asarray(ndimage.distance_transform_edt(~marked) <= radius)


def free_place(picture: Tensor, avoid: np.ndarray | None = None, share: float = FREE) -> Tensor:
    """(H,W) bool: the square in a picture (3,H,W) where least happens; `avoid` (H,W) in [0, 1] counts as happening."""
    height, width = picture.shape[-2:]
    grey = ndimage.gaussian_filter(picture.mean(0).cpu().numpy(), max(height, width) / 64)
    happening = np.hypot(*np.gradient(grey))
    happening /= happening.max() + 1e-6
    if avoid is not None:
        happening = happening + avoid
    side = max(round(share * min(height, width)), 8)
    total = np.pad(happening.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(int(inside.argmin()), inside.shape)
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask
