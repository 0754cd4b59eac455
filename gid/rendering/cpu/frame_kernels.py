"""Compiled loops that draw one frame on the CPU: motion, projection, look-up. Importing this imports numba.

They are `projection.py` and `renderer.compose` for one photo, one thread and no gradients, pixel by pixel instead of
map by map, and only where something moves. `cpu_frames.py` calls them; tests hold them against the torch versions.

Maps are float32 (H, W); pictures are interleaved (H, W, 4) with an idle fourth channel. ``low`` and ``high`` (H,) give
the columns of each row that motion can touch, ``low >= high`` where there are none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gid.rendering.splatting.kernels import land, spread_row
from gid.rendering.splatting.vectors import LANES, bicubic_4, compiled

Array = np.ndarray[Any, Any]

_ZERO, _ONE = np.float32(0), np.float32(1)
_CUBIC = np.float32(-0.75)  # as torch's grid_sample
_SPARSE = np.float32(0.5)
_DENSE = np.float32(0.55)
_THIRD = np.float32(0.3)
_LEAST_KNOWN = np.float32(1e-8)


@compiled
def smoothstep(low: np.float32, high: np.float32, x: np.float32) -> np.float32:
    """0 below ``low``, 1 above ``high``, 3u^2 - 2u^3 between."""
    u = min(max((x - low) / (high - low), _ZERO), _ONE)
    return u * u * (np.float32(3) - np.float32(2) * u)


@compiled
def guided_flow(
    field: Array,
    rows: Array,
    columns: Array,
    weights: Array,
    freedom: Array,
    low: Array,
    high: Array,
    flow: Array,
) -> None:
    """Coarse displacements (2, h, w) -> flow (2, H, W) in pixels, by four weights (H, W, 4) a pixel.

    rows (2, H) and columns (2, W) are the coarse cells about each pixel; low and high bound where freedom is not 0.
    """
    height, width = freedom.shape
    x_scale, y_scale = np.float32(width), np.float32(height)
    for y in range(height):
        for x in range(width):
            flow[0, y, x] = _ZERO
            flow[1, y, x] = _ZERO
        a, b = rows[0, y], rows[1, y]
        for x in range(low[y], high[y]):
            c, d = columns[0, x], columns[1, x]
            w0, w1, w2, w3 = weights[y, x, 0], weights[y, x, 1], weights[y, x, 2], weights[y, x, 3]
            free = freedom[y, x]
            u = field[0, a, c] * w0 + field[0, a, d] * w1 + field[0, b, c] * w2 + field[0, b, d] * w3
            v = field[1, a, c] * w0 + field[1, a, d] * w1 + field[1, b, c] * w2 + field[1, b, d] * w3
            flow[0, y, x] = u * x_scale * free
            flow[1, y, x] = v * y_scale * free


@compiled
def edge_inflow(flow: Array) -> np.float32:
    """How far anything moves inwards across an edge of the picture, in pixels."""
    height, width = flow.shape[1], flow.shape[2]
    most = _ZERO
    for y in range(height):
        for inwards in (flow[0, y, 0], -flow[0, y, width - 1]):
            if np.isfinite(inwards):
                most = max(most, inwards)
    for x in range(width):
        for inwards in (flow[1, 0, x], -flow[1, height - 1, x]):
            if np.isfinite(inwards):
                most = max(most, inwards)
    return most


@compiled
def touched(flow: Array, low: Array, high: Array) -> bool:
    """Set the columns of each row from which something moves, or at which it may arrive; False if there are none."""
    height, width = flow.shape[1], flow.shape[2]
    low.fill(width)
    high.fill(0)
    anything = False
    for y in range(height):
        first, last = width, -1
        left = right = up = down = _ZERO
        for x in range(width):
            u, v = flow[0, y, x], flow[1, y, x]
            if u == _ZERO and v == _ZERO:
                continue
            first, last = min(first, x), x
            # What is not finite lands nowhere; bounds keep the conversion to integers safe.
            if abs(u) < np.float32(1e6) and abs(v) < np.float32(1e6):
                left, right = min(left, u), max(right, u)
                up, down = min(up, v), max(down, v)
        if last < 0:
            continue
        anything = True
        begin = max(0, first + int(np.floor(left)))
        end = min(width, last + int(np.floor(right)) + 2)
        for row in range(max(0, y + int(np.floor(up))), min(height, y + int(np.floor(down)) + 2)):
            low[row] = min(low[row], begin)
            high[row] = max(high[row], end)
    return anything


@compiled
def widened(low: Array, high: Array, width: int, wide_low: Array, wide_high: Array) -> None:
    """The same columns and their neighbours in all eight directions."""
    height = len(low)
    for y in range(height):
        begin, end = width, 0
        for row in range(max(y - 1, 0), min(y + 2, height)):
            begin, end = min(begin, low[row]), max(end, high[row])
        wide_low[y], wide_high[y] = max(begin - 1, 0), min(end + 1, width)
        if begin >= end:
            wide_low[y], wide_high[y] = width, 0


@compiled
def splat_layers(flow: Array, source: Array, margin: int, low: Array, high: Array, total: Array) -> None:
    """Splat the flow twice, softmax-weighted for the nearest and for the farthest layer, and unweighted sums.

    source (H, W, 4) is importance, its weight when near, its weight when far, and unused. total (2, H + 4, W + 4, 8),
    whose corner is pixel (-2, -2), gets on each pixel: near sums of flow x, y, importance and 1; the same for far; and
    in its second half importance, moving, 1. The picture goes on beyond its edges for ``margin`` pixels as it is at
    them.
    """
    height, width = flow.shape[1], flow.shape[2]
    edge = np.int64(-2)
    window = (edge, edge, width + 4, height + 4)
    layers, sums = total[0].reshape(-1), total[1].reshape(-1)
    for row in range(height + 4):
        y = min(max(row - 2, 0), height - 1)
        if low[y] < high[y] or (y > 0 and low[y - 1] < high[y - 1]) or (y + 1 < height and low[y + 1] < high[y + 1]):
            total[0, row].fill(_ZERO)
            total[1, row].fill(_ZERO)
    most = width + 2 * margin
    moves, shares = np.empty((2, most), np.float32), np.empty((2, most), np.float32)
    u, v, across, down = moves[0], moves[1], shares[0], shares[1]
    corner, ones = np.empty(most, np.int32), np.ones(most, np.float32)
    in_layers, in_sums = np.zeros(most * LANES, np.float32), np.zeros(most * LANES, np.float32)
    for y in range(-margin, height + margin):
        sy = min(max(y, 0), height - 1)
        if low[sy] >= high[sy]:
            continue
        begin = -margin if low[sy] == 0 else low[sy]
        count = (width + margin if high[sy] == width else high[sy]) - begin
        for i in range(count):
            sx = min(max(begin + i, 0), width - 1)
            u[i], v[i] = flow[0, sy, sx], flow[1, sy, sx]
        if not land(u[:count], v[:count], begin, y, window, corner, across, down):
            continue
        for i in range(count):
            sx, at = min(max(begin + i, 0), width - 1), i * LANES
            rank, near, far = source[sy, sx, 0], source[sy, sx, 1], source[sy, sx, 2]
            for offset, weight in ((0, near), (4, far)):
                in_layers[at + offset], in_layers[at + offset + 1] = u[i] * weight, v[i] * weight
                in_layers[at + offset + 2], in_layers[at + offset + 3] = rank * weight, weight
            in_sums[at], in_sums[at + 2] = rank, _ONE
            in_sums[at + 1] = _ONE if (u[i] != _ZERO or v[i] != _ZERO) else _ZERO
        spread_row(in_layers, corner[:count], across, down, ones, width + 4, layers)
        spread_row(in_sums, corner[:count], across, down, ones, width + 4, sums)


@compiled
def mirrored(index: int, size: int) -> int:
    """The index inside 0 to size - 1 that a picture mirrored about its edge pixels shows at ``index``."""
    if size == 1:
        return 0
    period = 2 * (size - 1)
    index = abs(index) % period
    return index if index < size else period - index


@compiled
def cubic_weights(t: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Weights of the four pixels about a point that lies ``t`` in [0, 1) behind the second of them."""
    a, s = _CUBIC, _ONE - t
    far = ((a * (t + _ONE) - np.float32(5) * a) * (t + _ONE) + np.float32(8) * a) * (t + _ONE) - np.float32(4) * a
    end = ((a * (s + _ONE) - np.float32(5) * a) * (s + _ONE) + np.float32(8) * a) * (s + _ONE) - np.float32(4) * a
    near = ((a + np.float32(2)) * t - (a + np.float32(3))) * t * t + _ONE
    next_one = ((a + np.float32(2)) * s - (a + np.float32(3))) * s * s + _ONE
    return far, near, next_one, end


