"""Things that stand still, drawn as sharply as what moves beside them: pots, boxes, stones, letters, faces."""

from __future__ import annotations

import cv2
import numpy as np

from gid.data.scenes import textures as tx
from gid.data.scenes.builder import Builder, Point
from gid.data.scenes.textures import Floats

WORDS = (
    "OPEN",
    "Cafe",
    "you",
    "can",
    "HOME",
    "love",
    "it",
    "24",
    "Hotel",
    "please",
    "STOP",
    "Tea",
    "No. 7",
    "hello",
    "Bakery",
)


def write(rng: np.random.Generator, picture: Floats) -> None:
    """Letter a word across a picture (h,w,3), in place."""
    height, width = picture.shape[:2]
    word = WORDS[rng.integers(len(WORDS))]
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX]))
    (w, h), _ = cv2.getTextSize(word, font, 1.0, 2)
    scale = min(0.75 * width / max(w, 1), 0.5 * height / max(h, 1))
    if scale < 0.15:
        return
    at = (int((width - w * scale) / 2), int((height + h * scale) / 2))
    dark = picture.mean() > 0.5
    ink = tx.any_color(rng) * 0.35 + (0.0 if dark else 0.6)
    mask = np.zeros((height, width), np.uint8)
    cv2.putText(mask, word, at, font, scale, 255, max(1, round(2 * scale)), cv2.LINE_AA)
    cover = mask.astype(np.float32)[..., None] / 255
    picture += (ink - picture) * cover


def _round_shade(width: int, height: int, rng: np.random.Generator) -> Floats:
    """Light on a standing cylinder."""
    u = np.linspace(-1, 1, width)[None, :] + np.zeros((height, 1))
    lit = rng.uniform(-0.5, 0.5)
    shade = (
        0.35
        + 0.75 * np.exp(-((u - lit) ** 2) / 0.5)
        + 0.15 * np.exp(-((u - lit * 1.2) ** 2) / 0.01) * (rng.random() < 0.5)
    )
    return np.asarray(shade, np.float32)


