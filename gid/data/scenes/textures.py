"""Noise, colours and surface textures drawn with numpy and OpenCV. Pictures are float32 RGB in about [0, 1]."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
"""float32 arrays; OpenCV's stubs are wider, so the element type is left open."""


def noise(
    rng: np.random.Generator, height: int, width: int, cell: float = 64.0, octaves: int = 4, fall: float = 0.5
) -> Floats:
    """Fractal noise (height,width) of zero mean and unit deviation; ``cell`` is the largest patch in pixels."""
    total = np.zeros((height, width), np.float32)
    gain = 1.0
    for _ in range(octaves):
        shape = (max(2, round(height / cell) + 1), max(2, round(width / cell) + 1))
        coarse = rng.normal(size=shape).astype(np.float32)
        total += gain * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        gain *= fall
        cell = max(cell / 2, 1.0)
    return (total - total.mean()) / (total.std() + 1e-6)


def color(
    rng: np.random.Generator, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]
) -> Floats:
    """A random colour (3,) RGB with hue in degrees and saturation and value in [0, 1]."""
    hsv = np.array([[[rng.uniform(*hue) % 360, rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]


def any_color(rng: np.random.Generator) -> Floats:
    """Any colour that a painted or dyed thing may have."""
    return color(rng, (0, 360), (0.05, 0.9), (0.15, 0.95))


def leaf_color(rng: np.random.Generator) -> Floats:
    """Mostly greens, sometimes autumn, bluish or dry."""
    pick = rng.random()
    if pick < 0.72:
        return color(rng, (70, 125), (0.3, 0.8), (0.25, 0.7))
    if pick < 0.86:
        return color(rng, (8, 55), (0.5, 0.9), (0.4, 0.8))
    if pick < 0.94:
        return color(rng, (130, 170), (0.15, 0.45), (0.3, 0.6))
    return color(rng, (30, 50), (0.2, 0.5), (0.4, 0.75))


def blossom_color(rng: np.random.Generator) -> Floats:
    """White, pink, red, yellow, orange, violet or blue."""
    ranges = [
        ((0, 360), (0.0, 0.1), (0.85, 1.0)),
        ((320, 355), (0.2, 0.75), (0.75, 1.0)),
        ((345, 368), (0.6, 0.95), (0.55, 0.95)),
    ]
    ranges += [
        ((42, 56), (0.5, 0.95), (0.8, 1.0)),
        ((15, 38), (0.6, 0.95), (0.8, 1.0)),
        ((260, 310), (0.3, 0.8), (0.5, 0.9)),
    ]
    ranges += [((210, 250), (0.3, 0.8), (0.5, 0.9))]
    return color(rng, *ranges[rng.integers(len(ranges))])


def mix(a: Floats, b: Floats, weight: Floats) -> Floats:
    """Blend two colours (3,) by a map (H,W) in [0, 1]."""
    w = np.clip(weight, 0, 1)[..., None]
    return (a * (1 - w) + b * w).astype(np.float32)


def plaster(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A painted or stained wall."""
    base = any_color(rng) * 0.5 + rng.uniform(0.2, 0.5)
    stain = noise(rng, height, width, rng.uniform(30, 200), 5, 0.6)
    fine = noise(rng, height, width, 4, 2)
    return np.clip(base * (1 + 0.08 * stain[..., None] + rng.uniform(0, 0.05) * fine[..., None]), 0, 1).astype(
        np.float32
    )


def brick(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A wall of bricks or stone blocks."""
    row, length = rng.uniform(9, 30), rng.uniform(1.5, 3.2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    warp = noise(rng, height, width, 40, 3) * 0.8
    j = np.floor((y + warp) / row)
    u = (x + warp) / (row * length) + 0.5 * (j % 2)
    i = np.floor(u)
    edge = np.minimum(
        np.minimum(u - i, 1 - (u - i)) * length, np.minimum((y + warp) / row - j, 1 - ((y + warp) / row - j))
    )
    joint = np.clip((0.09 - edge) / 0.05, 0, 1)
    tone = np.sin(i * 127.1 + j * 311.7) * 43758.5453
    tone = tone - np.floor(tone)
    base = color(rng, (5, 40), (0.1, 0.65), (0.3, 0.75))
    body = base * (0.75 + 0.4 * tone + 0.08 * noise(rng, height, width, 10, 3))[..., None]
    mortar = np.full(3, rng.uniform(0.3, 0.75), np.float32)
    return np.clip(body * (1 - joint[..., None]) + mortar * joint[..., None], 0, 1).astype(np.float32)


def wood(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Planks with grain, lying or standing."""
    if rng.random() < 0.5:
        return np.ascontiguousarray(wood_lying(rng, width, height).transpose(1, 0, 2))
    return wood_lying(rng, height, width)


def wood_lying(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Planks with horizontal grain."""
    plank = rng.uniform(25, 80)
    y = np.arange(height, dtype=np.float32)[:, None] + np.zeros((1, width), np.float32)
    index = np.floor(y / plank)
    stretched = cv2.resize(
        noise(rng, height, max(8, width // 10), 14, 4), (width, height), interpolation=cv2.INTER_CUBIC
    )
    rings = np.sin(y * 0.35 + stretched * 5 + index * 17) * 0.5 + stretched * 0.6
    gap = np.clip(1.5 - np.abs(y - (index + 0.5) * plank - plank / 2), 0, 1) + np.clip(
        1.5 - np.abs(y - index * plank), 0, 1
    )
    base = color(rng, (18, 38), (0.15, 0.65), (0.25, 0.75))
    body = base * (1 + 0.12 * rings + 0.12 * np.sin(index * 5.3))[..., None]
    return np.clip(body * (1 - 0.7 * np.clip(gap, 0, 1))[..., None], 0, 1).astype(np.float32)


def soil(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Earth, gravel, sand or bare rock."""
    base = color(rng, (18, 45), (0.1, 0.55), (0.2, 0.65))
    grains = noise(rng, height, width, rng.uniform(4, 40), 5, rng.uniform(0.6, 0.95))
    return np.clip(base * (1 + rng.uniform(0.12, 0.3) * grains[..., None]), 0, 1).astype(np.float32)


def fabric(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Woven cloth: stripes, checks or plain, in soft folds."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    a, b = any_color(rng), any_color(rng)
    period, angle = rng.uniform(8, 60), rng.uniform(0, np.pi)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = -x * np.sin(angle) + y * np.cos(angle)
    pick = rng.random()
    weight = np.zeros_like(x) if pick < 0.45 else (np.sin(2 * np.pi * u / period) > rng.uniform(-0.5, 0.7)) * 1.0
    if pick > 0.75:
        weight = 0.5 * weight + 0.5 * (np.sin(2 * np.pi * v / period) > 0)
    folds = 1 + rng.uniform(0, 0.18) * noise(rng, height, width, rng.uniform(40, 120), 2)
    weave = 1 + 0.04 * np.sin(x * 2.1) * np.sin(y * 2.1)
    return np.clip(mix(a, b, weight.astype(np.float32)) * (folds * weave)[..., None], 0, 1).astype(np.float32)


def tiles(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Floor or wall tiles."""
    size = rng.uniform(18, 70)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    i, j = np.floor(x / size), np.floor(y / size)
    checker = ((i + j) % 2) * (rng.random() < 0.4)
    edge = np.minimum(np.minimum(x - i * size, (i + 1) * size - x), np.minimum(y - j * size, (j + 1) * size - y))
    base = mix(any_color(rng) * 0.5 + 0.4, any_color(rng) * 0.4, checker.astype(np.float32))
    stain = 1 + 0.05 * noise(rng, height, width, 50, 4)
    return np.clip(base * (stain * (0.7 + 0.3 * np.clip(edge / 1.5, 0, 1)))[..., None], 0, 1).astype(np.float32)