@compiled
def _look_up(wide: Array, flat: Array, pad: int, x: np.float32, y: np.float32, out: Array, at: int) -> None:
    """``out[at : at + 4]`` = the photo at (x, y): bicubic, mirrored at its edges, clamped to [0, 1].

    wide (H + 2 pad, W + 2 pad, 4) is the photo with mirrored borders, flat the same memory.
    """
    wide_height, wide_width = wide.shape[0], wide.shape[1]
    left, top = np.floor(x), np.floor(y)
    across, down = cubic_weights(x - left), cubic_weights(y - top)
    column, row = np.int64(left) - 1 + pad, np.int64(top) - 1 + pad
    if column >= 0 and column + 3 < wide_width and row >= 0 and row + 3 < wide_height:
        bicubic_4(out, at, flat, (row * wide_width + column) * 4, wide_width * 4, across, down)
    else:
        height, width = wide_height - 2 * pad, wide_width - 2 * pad
        for c in range(4):
            out[at + c] = _ZERO
        for i in range(4):
            source_row = mirrored(row - pad + i, height) + pad
            for j in range(4):
                source_column = mirrored(column - pad + j, width) + pad
                for c in range(3):
                    out[at + c] += down[i] * across[j] * wide[source_row, source_column, c]
    for c in range(3):
        out[at + c] = min(max(out[at + c], _ZERO), _ONE)


