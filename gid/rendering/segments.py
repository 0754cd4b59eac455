"""Which parts of a photo move as one, and which lie in front: segments of its motion, found on the motion's own grid.

Two neighbouring cells hold together unless their motion differs by a good share of it. What holds together is a
segment; of two that touch and move apart, the one that moves more is nearer (paper, section 5). A segment that is
nowhere nearer than its neighbours is ground: it belongs to the plate, whatever it does.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter, median_filter
from torch import Tensor

Floats = NDArray[Any]  # float32
Labels = NDArray[Any]  # int32

APART = 0.4  # segments part if, along their border, motion differs by this share of the larger one's
LEAST = 0.12  # and by this share of the photo's strongest motion
SLOPE = 0.08  # of neighbours, below which there is no edge however much the cells around them differ
NEARER = 1.25  # a segment lies over another if it moves this many times as much
BORDER = 0.35  # and this share of its border is with such
LONE = 6.0  # times what is typical around it, for a lone peak
SMALL = 3  # cells about a lone peak
FREE = 0.65  # and this share with ground
LARGE = 40  # cells, or a lone peak
ROUGH = 0.07  # mean difference of neighbouring cells inside an object, at most: its mesh is smooth
SOFT = 2  # cells over which a border of motion is soft
ALIKE = 0.1  # a cell near a border moves with its segment if it differs by less than this share
MOST = 200  # segments that are drawn apart


@dataclass(frozen=True)
class Segments:
    """Segments of a motion grid (h, w).

    Attributes:
        labels: (h, w) from 0; 0 is the ground.
        strength: (S,) mean amplitude of each, in pixels of the photo; 0 for the ground.
        sure: (h, w) cells whose motion is that of their segment, not blurred with a neighbour's.
    """

    labels: Labels
    strength: Floats
    sure: NDArray[np.bool_]


def find_segments(coefficients: Tensor, width: int, height: int) -> Segments:
    """Segments of a spectral volume's coefficients (K, 2, h, w) complex, for a photo of width x height pixels."""
    shapes = _shapes(coefficients, width, height)
    amplitude = np.sqrt(np.square(shapes).sum(-1))
    if not amplitude.max() > 0:
        empty = np.zeros(amplitude.shape, np.int32)
        return Segments(empty, np.zeros(1, np.float32), np.ones(amplitude.shape, bool))
    regions = _regions(*_contrasts(shapes, amplitude))
    kept, sure = _kept(regions, amplitude)
    labels, strength = _ordered(kept, sure, amplitude, _roughness(kept, sure, shapes, amplitude))
    return Segments(labels[0], strength, _own(*labels, shapes))


def _shapes(coefficients: Tensor, width: int, height: int) -> Floats:
    """(h, w, D): every moving band's coefficients in pixels."""
    moving = coefficients[1:].detach().cpu().numpy()
    scaled = moving * np.array([width, height], np.float32)[None, :, None, None]
    parts = np.concatenate([scaled.real, scaled.imag], 1)
    return np.ascontiguousarray(parts.reshape(-1, *parts.shape[2:]).transpose(1, 2, 0).astype(np.float32))


def _contrasts(shapes: Floats, amplitude: Floats) -> tuple[Floats, Floats]:
    """How much the motion on both sides of a border between cells differs, as a share of the larger one's.

    Edges of a predicted motion are soft, so a border is also looked at from one cell further away on both sides.

    Returns:
        (h, w - 1) sideways and (h - 1, w) downwards.
    """
    floor = LEAST * float(np.quantile(amplitude, 0.99))

    def differences(x: Floats, size: Floats) -> Floats:
        narrow = _relative(x[1:], x[:-1], size[1:], size[:-1], floor)
        wide = np.pad(x, ((1, 1), (0, 0), (0, 0)), mode="edge"), np.pad(size, ((1, 1), (0, 0)), mode="edge")
        broad = _relative(wide[0][3:], wide[0][:-3], wide[1][3:], wide[1][:-3], floor)
        # Beside a sharp edge the broad look meets it too, where nothing parts.
        sloped = _relative(x[1:], x[:-1], size[1:], size[:-1], 0.0) > SLOPE
        return np.where(sloped, np.maximum(narrow, broad), narrow)

    sideways = differences(shapes.transpose(1, 0, 2), amplitude.T).T
    return np.ascontiguousarray(sideways), differences(shapes, amplitude)


