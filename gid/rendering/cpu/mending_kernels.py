"""Compiled loops around the decoder: splat features, cut regions, lay the correction over the picture. Imports numba.

They are `Renderer.mend` without its network, for one photo and no gradients, and only in the regions to be decoded.
Regions are rows (y, x, height, width) in pixels of the picture and may reach over its edges, where everything is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gid.rendering.splatting.kernels import land, spread_row
from gid.rendering.splatting.vectors import LANES, compiled

Array = np.ndarray[Any, Any]

_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_MOST = np.float32(16)
_FLOOR = np.float32(0.02)


@compiled
def halved_flow(flow: Array, coarse: Array) -> None:
    """Flow (2, h, w) -> (2, H, W) at half the size, in its own pixels; edges repeat where it reaches beyond."""
    height, width = flow.shape[1], flow.shape[2]
    for axis in range(2):
        for y in range(coarse.shape[1]):
            upper, lower = min(2 * y, height - 1), min(2 * y + 1, height - 1)
            for x in range(coarse.shape[2]):
                left, right = min(2 * x, width - 1), min(2 * x + 1, width - 1)
                total = flow[axis, upper, left] + flow[axis, upper, right]
                total += flow[axis, lower, left] + flow[axis, lower, right]
                coarse[axis, y, x] = np.float32(0.125) * total


@compiled
def mark(regions: Array, scale: int, mask: Array) -> None:
    """Set mask (h + 2, w + 2) where a pixel's upper left corner may lie to reach a region at 1/scale."""
    mask.fill(0)
    height, width = mask.shape[0] - 2, mask.shape[1] - 2
    for number in range(len(regions)):
        y, x = regions[number, 0] // scale, regions[number, 1] // scale
        bottom, right = y + regions[number, 2] // scale, x + regions[number, 3] // scale
        for row in range(max(y, 0), min(bottom, height) + 1):
            for column in range(max(x, 0), min(right, width) + 1):
                mask[row, column] = 1


@compiled
def splat_features(features: Array, weight: Array, flow: Array, mask: Array, total: Array) -> None:
    """Bilinear sums of weighted features (n, h, w, 8) where ``mask`` is set: n groups of channels, 1 among them.

    total (n, h + 2, w + 2, 8), with a border of one pixel, arrives zeroed.
    """
    groups, height, width = features.shape[0], features.shape[1], features.shape[2]
    corner = np.empty(width, np.int32)
    right, low = np.empty(width, np.float32), np.empty(width, np.float32)
    wanted = mask.reshape(-1)
    begin, edge = np.int64(0), np.int64(-1)
    for y in range(height):
        if not land(flow[0, y], flow[1, y], begin, y, (edge, edge, width + 2, height + 2), corner, right, low):
            continue
        for x in range(width):
            if corner[x] >= 0 and not wanted[corner[x]]:
                corner[x] = np.int32(-1)
        for group in range(groups):
            values, sums = features[group, y].reshape(-1), total[group].reshape(-1)
            spread_row(values, corner, right, low, weight[y], width + 2, sums)


@compiled
def cut_features(total: Array, regions: Array, scale: int, out: Array) -> None:
    """Splatted features of every region (n, h, w, C + 1): means, and 1 where anything landed."""
    height, width = total.shape[1] - 2, total.shape[2] - 2
    channels = out.shape[3] - 1
    for number in range(len(regions)):
        first_row, first_column = regions[number, 0] // scale, regions[number, 1] // scale
        for i in range(out.shape[1]):
            y = first_row + i
            for j in range(out.shape[2]):
                x = first_column + j
                inside = y >= 0 and y < height and x >= 0 and x < width
                landed = total[channels // LANES, y + 1, x + 1, channels % LANES] if inside else _ZERO
                scaling = _ONE / landed if landed != _ZERO else _ZERO
                pixel = out[number, i, j]
                if scaling == _ZERO:
                    pixel.fill(_ZERO)
                else:
                    for c in range(channels):
                        pixel[c] = total[c // LANES, y + 1, x + 1, c % LANES] * scaling
                    pixel[channels] = _ONE


@compiled
def cut_pictures(
    sharp: Array,
    filled: Array,
    hole: Array,
    seam: Array,
    importance: Array,
    padded_height: int,
    padded_width: int,
    regions: Array,
    out: Array,
) -> None:
    """The decoder's maps of every region, 2 x 2 pixels side by side: (n, h, w, 36).

    Pictures (H, W, 4) count from -1 to 1; importance is in pixels. Edges repeat up to the padded size.
    """
    height, width = hole.shape
    for number in range(len(regions)):
        for i in range(2 * out.shape[1]):
            y = regions[number, 0] + i
            for j in range(2 * out.shape[2]):
                x = regions[number, 1] + j
                pixel = out[number, i // 2, j // 2]
                offset = 2 * (i & 1) + (j & 1)
                if y < 0 or y >= padded_height or x < 0 or x >= padded_width:
                    for c in range(9):
                        pixel[4 * c + offset] = _ZERO
                    continue
                row, column = min(y, height - 1), min(x, width - 1)
                gap = hole[row, column]
                for c in range(3):
                    front, back = sharp[row, column, c], filled[row, column, c]
                    pixel[4 * c + offset] = (front + gap * (back - front)) * _TWO - _ONE
                    pixel[4 * (c + 3) + offset] = back * _TWO - _ONE
                pixel[24 + offset] = gap
                pixel[28 + offset] = seam[row, column]
                pixel[32 + offset] = min(importance[row, column], _MOST) / np.float32(8)


@compiled
def finish(
    photo: Array, sharp: Array, filled: Array, hole: Array, still: Array, low: Array, high: Array, frame: Array
) -> None:
    """Write the frame (3, H, W) before mending: the photo (H, W, 4), and the composed picture where anything moved."""
    height, width = hole.shape
    for y in range(height):
        for x in range(width):
            for c in range(3):
                frame[c, y, x] = photo[y, x, c]
        for x in range(low[y], high[y]):
            if still[y, x]:
                continue
            gap = hole[y, x]
            for c in range(3):
                front = sharp[y, x, c]
                frame[c, y, x] = front + gap * (filled[y, x, c] - front) if gap != _ZERO else front


@compiled
def _logistic(x: np.float32) -> np.float32:
    return _ONE / (_ONE + np.exp(-x))


@compiled
def mend(
    decoded: Array,
    regions: Array,
    halo: int,
    sharp: Array,
    filled: Array,
    hole: Array,
    still: Array,
    gate: Array,
    frame: Array,
) -> None:
    """Correct the frame (3, H, W) by what was decoded (n, 4, h, w), but for the outer ``halo`` pixels of a region."""
    height, width = hole.shape
    for number in range(len(regions)):
        for i in range(halo, decoded.shape[2] - halo):
            y = regions[number, 0] + i
            if y < 0 or y >= height:
                continue
            for j in range(halo, decoded.shape[3] - halo):
                x = regions[number, 1] + j
                if x < 0 or x >= width or still[y, x] or gate[y, x] == _ZERO:
                    continue
                # From the share that shows without training, by an additive change of its logit.
                share = min(max(hole[y, x], _FLOOR), _ONE - _FLOOR)
                base = np.log(share / (_ONE - share))
                change = _logistic(base + decoded[number, 3, i, j]) - share
                for c in range(3):
                    picture = frame[c, y, x]
                    mended = change * (filled[y, x, c] - sharp[y, x, c]) + decoded[number, c, i, j]
                    frame[c, y, x] = min(max(picture + gate[y, x] * mended, _ZERO), _ONE)
