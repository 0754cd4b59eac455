"""Leaves, petals, blossoms, tufts: shaded pictures with premultiplied alpha that are placed many times.

A sprite is float32 (S,S,4) and points upwards, its foot at (S/2, 0.92 S) and its tip at (S/2, 0.08 S). Half-size copies
keep small placements from aliasing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gid.data.scenes.textures import Floats, noise

FOOT, TIP = 0.92, 0.08
SHAPES = ("ovate", "lance", "round", "heart", "lobed", "obovate", "needle")


@dataclass(frozen=True)
class Sprite:
    """A picture with its half-size copies."""

    levels: tuple[Floats, ...]

    @classmethod
    def build(cls, rgba: Floats) -> Sprite:
        """Make the copies down to 8 pixels."""
        levels = [rgba]
        while levels[-1].shape[0] > 15:
            levels.append(cv2.pyrDown(levels[-1]))
        return cls(tuple(levels))

    def matrix(self, foot: tuple[float, float], angle: float, length: float, aspect: float) -> tuple[Floats, Floats]:
        """The copy to use and the 2x3 matrix from it to the picture; ``angle`` is clockwise from up, in radians."""
        level = 0
        while level + 1 < len(self.levels) and self.levels[level + 1].shape[0] * (FOOT - TIP) > length * 1.1:
            level += 1
        source = self.levels[level]
        size = source.shape[0]
        scale = length / ((FOOT - TIP) * size)
        c, s = np.cos(angle) * scale, np.sin(angle) * scale
        m = np.array([[c * aspect, -s, 0], [s * aspect, c, 0]], np.float32)
        m[:, 2] = np.asarray(foot, np.float32) - m[:, :2] @ np.array([size / 2, FOOT * size], np.float32)
        return source, m


def with_halo(rgba: Floats, strength: float) -> Floats:
    """Put the sprite over its own soft shadow, which sets it off from what lies behind."""
    size = rgba.shape[0]
    shadow = cv2.GaussianBlur(rgba[..., 3], (0, 0), size * 0.022) * strength
    out = rgba.copy()
    out[..., 3] += shadow * (1 - rgba[..., 3])
    return out


def _half_width(shape: str, s: Floats) -> Floats:
    """Half width of a leaf at s in [0, 1] from foot to tip, as a share of its length."""
    t = np.clip(s, 1e-4, 1 - 1e-4)
    curves = {
        "ovate": 0.34 * np.sin(np.pi * t**0.72) ** 0.9,
        "lance": 0.13 * np.sin(np.pi * t**0.8) ** 0.8,
        "round": 0.47 * np.sqrt(np.clip(1 - (2 * t - 1) ** 2, 0, 1)),
        "heart": 0.62 * (1 - t) ** 0.62 * (t + 0.015) ** 0.28,
        "obovate": 0.36 * np.sin(np.pi * t**1.6) ** 0.75,
        "needle": 0.045 * np.sin(np.pi * t**0.8) ** 0.5,
    }
    return curves[shape].astype(np.float32)


def _grid(size: int) -> tuple[Floats, Floats]:
    """Position along (0 foot, 1 tip) and across (share of the length, 0 at the middle) for every pixel."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    span = (FOOT - TIP) * size
    return (FOOT * size - y) / span, (x - size / 2 + 0.5) / span


def leaf(rng: np.random.Generator, shape: str, base: Floats, size: int = 96) -> Sprite:
    """A leaf with midrib, side veins, a fold that catches the light, mottling and a lighter or drier rim."""
    s, n = _grid(size)
    n = n - rng.uniform(-0.18, 0.18) * s * (1 - s) * 2
    if shape == "lobed":
        alpha, vein, depth = _lobed(rng, size)
    else:
        half = _half_width(shape, s)
        if rng.random() < 0.5:
            half = half * (1 + 0.09 * (np.mod(s * rng.uniform(8, 22), 1) - 0.5))
        inside = (s > 0) & (s < 1)
        alpha = np.clip((half - np.abs(n)) * size * 0.84 + 0.5, 0, 1) * inside
        stalk = (np.abs(n) < 0.008) & (s > -0.06) & (s < 0.2)
        alpha = np.maximum(alpha, stalk * 0.9)
        depth = np.abs(n) / (half + 1e-3)
        waves = np.sin(np.pi * (s * rng.uniform(6, 12) - depth * rng.uniform(0.4, 1.2)))
        vein = np.exp(-((n / 0.012) ** 2)) + 0.5 * np.exp(-(waves**2) / 0.03) * (depth < 1)
    light = (
        0.92
        + rng.uniform(0.05, 0.22) * np.sign(n) * np.clip(np.abs(n) * 30, 0, 1)
        + rng.uniform(-0.25, 0.35) * (s - 0.5)
    )
    sheen = np.exp(-(((depth - 0.45) / 0.25) ** 2) - ((s - rng.uniform(0.35, 0.7)) / 0.22) ** 2) * (n > 0)
    light = light + 0.1 * noise(rng, size, size, size / 3, 4) + rng.uniform(-0.1, 0.28) * np.clip(vein, 0, 1)
    rim = np.clip(depth, 0, 1)[..., None] ** 3 * rng.uniform(-0.1, 0.2)
    rgb = base * light[..., None] + rim * np.array([1.0, 0.9, 0.2], np.float32) * 0.5
    rgb = rgb + (rng.uniform(0, 0.3) * sheen)[..., None]
    rgba = np.dstack([np.clip(rgb, 0, 1) * alpha[..., None], alpha]).astype(np.float32)
    return Sprite.build(with_halo(rgba, 0.4))