def _relative(one: Floats, other: Floats, a: Floats, b: Floats, floor: float) -> Floats:
    difference = np.sqrt(np.square(one - other).sum(-1))
    return np.where(difference > floor, difference / np.maximum(np.maximum(a, b), 1e-12), 0).astype(np.float32)


def _regions(sideways: Floats, downwards: Floats) -> Labels:
    """Cells joined, the two regions of least contrast along their common border first, up to `APART`.

    The mean along the whole border counts: where a stem leads from a blossom into the grass, motion fades without any
    step, and chains of neighbours that are alike would tie everything together.
    """
    height, width = sideways.shape[0], downwards.shape[1]
    cells = np.arange(height * width).reshape(height, width)
    pairs = np.concatenate(
        [
            np.stack([cells[:, :-1].ravel(), cells[:, 1:].ravel()], 1),
            np.stack([cells[:-1].ravel(), cells[1:].ravel()], 1),
        ]
    )
    contrast = np.concatenate([sideways.ravel(), downwards.ravel()]).astype(float)
    around: list[dict[int, tuple[float, float]]] = [{} for _ in range(cells.size)]
    for (one, other), value in zip(pairs.tolist(), contrast.tolist(), strict=True):
        around[one][other] = around[other][one] = (value, 1.0)
    heap = [(value, one, other) for (one, other), value in zip(pairs.tolist(), contrast.tolist(), strict=True)]
    heap = [entry for entry in heap if entry[0] < APART]
    heapq.heapify(heap)
    parent = np.arange(cells.size)
    alive = [True] * cells.size
    while heap:
        value, one, other = heapq.heappop(heap)
        if not (alive[one] and alive[other]):
            continue
        total, length = around[one].get(other, (0.0, 0.0))
        if length == 0 or total / length != value:
            continue
        if len(around[one]) < len(around[other]):
            one, other = other, one
        alive[other] = False
        parent[other] = one
        del around[one][other]
        del around[other][one]
        for third, (more, longer) in around[other].items():
            total, length = around[one].get(third, (0.0, 0.0))
            joined = (total + more, length + longer)
            around[one][third] = around[third][one] = joined
            del around[third][other]
            if joined[0] / joined[1] < APART:
                heapq.heappush(heap, (joined[0] / joined[1], one, third))
        around[other] = {}
    while True:
        above = parent[parent]
        if (above == parent).all():
            break
        parent = above
    return np.unique(parent, return_inverse=True)[1].reshape(height, width).astype(np.int32)


