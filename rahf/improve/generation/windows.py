"""Pictures of any size before a generator that wants squares: a window around the mask, and the way back.

Only masked pixels are written; all others are copied, not computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

RIM = 32  # part of a window's side over which what was made meets what is around it
LEAST = 16  # pixels a side of a window


@dataclass(frozen=True)
class Window:
    """A square of `side` pixels from (`left`, `top`), in whole pixels of the picture; it may reach beyond its edges."""

    left: int
    top: int
    side: int


def window_of(mask: Tensor, side: int, padding: int | None = None) -> Window:
    """The part of a picture that a generator of squares of `side` pixels is shown for a mask (H,W) bool.

    A picture that is no larger than the generator is shown whole. Of a larger one what is around the mask is shown at
    its own resolution, or all that is needed for a mask that is larger. With `padding`, so many pixels around the mask
    and no more: a small hand is then drawn large. Raises ValueError for an empty mask.
    """
    height, width = mask.shape
    rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
    if not len(rows):
        raise ValueError("the mask is empty: nothing is to be drawn anew; mark a place, or lower the threshold")
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    box = max(bottom - top, right - left)
    wanted = max(side, box + side // 4) if padding is None else max(box + 2 * padding, LEAST)
    wanted = min(wanted, max(height, width))
    return Window(_start(left, right, wanted, width), _start(top, bottom, wanted, height), wanted)


def _start(low: int, high: int, wanted: int, size: int) -> int:
    """Where a window begins so that it has its mask in the middle, and lies inside if it can."""
    if wanted >= size:
        return (size - wanted) // 2
    return min(max((low + high - wanted) // 2, 0), size - wanted)


def cut(picture: Tensor, window: Window, side: int) -> Tensor:
    """The window of a picture (C,H,W), its edges continued outward, as (1,C,side,side); without loss where the window
    has that size."""
    height, width = picture.shape[-2:]
    rows = torch.arange(window.top, window.top + window.side).clamp(0, height - 1)
    columns = torch.arange(window.left, window.left + window.side).clamp(0, width - 1)
    part = picture[:, rows][:, :, columns][None]
    if window.side == side:
        return part
    return F.interpolate(part, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def cut_mask(mask: Tensor, window: Window, side: int) -> Tensor:
    """The window of a mask (H,W) bool as (1,1,side,side) bool: every pixel that a masked one falls into."""
    height, width = mask.shape
    whole = torch.zeros(window.side, window.side, dtype=torch.bool)
    top, left = max(window.top, 0), max(window.left, 0)
    bottom, right = min(window.top + window.side, height), min(window.left + window.side, width)
    whole[top - window.top : bottom - window.top, left - window.left : right - window.left] = mask[
        top:bottom, left:right
    ]
    return shrink_mask(whole[None, None], side)


def shrink_mask(mask: Tensor, side: int) -> Tensor:
    """A mask (B,1,H,W) bool at another side: every pixel that a masked one falls into."""
    if mask.shape[-1] >= side:
        return F.adaptive_max_pool2d(mask.float(), side) > 0.5
    return F.interpolate(mask.float(), (side, side), mode="bilinear") > 0


def paste(picture: Tensor, mask: Tensor, window: Window, made: Tensor, seamless: bool = True) -> Tensor:
    """What was made (N,3,side,side) in the masked pixels (H,W) of a picture (3,H,W): (N,3,H,W), all else copied.

    seamless: bring what was made to the colours around it near the rim of the mask (`meet`).
    """
    height, width = picture.shape[-2:]
    made = made.to(picture)
    if made.shape[-1] != window.side:
        made = F.interpolate(made, (window.side, window.side), mode="bicubic", antialias=True).clamp(0, 1)
    top, left = max(window.top, 0), max(window.left, 0)
    bottom, right = min(window.top + window.side, height), min(window.left + window.side, width)
    part = made[:, :, top - window.top : bottom - window.top, left - window.left : right - window.left]
    inside, known = mask[top:bottom, left:right], picture[:, top:bottom, left:right]
    if seamless:
        part = meet(part, known, inside, window.side / RIM)
    whole = picture.expand(len(made), -1, -1, -1).clone()
    whole[:, :, top:bottom, left:right] = torch.where(inside, part, known)
    return whole


def meet(made: Tensor, picture: Tensor, inside: Tensor, width: float) -> Tensor:
    """Take out of made pictures (N,3,h,w) by how much they are off just outside of a mask (h,w), fading into it.

    A generator gives back what is around a mask in slightly other colours, which would show as a rim. The difference to
    the picture (3,h,w) is averaged over known pixels within about `width`, fully at the rim and not deep inside.
    """
    outside = (~inside).to(made)
    near = _blurred(outside[None, None], width)
    off = _blurred((picture - made) * outside, width) / near.clamp(min=0.5)
    return (made + off).clamp(0, 1)


def _blurred(values: Tensor, width: float) -> Tensor:
    """(N,C,h,w) under a Gaussian of so many pixels; what lies beyond the edge counts as 0."""
    sizes = (0.0, 0.0, width, width)
    return torch.from_numpy(ndimage.gaussian_filter(values.numpy(), sizes, mode="constant")).to(values)
