"""Compiled loops that draw moving layers as meshes over a plate. Importing this imports numba.

A mesh is drawn triangle by triangle, far to near, each over what is there: a pixel takes its colour from where the
triangle says it came from, so however far a mesh is stretched it has no pinholes, and neighbours on one surface stay
neighbours. Edges are decided in whole numbers, so that triangles side by side neither overlap nor leave a gap.
Pictures are float32 (H, W, 4), colours premultiplied by the fourth channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gid.rendering.cpu.frame_kernels import cubic_weights, mirrored
from gid.rendering.splatting.vectors import bicubic_4, compiled

Array = np.ndarray[Any, Any]

SUBPIXELS = 1024  # vertices lie on this fraction of a pixel
_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled
def displace(field: Array, cells: Array, weights: Array, width: int, height: int, out: Array) -> bool:
    """Displacements (V, 2) in pixels of points: the field (2, h, w), in fractions, at four cells each.

    cells (V, 4): flat numbers of cells; weights (V, 4), in which the share that a point makes of its motion is
    included. Returns whether anything moves.
    """
    flat = field.reshape(2, -1)
    anything = False
    for i in range(len(cells)):
        for c in range(2):
            value = _ZERO
            for k in range(4):
                value += weights[i, k] * flat[c, cells[i, k]]
            value *= np.float32(width) if c == 0 else np.float32(height)
            # A displacement that is not a number, or absurd, would break the drawing of everything else.
            if not abs(value) < np.float32(1e5):
                value = _ZERO
            out[i, c] = value
            if value != _ZERO:
                anything = True
    return anything


@compiled
def scatter(values: Array, where: Array, flow: Array) -> None:
    """flow (2, H, W) = values (n, 2) at the flat numbers ``where`` (n,) of its pixels."""
    flat = flow.reshape(2, -1)
    for i in range(len(where)):
        flat[0, where[i]], flat[1, where[i]] = values[i, 0], values[i, 1]


@compiled
def _look_up(flat: Array, height: int, width: int, pad: int, x: np.float32, y: np.float32, out: Array) -> None:
    """``out[:4]`` = the picture at (x, y), bicubic, mirrored at its edges; flat has ``pad`` mirrored pixels around."""
    left, top = np.floor(x), np.floor(y)
    across, down = cubic_weights(x - left), cubic_weights(y - top)
    column, row = int(left) - 1 + pad, int(top) - 1 + pad
    pitch = width + 2 * pad
    if column >= 0 and column + 3 < pitch and row >= 0 and row + 3 < height + 2 * pad:
        bicubic_4(out, 0, flat, (row * pitch + column) * 4, pitch * 4, across, down)
        return
    for c in range(4):
        out[c] = _ZERO
    for i in range(4):
        source_row = mirrored(row - pad + i, height) + pad
        for j in range(4):
            at = (source_row * pitch + mirrored(column - pad + j, width) + pad) * 4
            for c in range(4):
                out[c] += down[i] * across[j] * flat[at + c]


@compiled
def _owned(labels: Array, x: np.float32, y: np.float32, wanted: int) -> np.float32:
    """How much of the picture at (x, y) belongs to a segment: the bilinear share of its label."""
    height, width = labels.shape
    left, top = int(np.floor(x)), int(np.floor(y))
    u, v = x - np.float32(left), y - np.float32(top)
    share = _ZERO
    for i in range(2):
        row = min(max(top + i, 0), height - 1)
        for j in range(2):
            column = min(max(left + j, 0), width - 1)
            if labels[row, column] == wanted:
                share += (u if j else _ONE - u) * (v if i else _ONE - v)
    return share


@compiled
def _edge(ax: int, ay: int, bx: int, by: int, px: int, py: int) -> int:
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax)


@compiled
def _included(ax: int, ay: int, bx: int, by: int) -> int:
    """0 for an edge whose own pixels belong to the triangle (upper or left one), -1 for one whose do not."""
    return 0 if (ay == by and bx > ax) or by < ay else -1


@compiled
def draw(
    places: Array,
    moved: Array,
    triangles: Array,
    segments: Array,
    reach: int,
    wide: Array,
    pad: int,
    labels: Array,
    frame: Array,
    touched: Array,
) -> None:
    """Draw a mesh over a frame (H, W, 4), whose fourth channel stays 1, and mark every pixel it touches.

    A triangle with an edge longer than ``reach`` pixels is torn: what it joined has parted, and it is left out.

    places, moved (V, 2): vertices at rest and their displacement, pixels. triangles (T, 3), far to near; segments (T,)
    says which segment each draws, -1 for all of them. wide (H + 2 pad, W + 2 pad, 4): the layer with mirrored borders.
    labels (H, W): the segment of each pixel. Triangles that do not move are drawn too, as the layer itself is.
    """
    height, width = touched.shape
    flat, colour = wide.reshape(-1), np.empty(4, np.float32)
    scale = np.float64(SUBPIXELS)
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        moves = False
        for i in range(3):
            corner = triangles[t, i]
            moves = moves or moved[corner, 0] != _ZERO or moved[corner, 1] != _ZERO
        ax, ay = int(np.rint((places[a, 0] + moved[a, 0]) * scale)), int(np.rint((places[a, 1] + moved[a, 1]) * scale))
        bx, by = int(np.rint((places[b, 0] + moved[b, 0]) * scale)), int(np.rint((places[b, 1] + moved[b, 1]) * scale))
        cx, cy = int(np.rint((places[c, 0] + moved[c, 0]) * scale)), int(np.rint((places[c, 1] + moved[c, 1]) * scale))
        area = _edge(ax, ay, bx, by, cx, cy)
        if area == 0:
            continue
        if area < 0:
            b, c, bx, by, cx, cy = c, b, cx, cy, bx, by
            area = -area
        limit = reach * SUBPIXELS
        if max(ax, bx, cx) - min(ax, bx, cx) > limit or max(ay, by, cy) - min(ay, by, cy) > limit:
            continue
        left = max(-((-min(ax, bx, cx)) // SUBPIXELS), 0)
        right = min(max(ax, bx, cx) // SUBPIXELS, width - 1)
        top = max(-((-min(ay, by, cy)) // SUBPIXELS), 0)
        bottom = min(max(ay, by, cy) // SUBPIXELS, height - 1)
        in_a, in_b, in_c = _included(bx, by, cx, cy), _included(cx, cy, ax, ay), _included(ax, ay, bx, by)
        inverse = 1.0 / np.float64(area)
        wanted = segments[t]
        for y in range(top, bottom + 1):
            py = y * SUBPIXELS
            for x in range(left, right + 1):
                px = x * SUBPIXELS
                wa = _edge(bx, by, cx, cy, px, py)
                wb = _edge(cx, cy, ax, ay, px, py)
                wc = _edge(ax, ay, bx, by, px, py)
                if wa + in_a < 0 or wb + in_b < 0 or wc + in_c < 0:
                    continue
                if moves:
                    fa, fb, fc = np.float64(wa) * inverse, np.float64(wb) * inverse, np.float64(wc) * inverse
                    sx = np.float32(fa * places[a, 0] + fb * places[b, 0] + fc * places[c, 0])
                    sy = np.float32(fa * places[a, 1] + fb * places[b, 1] + fc * places[c, 1])
                else:
                    sx, sy = np.float32(x), np.float32(y)
                share = _ONE if wanted < 0 else _owned(labels, sx, sy, wanted)
                if share == _ZERO:
                    continue
                if moves:
                    _look_up(flat, height, width, pad, sx, sy, colour)
                else:
                    at = ((y + pad) * (width + 2 * pad) + x + pad) * 4
                    for k in range(4):
                        colour[k] = flat[at + k]
                alpha = min(max(colour[3], _ZERO), _ONE)
                if alpha == _ZERO:
                    continue
                if moves:
                    touched[y, x] = 1
                for k in range(3):
                    value = min(max(colour[k], _ZERO), alpha)
                    frame[y, x, k] += share * (value - alpha * frame[y, x, k])


@compiled
def left_behind(cells: Array, moved: Array, corners: Array, step: int, alpha: Array, touched: Array) -> None:
    """Mark the pixels of an object's cells that move away. cells (n, 2): columns and rows of a grid of ``step`` pixels;
    corners (n, 4): their vertices. alpha (H, W): nothing is left behind where it is 0."""
    height, width = touched.shape
    for i in range(len(cells)):
        moves = False
        for j in range(4):
            vertex = corners[i, j]
            moves = moves or moved[vertex, 0] != _ZERO or moved[vertex, 1] != _ZERO
        if moves:
            for y in range(max(cells[i, 1] * step, 0), min((cells[i, 1] + 1) * step + 1, height)):
                for x in range(max(cells[i, 0] * step, 0), min((cells[i, 0] + 1) * step + 1, width)):
                    if alpha[y, x] > _ZERO:
                        touched[y, x] = 1


@compiled
def finish(
    photo: Array, plate: Array, alpha: Array, base: Array, composed: Array, touched: Array, frame: Array
) -> None:
    """The frame (3, H, W): what was composed (H, W, 4) over the base (3, H, W); the photo's own pixels where no object
    moves and the base is the plate (pictures (H, W, 4))."""
    height, width = touched.shape
    for y in range(height):
        for x in range(width):
            still = not touched[y, x]
            for c in range(3):
                still = still and base[c, y, x] == plate[y, x, c]
            for c in range(3):
                value = (
                    photo[y, x, c]
                    if still
                    else (base[c, y, x] if alpha[y, x] == _ZERO and not touched[y, x] else composed[y, x, c])
                )
                frame[c, y, x] = min(max(value, _ZERO), _ONE)