def _borders(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (n, 2) of segments that touch, and how many sides of cells (n,) they share."""
    pairs = np.concatenate(
        [
            np.stack([labels[:, 1:].ravel(), labels[:, :-1].ravel()], 1),
            np.stack([labels[1:].ravel(), labels[:-1].ravel()], 1),
        ]
    )
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    return unique.astype(np.int64).reshape(-1, 2), counts.astype(np.int64)


def _means(labels: Labels, amplitude: Floats) -> tuple[NDArray[np.int64], Floats]:
    sizes = np.bincount(labels.ravel())
    return sizes, (np.bincount(labels.ravel(), amplitude.ravel()) / np.maximum(sizes, 1)).astype(np.float32)


def _kept(regions: Labels, amplitude: Floats) -> tuple[Labels, NDArray[np.bool_]]:
    """Regions that are something: wide ones, and thin ones that move more than all around them.

    The soft edge of a predicted motion falls into thin regions of its own. Their cells are nobody's: they are given to
    the nearest region, and the photo decides.

    Returns:
        regions, and the cells that were not given away.
    """
    sizes = np.bincount(regions.ravel())
    wide = np.bincount(regions.ravel(), _alone(regions).ravel()) > 0
    top = np.zeros(len(sizes), bool)
    top[np.unique(regions[_peaks(amplitude)])] = True
    keep = wide | top
    if keep.sum() > MOST:
        keep &= sizes >= np.sort(sizes[keep])[-MOST]
    if not keep.any():
        keep[sizes.argmax()] = True
    sure = keep[regions]
    rows, columns = nearest_cells(sure)
    return np.unique(regions[rows, columns], return_inverse=True)[1].reshape(regions.shape).astype(np.int32), sure


def _peaks(amplitude: Floats) -> NDArray[np.bool_]:
    """Cells that move most of all around them, and far more than what lies a little further away: flames, buds."""
    least = LEAST * float(np.quantile(amplitude, 0.99))
    highest = maximum_filter(amplitude, 2 * SMALL + 1, mode="nearest")
    typical = median_filter(amplitude, 4 * SMALL + 1, mode="nearest")
    return np.asarray((amplitude == highest) & (amplitude > least) & (amplitude > LONE * typical))


def _roughness(labels: Labels, sure: NDArray[np.bool_], shapes: Floats, amplitude: Floats) -> Floats:
    """(S,) mean difference of neighbouring cells inside each segment, as a share of their motion; 1 for lone cells."""
    total, count = np.zeros(int(labels.max()) + 1), np.zeros(int(labels.max()) + 1)
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        inside = (labels[one] == labels[other]) & sure[one] & sure[other]
        difference = _relative(shapes[one], shapes[other], amplitude[one], amplitude[other], 0.0)
        total += np.bincount(labels[one][inside], difference[inside], len(total))
        count += np.bincount(labels[one][inside], minlength=len(count))
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def _ordered(
    labels: Labels, sure: NDArray[np.bool_], amplitude: Floats, rough: Floats
) -> tuple[tuple[Labels, NDArray[np.bool_]], Floats]:
    """Ground becomes 0; the others are numbered from the farthest to the nearest."""
    means = _means(labels[sure], amplitude[sure])[1]
    whole, above = np.zeros(len(means)), np.zeros(len(means))
    for (one, other), length in zip(*_borders(labels), strict=True):
        whole[[one, other]] += length
        high, low = (one, other) if means[one] > means[other] else (other, one)
        if means[high] > NEARER * means[low]:
            above[high] += length
    over = above > BORDER * np.maximum(whole, 1)
    # Where leaf lies on leaf, a layer would hide what the finer drawing of the ground shows: it takes what stands free.
    free = np.zeros(len(means))
    for (one, other), length in zip(*_borders(labels), strict=True):
        free[one] += length * (not over[other])
        free[other] += length * (not over[one])
    # Small parts of something dense, and what is not one thing, are better left to the finer drawing of the ground.
    peaks = np.zeros(len(means), bool)
    peaks[np.unique(labels[_peaks(amplitude)])] = True
    whole_things = (np.bincount(labels.ravel()) >= LARGE) & (rough < ROUGH) & (free > FREE * np.maximum(whole, 1))
    over &= whole_things | peaks
    order = np.argsort(means[over], kind="stable")
    numbers = np.zeros(len(means), np.int32)
    numbers[np.flatnonzero(over)[order]] = np.arange(1, over.sum() + 1)
    strength = np.concatenate([[0.0], means[over][order]]).astype(np.float32)
    return (numbers[labels], sure), strength


def _alone(labels: Labels) -> NDArray[np.bool_]:
    """Cells whose four neighbours are of their own segment; beyond the grid is as at its edge."""
    same = np.ones(labels.shape, bool)
    sideways, downwards = labels[:, 1:] == labels[:, :-1], labels[1:] == labels[:-1]
    same[:, 1:] &= sideways
    same[:, :-1] &= sideways
    same[1:] &= downwards
    same[:-1] &= downwards
    return same


def _inside(labels: Labels, sure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells whose motion is nobody else's: away from objects on the ground, away from its border in an object.

    Within `SOFT` cells of a border, motion may be a mixture, unless the region is sure.
    """
    distance = np.zeros(labels.shape)
    for label in np.unique(labels):
        # Beyond the grid it is as at its edge.
        padded = np.pad(labels == label, SOFT + 1, mode="edge")
        inner = distance_transform_edt(padded)[SOFT + 1 : -SOFT - 1, SOFT + 1 : -SOFT - 1]
        distance = np.where(labels == label, inner, distance)
    same = (distance > SOFT) | (sure & (labels > 0) & (distance > 1))
    has = np.bincount(labels.ravel(), same.ravel()) > 0
    return same | (sure & ~has[labels])


def _own(labels: Labels, sure: NDArray[np.bool_], shapes: Floats) -> NDArray[np.bool_]:
    """Cells well inside their segment, and those near its border that move as the nearest of these does."""
    inside = _inside(labels, sure)
    result = inside.copy()
    size = np.linalg.norm(shapes, axis=-1)
    for label in np.unique(labels):
        own = labels == label
        rows, columns = nearest_cells(own & inside)
        difference = np.linalg.norm(shapes - shapes[rows, columns], axis=-1)
        alike = difference < ALIKE * np.maximum(size, size[rows, columns])
        result |= own & alike
    return result


def nearest_cells(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(2, h, w): row and column of the cell of the mask that is nearest to each cell."""
    return np.asarray(distance_transform_edt(~mask, return_distances=False, return_indices=True), np.int64)
