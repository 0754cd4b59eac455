"""Backgrounds that stand still: sky, walls, blurred depth, interiors, ground. None holds a sharp plant."""

from __future__ import annotations

import cv2
import numpy as np

from gid.data.scenes import textures as tx
from gid.data.scenes.textures import Floats


def sky(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Clear, cloudy, grey or evening sky."""
    top = tx.color(rng, (200, 225), (0.15, 0.8), (0.4, 0.95))
    low = np.clip(top * 0.5 + np.array([0.5, 0.5, 0.5]) * rng.uniform(0.7, 1.0), 0, 1).astype(np.float32)
    if rng.random() < 0.2:
        low = tx.color(rng, (10, 45), (0.2, 0.7), (0.6, 1.0))
    if rng.random() < 0.2:
        top = np.full(3, rng.uniform(0.5, 0.85), np.float32)
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    out = tx.mix(top, low, ramp ** rng.uniform(0.6, 1.6))
    if rng.random() < 0.65:
        clouds = cv2.resize(tx.noise(rng, height * 2, width, rng.uniform(70, 200), 6, 0.55), (width, height))
        cover = np.clip((clouds - rng.uniform(-0.6, 1.0)) * rng.uniform(0.4, 1.0), 0, 1)[..., None] * rng.uniform(
            0.4, 1
        )
        shade = 0.95 - 0.18 * np.clip(tx.noise(rng, height, width, 80, 4), -1, 2)[..., None] * rng.uniform(0.2, 1)
        out = out * (1 - cover) + np.clip(shade, 0, 1) * cover
    return out.astype(np.float32)


def bokeh(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Far out-of-focus foliage or lights: soft blobs without detail."""
    small_h, small_w = height // 2, width // 2
    base = tx.leaf_color(rng) * rng.uniform(0.25, 1.0)
    other = tx.leaf_color(rng) if rng.random() < 0.7 else tx.any_color(rng)
    field = tx.noise(rng, small_h, small_w, rng.uniform(25, 110), 3, 0.5)
    out = (
        tx.mix(base, other, 0.5 + 0.4 * field)
        * np.clip(1 + 0.35 * tx.noise(rng, small_h, small_w, 60, 3), 0.1, 2)[..., None]
    )
    glow = tx.color(rng, (30, 120), (0.1, 0.6), (0.6, 1.0))
    layer = np.zeros((small_h, small_w, 3), np.float32)
    for _ in range(int(rng.integers(0, 40))):
        centre = (int(rng.integers(small_w)), int(rng.integers(small_h)))
        cv2.circle(
            layer,
            centre,
            int(rng.uniform(2, 11)),
            tuple(float(v) for v in glow * rng.uniform(0.05, 0.5)),
            -1,
            cv2.LINE_AA,
        )
    soft = cv2.GaussianBlur(out + layer, (0, 0), rng.uniform(1.5, 8))
    return np.clip(cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1).astype(np.float32)


def studio(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Plain or graded backdrop, sometimes nearly black."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    a, b = tx.any_color(rng), tx.any_color(rng)
    b = a * 0.6 + b * 0.4
    angle = rng.uniform(0, 6.3)
    ramp = (x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle) + 0.5
    out = tx.mix(a, b.astype(np.float32), ramp)
    spot = np.exp(-((x / width - rng.random()) ** 2 + (y / height - rng.random()) ** 2) / rng.uniform(0.1, 0.6))
    out = out * (rng.uniform(0.4, 0.9) + 0.5 * spot)[..., None]
    if rng.random() < 0.3:
        out = out * rng.uniform(0.03, 0.25)
    return np.clip(out, 0, 1).astype(np.float32)


def wall(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A textured surface that fills the picture, lit unevenly."""
    makers = (tx.plaster, tx.plaster, tx.brick, tx.wood, tx.fabric, tx.tiles, tx.soil)
    out = makers[rng.integers(len(makers))](rng, height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 6.3)
    light = 1 + rng.uniform(0.1, 0.6) * ((x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle))
    return np.clip(out * light[..., None] * rng.uniform(0.5, 1.05), 0, 1).astype(np.float32)


def _ground(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Ground seen flat: texture squeezed towards the horizon."""
    makers = (tx.soil, tx.tiles, tx.wood_lying, tx.plaster, tx.fabric)
    texture = makers[rng.integers(len(makers))](rng, height * 2, width)
    source = np.array([[0, 0], [width, 0], [width, height * 2], [0, height * 2]], np.float32)
    spread = width * rng.uniform(0.3, 1.5)
    target = np.array([[0, 0], [width, 0], [width + spread, height], [-spread, height]], np.float32)
    return cv2.warpPerspective(
        texture, cv2.getPerspectiveTransform(source, target), (width, height), borderMode=cv2.BORDER_REFLECT
    )


def _buildings(rng: np.random.Generator, out: Floats, horizon: int) -> None:
    """House fronts with windows standing on the horizon, in place."""
    width, x = out.shape[1], int(rng.integers(-40, 30))
    while x < width:
        w, h = int(rng.integers(40, 150)), int(rng.uniform(0.3, 1.0) * horizon)
        top = max(horizon - h, 0)
        face = tx.brick(rng, h, w) if rng.random() < 0.4 else tx.plaster(rng, h, w)
        step_x, step_y = int(rng.integers(12, 28)), int(rng.integers(16, 34))
        pane = tx.color(rng, (190, 230), (0.05, 0.4), (0.08, 0.7))
        for j in range(6, h - step_y // 2, step_y):
            for i in range(5, w - step_x // 2, step_x):
                shade = tuple(float(v) for v in pane * rng.uniform(0.6, 1.2))
                cv2.rectangle(
                    face,
                    (i - 1, j - 1),
                    (i + step_x // 2 + 1, j + step_y // 2 + 1),
                    tuple(float(v) for v in face.mean((0, 1)) * 0.6),
                    -1,
                )
                cv2.rectangle(face, (i, j), (i + step_x // 2, j + step_y // 2), shade, -1)
        left, right = max(x, 0), min(x + w, width)
        if right > left:
            out[top:horizon, left:right] = face[: horizon - top, left - x : right - x]
        x += w + int(rng.integers(-4, 60))


def landscape(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Sky over ground, water, hills or houses."""
    out = sky(rng, height, width)
    horizon = int(rng.uniform(0.35, 0.85) * height)
    if rng.random() < 0.6:
        for i in range(int(rng.integers(1, 4))):
            ridge = (
                horizon
                - rng.uniform(0.02, 0.3) * height
                - tx.noise(rng, 1, width, rng.uniform(60, 220), 5, 0.45)[0] * rng.uniform(4, 16)
            )
            mask = np.clip(np.arange(height)[:, None] - ridge[None], 0, 1)[..., None]
            tone = tx.color(rng, (80, 230), (0.05, 0.35), (0.25, 0.6)) * (1 - 0.15 * i)
            out = out * (1 - mask) + tone * (1 + 0.05 * tx.noise(rng, height, width, 30, 3)[..., None]) * mask
    if rng.random() < 0.35:
        _buildings(rng, out, horizon)
    low = height - horizon
    if rng.random() < 0.3:
        glass = cv2.resize(out[max(0, horizon - low) : horizon][::-1], (width, low))
        ripple = cv2.resize(rng.normal(0, 1, (max(2, low // 2), max(2, width // 25))).astype(np.float32), (width, low))
        out[horizon:] = glass * (0.75 + 0.08 * ripple[..., None])
    else:
        out[horizon:] = _ground(rng, low, width)
    return np.clip(out, 0, 1).astype(np.float32)


def interior(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A wall over a table or floor, sometimes with a window or a picture frame."""
    out = wall(rng, height, width)
    edge = int(rng.uniform(0.5, 0.88) * height)
    out[edge:] = _ground(rng, height - edge, width) * rng.uniform(0.5, 1.1)
    out[edge - 2 : edge + 1] *= 0.6
    for _ in range(int(rng.integers(0, 3))):
        w, h = int(rng.uniform(0.12, 0.35) * width), int(rng.uniform(0.2, 0.5) * height)
        x, y = int(rng.integers(0, max(1, width - w))), int(rng.integers(0, max(1, edge - h)))
        inner = sky(rng, h, w) if rng.random() < 0.5 else cv2.GaussianBlur(tx.fabric(rng, h, w), (0, 0), 2.0)
        patch = out[y : y + h, x : x + w]
        patch[:] = inner[: patch.shape[0], : patch.shape[1]]
        cv2.rectangle(
            out,
            (x, y),
            (x + w, y + h),
            tuple(float(v) for v in tx.color(rng, (20, 40), (0, 0.5), (0.1, 0.9))),
            int(rng.integers(2, 7)),
            cv2.LINE_AA,
        )
    return np.clip(out, 0, 1).astype(np.float32)


def black(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Night: black with a faint warm or cold cast."""
    return (studio(rng, height, width) * rng.uniform(0.0, 0.09)).astype(np.float32)


MAKERS = {
    "sky": sky,
    "bokeh": bokeh,
    "studio": studio,
    "wall": wall,
    "landscape": landscape,
    "interior": interior,
    "black": black,
}


def pick(rng: np.random.Generator, kinds: dict[str, float]) -> str:
    """One of ``kinds`` (name: weight)."""
    names = list(kinds)
    weights = np.array([kinds[name] for name in names])
    return names[rng.choice(len(names), p=weights / weights.sum())]


def make(rng: np.random.Generator, height: int, width: int, name: str, blur: float = 0.4) -> Floats:
    """Draw a background of the kind ``name``; ``blur`` is the chance that it lies out of focus."""
    out = MAKERS[name](rng, height, width)
    sigma = rng.uniform(1.5, 9) * width / 448 if rng.random() < blur else rng.uniform(0.3, 0.8)
    return cv2.GaussianBlur(out, (0, 0), sigma).astype(np.float32)
