"""Compiled loops about holes: what shows in them, and where a correction may count. Importing this imports numba.

They are `projection.fill` and the gate of `renderer.compose` for one photo. Pictures are float32 (H, W, 4).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gid.rendering.cpu.frame_kernels import smoothstep
from gid.rendering.splatting.vectors import compiled

Array = np.ndarray[Any, Any]

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_FAINT = np.float32(0.02)
_TINY = np.float32(1e-12)


@compiled
def _halved(fine: Array) -> Array:
    height, width = fine.shape[0], fine.shape[1]
    coarse = np.empty(((height + 1) // 2, (width + 1) // 2, 4), np.float32)
    for y in range(coarse.shape[0]):
        last_row = min(2 * y + 1, height - 1)
        for x in range(coarse.shape[1]):
            last_column = min(2 * x + 1, width - 1)
            # A cell cut off by the edge is the mean of what is left of it, which repeating gives as well.
            for c in range(4):
                coarse[y, x, c] = np.float32(0.25) * (
                    fine[2 * y, 2 * x, c]
                    + fine[2 * y, last_column, c]
                    + fine[last_row, 2 * x, c]
                    + fine[last_row, last_column, c]
                )
    return coarse


@compiled
def _add_coarser(fine: Array, coarse: Array) -> None:
    """Add a faint share of the next coarser level, bilinearly: decisive in holes, invisible elsewhere."""
    height, width = fine.shape[0], fine.shape[1]
    coarse_height, coarse_width = coarse.shape[0], coarse.shape[1]
    y_scale, x_scale = np.float32(coarse_height) / np.float32(height), np.float32(coarse_width) / np.float32(width)
    for y in range(height):
        place = max((np.float32(y) + _HALF) * y_scale - _HALF, _ZERO)
        top = int(place)
        down = place - np.float32(top)
        bottom = min(top + 1, coarse_height - 1)
        for x in range(width):
            place = max((np.float32(x) + _HALF) * x_scale - _HALF, _ZERO)
            left = int(place)
            share = place - np.float32(left)
            right = min(left + 1, coarse_width - 1)
            for c in range(4):
                upper = coarse[top, left, c] + share * (coarse[top, right, c] - coarse[top, left, c])
                lower = coarse[bottom, left, c] + share * (coarse[bottom, right, c] - coarse[bottom, left, c])
                fine[y, x, c] += _FAINT * (upper + down * (lower - upper))


@compiled
def _weigh(image: Array, known: Array, weighted: Array) -> None:
    height, width = known.shape
    for y in range(height):
        for x in range(width):
            weight = known[y, x]
            for c in range(3):
                weighted[y, x, c] = image[y, x, c] * weight
            weighted[y, x, 3] = weight


@compiled
def _unweigh(weighted: Array) -> None:
    height, width = weighted.shape[0], weighted.shape[1]
    for y in range(height):
        for x in range(width):
            scale = _ONE / max(weighted[y, x, 3], _TINY)
            for c in range(3):
                weighted[y, x, c] *= scale


def fill(image: Array, known: Array, levels: int, filled: Array) -> None:
    """`projection.fill` of a picture (H, W, 4) into ``filled``."""
    _weigh(image, known, filled)
    pyramid = [filled]
    while len(pyramid) <= levels and min(pyramid[-1].shape[:2]) >= 2:
        pyramid.append(_halved(pyramid[-1]))
    for fine, coarse in zip(pyramid[-2::-1], pyramid[:0:-1], strict=True):
        _add_coarser(fine, coarse)
    _unweigh(filled)


@compiled
def open_gate(hole: Array, seam: Array, still: Array, side: int, gate: Array, wanted: Array) -> bool:
    """How far a correction may count, (H, W), and the tiles of ``side`` pixels where it does so for a moving pixel.

    The defect, a hole or a seam, spreads by a maximum over 5 x 5 and a mean over 3 x 3 pixels. False if there is none.
    """
    height, width = hole.shape
    spread, across = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    present = np.zeros(height, np.uint8)
    anything = False
    for y in range(height):
        for x in range(width):
            shared = min(np.float32(4) * seam[y, x] * (_ONE - seam[y, x]), _ONE)
            defect = max(hole[y, x], shared)
            if defect > _ZERO:
                anything = True
                present[y] = 1
                for column in range(max(x - 2, 0), min(x + 3, width)):
                    across[y, column] = max(across[y, column], defect)
    gate.fill(_ZERO)
    wanted.fill(0)
    if not anything:
        return False
    reached = np.zeros(height, np.uint8)
    for y in range(height):
        if present[y]:
            for row in range(max(y - 2, 0), min(y + 3, height)):
                reached[row] = 1
                for x in range(width):
                    spread[row, x] = max(spread[row, x], across[y, x])
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        if not (reached[above] or reached[y] or reached[below]):
            continue
        for x in range(width):
            first, last = max(x - 1, 0), min(x + 1, width - 1)
            total = _ZERO
            for row in range(above, below + 1):
                for column in range(first, last + 1):
                    total += spread[row, column]
            if total > _ZERO:
                mean = total / np.float32((below + 1 - above) * (last + 1 - first))
                gate[y, x] = smoothstep(_ZERO, _HALF, mean)
                if not still[y, x]:
                    wanted[y // side, x // side] = 1
    return True