def _surface(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Material of a made thing."""
    makers = (tx.plaster, tx.plaster, tx.fabric, tx.wood, tx.brick)
    return makers[rng.integers(len(makers))](rng, max(height, 4), max(width, 4))


def pot(b: Builder, rim: Point, width: float, height: float) -> None:
    """A vase or flower pot whose rim is centred at a point."""
    rng = b.rng
    t = np.linspace(0, 1, 16)
    pick = rng.random()
    if pick < 0.5:
        half = width / 2 * (1 - rng.uniform(0.15, 0.4) * t)
    elif pick < 0.8:
        half = width / 2 * (0.75 + 0.45 * np.sin(np.pi * t ** rng.uniform(0.6, 1.4)))
    else:
        half = width / 2 * (1 + 0 * t)
    left = np.stack([rim[0] - half, rim[1] + t * height], 1)
    right = np.stack([rim[0] + half, rim[1] + t * height], 1)[::-1]
    paint = tx.plaster(rng, 60, 60) if rng.random() < 0.6 else _surface(rng, 60, 60)
    b.polygon(np.concatenate([left, right]), paint, (), 0.0, _round_shade(48, 8, rng))
    if pick < 0.5:
        lip = np.array([[-0.54, -0.02], [0.54, -0.02], [0.54, 0.12], [-0.54, 0.12]]) * [width, height] + rim
        b.polygon(lip, np.clip(paint * 1.08, 0, 1), (), 0.0, _round_shade(48, 4, rng))


def candle(b: Builder, top: Point, width: float, height: float, wax: Floats) -> None:
    """The body of a candle, lit from its flame downwards."""
    t = np.linspace(0, np.pi, 12)
    edge = np.stack([np.cos(t) * width / 2, np.sin(t) * width * 0.09], 1)
    outline = np.concatenate([edge * [1, -1] + top, edge[::-1] + top + [0.0, height]])
    rows = np.linspace(1.0, 0.0, 24)[:, None] ** b.rng.uniform(0.8, 2.5) * 0.8 + 0.05
    shade = (rows * (0.55 + 0.45 * _round_shade(32, 24, b.rng))).astype(np.float32)
    b.polygon(outline, np.clip(wax, 0, 1).astype(np.float32), (), 0.0, shade)


def box(b: Builder, corner: Point, width: float, height: float) -> None:
    """A box, book, sign, cabinet or post, sometimes lettered."""
    rng = b.rng
    paint = _surface(rng, int(height), int(width))
    if rng.random() < 0.4:
        write(rng, paint)
    turn = rng.normal(0, 0.06) if rng.random() < 0.4 else 0.0
    outline = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float) * [width, height]
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    shade = (
        rng.uniform(0.6, 1.1) * (1 + rng.uniform(-0.3, 0.3) * np.linspace(-1, 1, 16)[None] * np.ones((8, 1)))
    ).astype(np.float32)
    b.polygon(outline @ spin + corner, paint, (), 0.0, shade)
    if rng.random() < 0.5:
        side = (
            np.array([[width, 0], [width * 1.18, -0.1 * height], [width * 1.18, 0.9 * height], [width, height]]) @ spin
            + corner
        )
        b.polygon(side, np.clip(paint * 0.55, 0, 1), ())


def stone(b: Builder, centre: Point, radius: float) -> None:
    """A stone, fruit or ball."""
    rng = b.rng
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    rough = rng.uniform(0, 0.12)
    r = radius * (1 + rough * np.sin(2 * t + rng.uniform(0, 6)) + 0.6 * rough * np.sin(3 * t + rng.uniform(0, 6)))
    outline = np.stack([centre[0] + r * np.cos(t), centre[1] + r * np.sin(t) * rng.uniform(0.65, 1.0)], 1)
    v, u = np.mgrid[-1:1:32j, -1:1:32j]
    light = np.clip(1.05 - 0.35 * ((u + 0.35) ** 2 + (v + 0.45) ** 2), 0.15, 1.2)
    gloss = 0.5 * np.exp(-((u + 0.3) ** 2 + (v + 0.4) ** 2) / 0.02) * (rng.random() < 0.4)
    paint = tx.soil(rng, 64, 64) if rng.random() < 0.6 else tx.plaster(rng, 64, 64)
    b.polygon(outline, paint, (), 0.0, (light + gloss).astype(np.float32))


def face(b: Builder, centre: Point, radius: float) -> None:
    """A head with hair, eyes and shoulders: a person who keeps still."""
    rng = b.rng
    skin = tx.color(rng, (12, 30), (0.25, 0.6), (0.3, 0.95))
    hair, coat = tx.color(rng, (10, 40), (0.1, 0.8), (0.05, 0.6)), tx.fabric(rng, 60, 80)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(t), np.sin(t)], 1)
    v, u = np.mgrid[-1:1:32j, -1:1:32j]
    round_light = np.clip(1.05 - 0.3 * ((u + 0.4) ** 2 + (v + 0.3) ** 2), 0.3, 1.1).astype(np.float32)
    c = np.asarray(centre)
    b.polygon(c + ring * [1.9 * radius, 1.5 * radius] + [0, 2.4 * radius], coat, (), 0.0, round_light)
    b.polygon(c + ring * [0.4 * radius, 0.8 * radius] + [0, 0.9 * radius], skin * 0.8, ())
    b.polygon(c + ring * [0.92 * radius, 1.1 * radius] + [0, -0.2 * radius], hair, (), 0.5, round_light)
    b.polygon(c + ring * [0.75 * radius, radius] + [0, 0.08 * radius], skin, (), 0.6, round_light)
    for side in (-1, 1):
        eye = c + np.array([side * 0.3, -0.02]) * radius
        b.polygon(eye + ring * [0.14 * radius, 0.07 * radius], np.full(3, 0.9, np.float32), ())
        b.polygon(eye + ring * 0.06 * radius, np.full(3, 0.12, np.float32), ())
        b.polygon(eye + ring * [0.18 * radius, 0.03 * radius] + [0, -0.17 * radius], hair * 0.8, ())
    b.polygon(c + ring * [0.09 * radius, 0.2 * radius] + [0, 0.22 * radius], skin * 0.88, (), 1.0)
    b.polygon(
        c + ring * [0.25 * radius, 0.06 * radius] + [0, 0.58 * radius],
        np.clip(skin * [0.95, 0.55, 0.55], 0, 1).astype(np.float32),
        (),
        0.5,
    )


def scatter(b: Builder, count: int, floor: float = 0.95, tall: float = 0.5) -> None:
    """Put ``count`` still things on the ground line ``floor`` (share of the height)."""
    rng = b.rng
    for _ in range(count):
        x = rng.uniform(-0.05, 0.95) * b.width
        w, h = b.width * rng.uniform(0.05, 0.26), b.height * rng.uniform(0.12, tall)
        bottom = b.height * floor * rng.uniform(0.9, 1.15)
        pick = rng.random()
        if pick < 0.35:
            box(b, (x, bottom - h), w, h)
        elif pick < 0.6:
            pot(b, (x + w / 2, bottom - h), w, h)
        elif pick < 0.8:
            stone(b, (x + w / 2, bottom - w * 0.35), w * 0.45)
        elif pick < 0.9:
            box(b, (x, bottom - 2 * h), b.width * rng.uniform(0.015, 0.05), 3 * h)
        else:
            face(b, (x, b.height * rng.uniform(0.3, 0.6)), b.height * rng.uniform(0.1, 0.22))
