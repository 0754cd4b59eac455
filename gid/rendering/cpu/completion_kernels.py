"""Compiled loops that complete a picture behind what is taken out of it. Importing this imports numba.

The patch method of Wexler et al., "Space-Time Completion of Video" (PAMI 2007), with the search of Barnes et al.,
"PatchMatch" (SIGGRAPH 2009): every pixel to be made knows a place in the known picture whose surroundings look like
its own; places are improved by neighbours' and by random ones, and colours are the mean of what all patches say.
Pictures are float32 (H, W, 3); nearest places are int32 (H, W, 2), rows and columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gid.rendering.splatting.vectors import compiled

Array = np.ndarray[Any, Any]

RADIUS = 3
_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled
def _next_random(state: Array) -> int:
    """A 31-bit number of a linear congruential generator: the same on every machine."""
    state[0] = (state[0] * np.int64(1103515245) + np.int64(12345)) & np.int64(0x7FFFFFFF)
    return int(state[0] >> 8)


@compiled
def _distance(picture: Array, weight: Array, y: int, x: int, sy: int, sx: int, limit: np.float32) -> np.float32:
    """Weighted squared difference of two patches; gives up beyond ``limit``."""
    height, width = weight.shape
    total = mass = _ZERO
    top, bottom = max(-RADIUS, -y), min(RADIUS, height - 1 - y)
    left, right = max(-RADIUS, -x), min(RADIUS, width - 1 - x)
    for dy in range(-RADIUS, RADIUS + 1):
        if dy < top or dy > bottom:
            continue
        for dx in range(left, right + 1):
            w = weight[y + dy, x + dx]
            a = picture[y + dy, x + dx, 0] - picture[sy + dy, sx + dx, 0]
            b = picture[y + dy, x + dx, 1] - picture[sy + dy, sx + dx, 1]
            c = picture[y + dy, x + dx, 2] - picture[sy + dy, sx + dx, 2]
            total += w * (a * a + b * b + c * c)
            mass += w
        if total > limit * np.float32(49):
            return np.float32(1e9)
    return total / mass


@compiled
def search(
    picture: Array, weight: Array, wanted: Array, usable: Array, rounds: int, state: Array, nearest: Array, cost: Array
) -> None:
    """Improve the nearest places of all wanted pixels.

    weight (H, W): how far a pixel's colour is to be trusted. wanted (n, 2): rows and columns, in reading order. usable
    (H, W): 1 where a patch may be taken. nearest must hold usable places at the wanted pixels, -1 elsewhere.
    """
    height, width = weight.shape
    for i in range(len(wanted)):
        y, x = wanted[i, 0], wanted[i, 1]
        cost[y, x] = _distance(picture, weight, y, x, nearest[y, x, 0], nearest[y, x, 1], np.float32(1e6))
    for turn in range(rounds):
        step = 1 if turn % 2 == 0 else -1
        first = 0 if step == 1 else len(wanted) - 1
        for i in range(len(wanted)):
            y, x = wanted[first + step * i, 0], wanted[first + step * i, 1]
            best_y, best_x, best = nearest[y, x, 0], nearest[y, x, 1], cost[y, x]
            for axis in range(2):
                ny, nx = (y - step, x) if axis == 0 else (y, x - step)
                if ny < 0 or nx < 0 or ny >= height or nx >= width or nearest[ny, nx, 0] < 0:
                    continue
                sy, sx = nearest[ny, nx, 0] + (y - ny), nearest[ny, nx, 1] + (x - nx)
                if sy < 0 or sx < 0 or sy >= height or sx >= width or not usable[sy, sx]:
                    continue
                if sy == best_y and sx == best_x:
                    continue
                found = _distance(picture, weight, y, x, sy, sx, best)
                if found < best:
                    best_y, best_x, best = sy, sx, found
            reach = max(height, width) // 2
            while reach >= 1:
                sy = best_y + _next_random(state) % (2 * reach + 1) - reach
                sx = best_x + _next_random(state) % (2 * reach + 1) - reach
                if sy >= 0 and sx >= 0 and sy < height and sx < width and usable[sy, sx]:
                    found = _distance(picture, weight, y, x, sy, sx, best)
                    if found < best:
                        best_y, best_x, best = sy, sx, found
                reach //= 2
            nearest[y, x, 0], nearest[y, x, 1], cost[y, x] = best_y, best_x, best


@compiled
def vote(picture: Array, hole: Array, wanted: Array, nearest: Array, cost: Array, sharpness: np.float32) -> None:
    """Set every pixel of the hole to the mean of what the patches over it say; better matches count more."""
    height, width = hole.shape
    total = np.zeros((height, width, 4), np.float32)
    for i in range(len(wanted)):
        y, x = wanted[i, 0], wanted[i, 1]
        sy, sx = nearest[y, x, 0], nearest[y, x, 1]
        w = np.exp(-cost[y, x] * sharpness) + np.float32(1e-6)
        for dy in range(-RADIUS, RADIUS + 1):
            if y + dy < 0 or y + dy >= height:
                continue
            for dx in range(max(-RADIUS, -x), min(RADIUS, width - 1 - x) + 1):
                if hole[y + dy, x + dx]:
                    # The middle of a patch says more than its rim: means of many rims are blurred.
                    near = w / (_ONE + np.float32(dy * dy + dx * dx))
                    for c in range(3):
                        total[y + dy, x + dx, c] += near * picture[sy + dy, sx + dx, c]
                    total[y + dy, x + dx, 3] += near
    for y in range(height):
        for x in range(width):
            if hole[y, x] and total[y, x, 3] > _ZERO:
                for c in range(3):
                    picture[y, x, c] = total[y, x, c] / total[y, x, 3]
