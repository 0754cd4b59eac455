"""What lies behind: a picture completed where something is taken out of it.

From coarse to fine (`cpu/completion_kernels.py`): at a size at which the hole is a few pixels wide, patches of the
known picture are fitted into it; at each finer size they are found again nearby. Known pixels stay exactly as they are.
"""

from __future__ import annotations

import importlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Floats = NDArray[Any]  # float32
Mask = NDArray[Any]  # bool

COARSEST = 24  # the shorter side of the coarsest level is at least this
NARROW = 5.0  # the coarsest level is the first on which no pixel of the hole is further from its rim than this
ROUNDS = (6, 4, 2)  # of search at the coarsest, the middle and the finest level
PASSES = (4, 2, 1)  # of search and vote there
TRUST_DEPTH = 12.0  # pixels into the hole over which made-up colours lose trust


def complete(picture: Floats, hole: Mask, source: Mask | None = None, seed: int = 0) -> Floats:
    """Fill the hole of a picture by patches of what is known.

    Args:
        picture: (H, W, 3) in [0, 1].
        hole: (H, W) True where the picture is to be made.
        source: (H, W) True where patches may be taken from; by default all that is known.
        seed: of the search.

    Returns:
        (H, W, 3); equal to ``picture`` outside the hole. Where nothing is known, or no patch fits between the holes,
        the hole is filled smoothly or, with nothing known at all, left.

    Raises:
        ValueError: for a picture and a hole of different sizes.
    """
    if picture.shape[:2] != hole.shape or picture.shape[2:] != (3,):
        raise ValueError(f"picture must be (H, W, 3) and the hole (H, W), got {picture.shape} and {hole.shape}")
    if not hole.any() or hole.all():
        return picture.copy()
    usable = ~hole if source is None else source & ~hole
    smooth = _smooth(picture, hole)
    levels = _levels(smooth, hole, usable)
    kernels: Any = importlib.import_module("gid.rendering.cpu.completion_kernels")
    state = np.array([seed + 1], np.int64)
    nearest: NDArray[np.int32] | None = None
    previous: Floats | None = None
    for number in range(len(levels) - 1, -1, -1):
        image, gap, allowed = levels[number]
        centres = _erode(allowed, kernels.RADIUS)
        if not centres.any():
            previous = None
            continue
        image = image.copy()
        if previous is not None:
            larger = cv2.resize(previous, (gap.shape[1], gap.shape[0]), interpolation=cv2.INTER_LINEAR)
            image[gap] = larger[gap]
        wanted = np.argwhere(_dilate(gap, kernels.RADIUS)).astype(np.int32)
        nearest = _places(nearest, centres, wanted, state)
        weight = _trust(gap)
        kind = 0 if number == len(levels) - 1 else (2 if number == 0 else 1)
        cost = np.full(gap.shape, np.float32(1e9))
        for _ in range(PASSES[kind]):
            kernels.search(image, weight, wanted, centres.view(np.uint8), ROUNDS[kind], state, nearest, cost)
            kernels.vote(image, gap.view(np.uint8), wanted, nearest, cost, np.float32(200.0))
        previous = image
    if previous is None:
        return smooth
    result = picture.copy()
    result[hole] = previous[hole]
    return result


def _levels(picture: Floats, hole: Mask, usable: Mask) -> list[tuple[Floats, Mask, Mask]]:
    """The picture, its hole and its usable pixels, halved until the hole is narrow."""
    levels: list[tuple[Floats, Mask, Mask]] = [(picture, hole, usable)]
    while min(levels[-1][1].shape) >= 2 * COARSEST and distance_transform_edt(levels[-1][1]).max() > NARROW:
        image, gap, allowed = levels[-1]
        size = ((gap.shape[1] + 1) // 2, (gap.shape[0] + 1) // 2)
        known = cv2.resize((~gap).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        # Known pixels alone make a half-known cell's colour; cells mostly unknown count as hole.
        total = cv2.resize(image * ~gap[..., None], size, interpolation=cv2.INTER_AREA)
        plain = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mean = np.where(known[..., None] > 0.25, total / np.maximum(known, 0.25)[..., None], plain)
        clear = cv2.resize(allowed.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
        levels.append((mean.astype(np.float32), known < 0.5, clear & (known >= 0.5)))
    return levels


def _places(
    nearest: NDArray[np.int32] | None, centres: Mask, wanted: NDArray[np.int32], state: NDArray[np.int64]
) -> NDArray[np.int32]:
    """A usable place for every wanted pixel: from the coarser level where there is one, else at random."""
    rng = np.random.default_rng(int(state[0]))
    height, width = centres.shape
    choices = np.argwhere(centres).astype(np.int32)
    places = np.full((height, width, 2), -1, np.int32)
    drawn = choices[rng.integers(0, len(choices), len(wanted))]
    if nearest is not None:
        above = nearest[
            np.minimum(wanted[:, 0] // 2, len(nearest) - 1), np.minimum(wanted[:, 1] // 2, nearest.shape[1] - 1)
        ]
        finer = 2 * above + wanted % 2
        fits = (above[:, 0] >= 0) & (finer[:, 0] < height) & (finer[:, 1] < width)
        inside = np.where(fits[:, None], finer, 0)
        fits &= centres[inside[:, 0], inside[:, 1]]
        drawn = np.where(fits[:, None], finer, drawn)
    places[wanted[:, 0], wanted[:, 1]] = drawn
    return places


def _trust(hole: Mask) -> Floats:
    """(H, W): 1 where known, less and less the deeper into the hole."""
    return np.maximum(np.exp(distance_transform_edt(hole) * (-1 / TRUST_DEPTH)), 0.05).astype(np.float32)


def _smooth(picture: Floats, hole: Mask) -> Floats:
    """The hole filled from coarse to fine by means of what is known around it (pull and push)."""
    known = (~hole).astype(np.float32)
    pyramid: list[tuple[Floats, Floats]] = [(picture * known[..., None], known)]
    while max(pyramid[-1][1].shape) > 1:
        total, mass = pyramid[-1]
        size = (max(1, total.shape[1] // 2), max(1, total.shape[0] // 2))
        pyramid.append(
            (
                cv2.resize(total, size, interpolation=cv2.INTER_AREA),
                cv2.resize(mass, size, interpolation=cv2.INTER_AREA).reshape(size[::-1]),
            )
        )
    total, mass = pyramid[-1]
    total = total.reshape(*mass.shape, 3)
    filled = total / np.maximum(mass, 1e-6)[..., None]
    for total, mass in pyramid[-2::-1]:
        larger = cv2.resize(filled, (mass.shape[1], mass.shape[0]), interpolation=cv2.INTER_LINEAR).reshape(
            *mass.shape, 3
        )
        filled = total + (1 - np.minimum(mass, 1))[..., None] * larger
    result = picture.copy()
    result[hole] = filled[hole]
    return result


def _erode(mask: Mask, radius: int) -> Mask:
    """Pixels whose square of ``radius`` lies inside the picture and the mask."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    return cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def _dilate(mask: Mask, radius: int) -> Mask:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)) > 0