@compiled
def _landed(sums: Array, ring: int, low: Array, high: Array, landed: Array) -> None:
    """What landed on each pixel, counted up to 1: about the given columns, and 0 beyond the picture and its ring."""
    height, width = len(low), sums.shape[1] - 4
    for row in range(1, height + 3):
        y = min(max(row - 2, 0), height - 1)
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        first = min(low[y], low[above], low[below]) + 1
        last = max(high[y], high[above], high[below]) + 2
        for column in range(first, last + 1):
            landed[row, column] = min(sums[row, column, 2], _ONE)
        if ring == 0:
            landed[row, 1], landed[row, width + 2] = _ZERO, _ZERO
            if row == 1 or row == height + 2:
                landed[row].fill(_ZERO)


@compiled
def _sum_around(maps: Array, row: int, column: int) -> np.float32:
    """Sum over 3 x 3 entries."""
    above, here, below = maps[row - 1], maps[row], maps[row + 1]
    return (
        (above[column - 1] + above[column] + above[column + 1])
        + (here[column - 1] + here[column] + here[column + 1])
        + (below[column - 1] + below[column] + below[column + 1])
    )


@compiled
def _gathered(layers: Array, y: int, x: int, ring: int, height: int, width: int, near: Array) -> None:
    """``near`` = flow x, y and importance of the nearest layer, from the pixel's whole neighbourhood."""
    near.fill(_ZERO)
    for row in range(max(y - 1, -ring), min(y + 2, height + ring)):
        for column in range(max(x - 1, -ring), min(x + 2, width + ring)):
            # Four sums lie first in every cell.
            for c in range(4):
                near[c] += layers[row + 2, column + 2, c]
    scale = _ONE / near[3] if near[3] != _ZERO else _ZERO
    for c in range(3):
        near[c] *= scale