def _lobed(rng: np.random.Generator, size: int) -> tuple[Floats, Floats, Floats]:
    """Alpha, veins and relative radius of an ivy or maple leaf."""
    s, n = _grid(size)
    centre = rng.uniform(0.3, 0.42)
    radius = np.sqrt((s - centre) ** 2 + n**2)
    phi = np.arctan2(n, s - centre)
    edge = np.full_like(s, 0.13)
    vein = np.zeros_like(s)
    sharp = rng.uniform(1.3, 2.2)
    spread = rng.uniform(0.9, 1.15)
    for angle, reach in ((0.0, 0.62), (spread, 0.5), (-spread, 0.5), (2.2 * spread, 0.34), (-2.2 * spread, 0.34)):
        delta = np.angle(np.exp(1j * (phi - angle)))
        edge = np.maximum(edge, reach * np.clip(np.cos(np.clip(delta * sharp, -1.57, 1.57)), 0, 1) ** 0.8)
        vein = np.maximum(vein, np.exp(-((radius * np.sin(delta) / 0.01) ** 2)) * (np.cos(delta) > 0))
    edge = edge * (1 + 0.06 * np.sin(phi * rng.uniform(14, 26)))
    alpha = np.clip((edge - radius) * size * 0.84 + 0.5, 0, 1)
    return alpha.astype(np.float32), vein.astype(np.float32), (radius / (edge + 1e-3)).astype(np.float32)


def petal(rng: np.random.Generator, base: Floats, width: float, pointed: bool, size: int = 96) -> Floats:
    """One petal (S,S,4): streaked, darker or tinted at the foot, lighter along one rim."""
    s, n = _grid(size)
    t = np.clip(s, 1e-3, 0.999)
    half = width * (np.sin(np.pi * t**1.1) ** 0.7 if pointed else np.sin(np.pi * t**1.7) ** 0.45)
    if not pointed and rng.random() < 0.5:
        half = half * (1 + 0.05 * np.sin(s * 20 + rng.uniform(0, 6)))
    alpha = np.clip((half - np.abs(n)) * size * 0.84 + 0.5, 0, 1) * ((s > 0) & (s < 1))
    depth = np.abs(n) / (half + 1e-3)
    streak = np.sin(n / (half + 1e-3) * rng.uniform(8, 16)) * 0.5 + noise(rng, size, size, size / 2, 3) * 0.5
    light = (
        rng.uniform(0.62, 0.8)
        + rng.uniform(0.2, 0.34) * t**0.7
        + 0.045 * streak
        + rng.uniform(-0.08, 0.1) * np.sign(n) * depth
    )
    light = light - 0.12 * depth**6 + 0.08 * np.exp(-((n / 0.03) ** 2))
    foot = np.clip(1 - s * rng.uniform(1.8, 4), 0, 1)[..., None] * rng.uniform(0, 0.6)
    other = np.array([rng.uniform(0.4, 1), rng.uniform(0.3, 0.9), rng.uniform(0.1, 0.4)], np.float32)
    rgb = np.clip(base * light[..., None], 0, 1) * (1 - foot) + other * foot * light[..., None]
    rgba = np.dstack([np.clip(rgb, 0, 1) * alpha[..., None], alpha]).astype(np.float32)
    return with_halo(rgba, 0.35)


