"""Motion energy of a clip, with how far it can be believed: what the motion map is trained on and judged by.

Flow from the start frame to others, each frame's median taken out, root mean square over time. It is cruder than
`gid.motion.flow.measure`, fills nothing in and needs no rules, so that it means the same for every clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Frames = NDArray[np.uint8]

GRID = (64, 36)
LONG_SIDE = 512
TEXTURE = 1.5
# Displacements, in pixels of a picture at most 512 wide or high, for which what would be seen is tabulated.
LEAST_SHAKE = 0.0875
SHAKES = tuple(LEAST_SHAKE * 2.0**k for k in range(9))
# Blurs narrower than this, in pixels, are what the slope says: the picture's samples are no closer.
NARROW = 0.8


def to_grid(values: Floats, grid: tuple[int, int] = GRID) -> Floats:
    """(H, W) averaged to `grid` (width, height)."""
    return np.asarray(cv2.resize(np.ascontiguousarray(values, np.float32), grid, interpolation=cv2.INTER_AREA))


def texture_confidence(photo: Frames, grid: tuple[int, int] = GRID) -> Floats:
    """How far flow can be believed, (h, w) in [0, 1]: g^2 / (g^2 + 1.5^2), g the mean gradient at 512 x 288.

    Args:
        photo: (H, W, 3) uint8 RGB.
        grid: (width, height) of the map.
    """
    size = (LONG_SIDE, LONG_SIDE * 9 // 16)
    grey = cv2.cvtColor(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(np.float32)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(grey, cv2.CV_32F, 0, 1) / 8)
    gradient = cv2.GaussianBlur(to_grid(slope, grid), (0, 0), 0.7)
    return np.asarray(gradient**2 / (gradient**2 + TEXTURE**2), np.float32)


def motion_energy(frames: Frames, start: int = 0, every: int = 1, grid: tuple[int, int] = GRID) -> Floats:
    """Root mean square displacement about the mean, (h, w) in pixels of a picture at most 512 wide or high.

    Args:
        frames: (N, H, W, 3) uint8 RGB.
        start: the frame that displacements start from; of all others every `every`-th is looked at, in order.
        every: 1 is exact, 4 nearly so and four times as fast.
        grid: (width, height) of the map.

    Raises:
        ValueError: fewer than 2 frames, or a start outside them.
    """
    if len(frames) < 2 or not 0 <= start < len(frames) or every < 1:
        raise ValueError(
            f"{len(frames)} frames, start {start}, every {every}: give 2 frames or more, and both in range"
        )
    scale = min(1.0, LONG_SIDE / max(frames.shape[1:3]))

    def grey(frame: Frames) -> Frames:
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)

    first = grey(frames[start])
    flow = np.zeros((*first.shape, 2), np.float32)
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    path = [np.zeros((grid[1], grid[0], 2), np.float32)]
    for index in range(start % every, len(frames), every):
        if index != start:
            flow = np.asarray(method.calc(first, grey(frames[index]), flow.copy()), np.float32)
            path.append(to_grid(flow - np.median(flow.reshape(-1, 2), 0).astype(np.float32), grid))
    moving = np.stack(path)
    return np.asarray(np.sqrt(np.square(moving - moving.mean(0)).sum(-1).mean(0)), np.float32)


def brightness_of(photo: Frames) -> Floats:
    """(h, w) grey levels of a photo (H, W, 3) uint8 RGB, at most 512 wide or high, blurred by a pixel."""
    scale = min(1.0, LONG_SIDE / max(photo.shape[:2]))
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0))


def shaken(brightness: Floats, displacements: Sequence[float] = SHAKES) -> Floats:
    """What would be seen if all of a picture shook: the standard deviation of brightness over time at each pixel.

    Displacements are taken as Gaussian, alike in all directions: small ones show the slope of brightness, large ones
    the contrast of the surroundings, which no motion can exceed.

    Args:
        brightness: (h, w).
        displacements: root mean square lengths in pixels, n of them.

    Returns:
        (n, h, w) in grey levels.
    """
    centred = np.asarray(brightness - brightness.mean(), np.float32)
    slope = np.hypot(cv2.Sobel(centred, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(centred, cv2.CV_32F, 0, 1) / 8)
    maps = []
    for length in displacements:
        along = length / np.sqrt(2)
        if along < NARROW:
            maps.append(along * slope)
            continue
        mean = cv2.GaussianBlur(centred, (0, 0), along)
        square = cv2.GaussianBlur(centred * centred, (0, 0), along)
        maps.append(np.sqrt(np.maximum(square - mean * mean, 0)))
    return np.asarray(np.stack(maps), np.float32)