@compiled
def compose(
    flow: Array,
    total: Array,
    ring: int,
    low: Array,
    high: Array,
    wide: Array,
    pad: int,
    still_known: Array,
    sharp: Array,
    hole: Array,
    seam: Array,
    still: Array,
    known: Array,
) -> tuple[bool, bool]:
    """From the splatted layers to a picture without its holes filled.

    wide, pad: the photo with mirrored borders. ring: 1 if pixels beyond the edges count as neighbours, else 0.
    still_known (H, W): weight of unmoved pixels when filling. Sets the picture ``sharp`` (H, W, 4), the share ``hole``
    that shows what lies behind, ``seam`` that two layers share, ``still`` (1 where the photo stays) and ``known``.

    Returns:
        whether there is any hole, and any seam.
    """
    height, width = hole.shape
    flat, out = wide.reshape(-1), sharp.reshape(-1)
    near, behind = np.empty(4, np.float32), np.empty(4, np.float32)
    landed = np.empty((height + 4, width + 4), np.float32)
    layers, sums = total[0], total[1]
    _landed(sums, ring, low, high, landed)
    any_hole = any_seam = False
    for y in range(height):
        for x in range(width):
            for c in range(4):
                sharp[y, x, c] = wide[y + pad, x + pad, c]
            hole[y, x], seam[y, x], still[y, x], known[y, x] = _ZERO, _ZERO, np.uint8(1), still_known[y, x]
        rows = np.float32(3) - (_ONE if ring == 0 and (y == 0 or y == height - 1) else _ZERO)
        for x in range(low[y], high[y]):
            cell, together = layers[y + 2, x + 2], sums[y + 2, x + 2]
            mass = together[2]
            moved = flow[0, y, x] != _ZERO or flow[1, y, x] != _ZERO or together[1] != _ZERO
            still[y, x] = np.uint8(0) if moved else np.uint8(1)
            count = np.float32(3) - (_ONE if ring == 0 and (x == 0 or x == width - 1) else _ZERO)
            density = _sum_around(landed, y + 2, x + 2) / (count * rows)
            covered = smoothstep(_THIRD, _DENSE, density) if density < _DENSE else _ONE
            scale = _ONE / cell[3] if cell[3] != _ZERO else _ZERO
            u, v, rank = cell[0] * scale, cell[1] * scale, cell[2] * scale
            scale = _ONE / cell[7] if cell[7] != _ZERO else _ZERO
            far_u, far_v, far_rank = cell[4] * scale, cell[5] * scale, cell[6] * scale
            if mass < _SPARSE:
                _gathered(layers, y, x, ring, height, width, near)
                u, v, rank = near[0], near[1], near[2]
                far_u, far_v, far_rank = u, v, rank
            spread = rank - far_rank
            shared = _ZERO
            if spread > _THIRD:
                area = (together[0] - mass * far_rank) / spread
                shared = smoothstep(_THIRD, _ONE, spread) * (_ONE - min(max(area, _ZERO), _ONE))
            at = (y * width + x) * 4
            if u != _ZERO or v != _ZERO:
                _look_up(wide, flat, pad, np.float32(x) - u, np.float32(y) - v, out, at)
            if shared > _ZERO:
                any_seam = True
                seam[y, x] = shared
                _look_up(wide, flat, pad, np.float32(x) - far_u, np.float32(y) - far_v, behind, np.int64(0))
                for c in range(3):
                    out[at + c] += shared * (behind[c] - out[at + c])
            hole[y, x] = _ONE - covered
            if covered < _ONE:
                any_hole = True
            if moved:
                weight = np.exp(np.float32(-2) * min(rank, np.float32(20)))
                known[y, x] = min(mass, _ONE) * covered * weight + _LEAST_KNOWN
    return any_hole, any_seam