def stamp(
    canvas: Floats, sprite: Sprite, foot: tuple[float, float], angle: float, length: float, aspect: float, gain: float
) -> None:
    """Composite a sprite onto a canvas (H,W,4) of premultiplied alpha, in place."""
    source, matrix = sprite.matrix(foot, angle, length, aspect)
    layer: Floats = cv2.warpAffine(source, matrix, (canvas.shape[1], canvas.shape[0]))
    layer[..., :3] *= gain
    canvas *= 1 - layer[..., 3:]
    canvas += layer


def disc(canvas: Floats, centre: tuple[float, float], radius: float, base: Floats, rng: np.random.Generator) -> None:
    """A domed, dotted flower heart on a canvas, in place."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    r = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius
    alpha = np.clip((1 - r) * radius + 0.5, 0, 1)
    dots = np.sin(x * 6.0 / radius * 2.2 + np.sin(y * 3)) * np.sin(y * 6.0 / radius * 2.2)
    light = 1.05 - 0.5 * r**2 + 0.2 * dots - 0.15 * (y - centre[1]) / radius
    rgb = np.clip(base * light[..., None], 0, 1)
    canvas *= 1 - alpha[..., None]
    canvas += np.dstack([rgb * alpha[..., None], alpha])


def blossom(rng: np.random.Generator, kind: str, base: Floats, size: int = 128) -> Sprite:
    """A whole flower head whose neck is the sprite's foot: daisy, lily, rose, cup, cluster, umbel or spike."""
    canvas = np.zeros((size, size, 4), np.float32)
    middle, reach = (size / 2, size * 0.5), size * 0.43
    petals = [
        Sprite.build(petal(rng, base * rng.uniform(0.88, 1.08), w, kind in ("lily", "daisy")))
        for w in _petal_widths(rng, kind)
    ]

    def pick() -> Sprite:
        return petals[rng.integers(len(petals))]

    heart = np.array([rng.uniform(0.5, 1), rng.uniform(0.35, 0.8), rng.uniform(0.02, 0.25)], np.float32)
    tilt = rng.uniform(0.55, 1.0)
    if kind in ("daisy", "lily"):
        count = int(rng.integers(5, 8)) if kind == "lily" else int(rng.integers(9, 22))
        turn = rng.uniform(0, 6.3)
        for row in range(2):
            for i in range(count):
                angle = turn + (i + 0.5 * row) * 2 * np.pi / count + rng.normal(0, 0.06)
                stamp(
                    canvas,
                    pick(),
                    middle,
                    angle,
                    reach * (1 - 0.12 * row) * rng.uniform(0.88, 1.04),
                    rng.uniform(0.8, 1.1),
                    0.86 + 0.12 * row,
                )
        disc(canvas, middle, reach * (rng.uniform(0.1, 0.18) if kind == "lily" else rng.uniform(0.2, 0.36)), heart, rng)
    elif kind == "rose":
        for ring in range(5):
            count = 8 - ring
            for i in range(count):
                angle = i * 2 * np.pi / count + ring * 1.3 + rng.normal(0, 0.15)
                back = (middle[0] - np.sin(angle) * reach * 0.05, middle[1] + np.cos(angle) * reach * 0.05)
                stamp(canvas, pick(), back, angle, reach * (1 - 0.19 * ring), rng.uniform(1, 1.3), 1.02 - 0.07 * ring)
    elif kind == "cup":
        tilt = 1.0
        for angle, gain in ((-0.3, 0.75), (0.3, 0.8), (-0.16, 0.92), (0.18, 0.97), (0.0, 1.05)):
            stamp(
                canvas,
                pick(),
                (size / 2, size * FOOT),
                angle + rng.normal(0, 0.04),
                size * 0.8,
                rng.uniform(0.9, 1.15),
                gain,
            )
        return Sprite.build(canvas)
    else:
        return Sprite.build(_compound(rng, kind, pick, canvas, heart))
    flat = np.array([[1, 0, 0], [0, tilt, (1 - tilt) * middle[1]]], np.float32)
    return Sprite.build(cv2.warpAffine(canvas, flat, (size, size), flags=cv2.INTER_AREA))


def _petal_widths(rng: np.random.Generator, kind: str) -> list[float]:
    """Half widths, as a share of the length, of three petals of a flower."""
    low, high = {"daisy": (0.1, 0.17), "lily": (0.18, 0.3), "rose": (0.4, 0.5), "cup": (0.25, 0.33)}.get(
        kind, (0.3, 0.42)
    )
    return [float(rng.uniform(low, high)) for _ in range(3)]


def _compound(rng: np.random.Generator, kind: str, pick: object, canvas: Floats, heart: Floats) -> Floats:
    """A ball (cluster), a flat head (umbel) or a spike of many small florets."""
    assert callable(pick)
    size = canvas.shape[0]
    floret = np.zeros((48, 48, 4), np.float32)
    for i in range(5):
        stamp(floret, pick(), (24, 24), i * 2 * np.pi / 5 + rng.normal(0, 0.1), 20, 1.1, rng.uniform(0.9, 1.05))
    disc(floret, (24, 24), 4.5, heart, rng)
    small = Sprite.build(floret)
    count = {"cluster": 45, "umbel": 40, "spike": 60}[kind]
    for i in range(count):
        u, v = rng.normal(0, 0.16, 2)
        if kind == "cluster":
            x, y, light = 0.5 + u, 0.45 + v, 0.8 + 0.25 * i / count
        elif kind == "umbel":
            x, y, light = 0.5 + 1.35 * u, 0.32 + 0.35 * v + 0.8 * u * u, 0.8 + 0.25 * i / count
        else:
            along = i / count
            x, y, light = 0.5 + 0.4 * u * (1.1 - along), 0.85 - 0.75 * along, rng.uniform(0.75, 1.05)
        stamp(canvas, small, (x * size, y * size + 5), rng.uniform(0, 6.3), size * rng.uniform(0.08, 0.12), 1.0, light)
    stem = canvas[..., 3]
    foot = np.zeros((size, size), np.float32)
    cv2.line(foot, (size // 2, int(FOOT * size)), (size // 2, int(0.4 * size)), 1.0, 2, cv2.LINE_AA)
    foot *= 1 - stem
    canvas += np.dstack([foot * 0.3, foot * 0.45, foot * 0.15, foot])
    return canvas


def clump(rng: np.random.Generator, base: Floats, size: int = 96) -> Sprite:
    """The shaded inside of a crown or bush: a ragged, mottled ball, lit from above."""
    s, n = _grid(size)
    radius = np.sqrt((s - 0.5) ** 2 + n**2) / 0.5
    ragged = radius + 0.16 * noise(rng, size, size, size / 5, 4)
    alpha = np.clip((0.92 - ragged) * 14, 0, 1)
    light = 0.6 + 0.45 * (s - 0.5) - 0.3 * n + 0.22 * noise(rng, size, size, size / 9, 3, 0.8)
    rgb = np.clip(base * light[..., None], 0, 1)
    return Sprite.build(np.dstack([rgb * alpha[..., None], alpha]).astype(np.float32))


def tuft(rng: np.random.Generator, base: Floats, blades: int, spread: float, size: int = 160) -> Sprite:
    """A tuft of grass: curved tapering blades, dark at the foot and light at the tips."""
    picture, alpha = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    for i in range(blades):
        foot = np.array([size * (0.5 + rng.normal(0, 0.13)), size * (FOOT + 0.04)])
        tall, lean = size * 0.84 * rng.uniform(0.45, 1.0), rng.normal(0, spread) + (foot[0] / size - 0.5) * 1.2
        t = np.linspace(0, 1, 10)[:, None]
        bow = rng.normal(0, 0.25) + 0.5 * lean
        points = (
            foot
            + t * tall * np.array([np.sin(lean), -np.cos(lean)])
            + t**2 * tall * np.array([0.35 * bow, 0.12 * abs(bow)])
        )
        outline = strip(points, rng.uniform(0.9, 2.6) * (1 - t[:, 0]) ** 0.6 + 0.25)
        shade = (
            np.clip(base * rng.uniform(0.55, 1.3) * (0.75 + 0.35 * i / blades) + rng.normal(0, 0.025, 3), 0, 1) * 255
        )
        fixed = np.round(outline * 16).astype(np.int32)
        cv2.fillPoly(picture, [fixed], tuple(float(v) for v in shade), cv2.LINE_AA, 4)
        cv2.fillPoly(alpha, [fixed], 255, cv2.LINE_AA, 4)
    ramp = np.linspace(1.15, 0.45, size, dtype=np.float32)[:, None, None]
    cover = alpha.astype(np.float32)[..., None] / 255
    return Sprite.build(np.dstack([np.clip(picture / 255.0 * ramp, 0, 1) * cover, cover]).astype(np.float32))


def strip(points: NDArray[np.float64], widths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outline (2N,2) of a band of given half widths along a polyline (N,2)."""
    tangent = np.gradient(points, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / (np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-6)
    return np.concatenate([points + normal * widths[:, None], (points - normal * widths[:, None])[::-1]])
