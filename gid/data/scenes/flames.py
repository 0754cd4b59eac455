"""Candle flames: bright, quick, anchored at the wick."""

from __future__ import annotations

import numpy as np

from gid.data.scenes import sprites, stills
from gid.data.scenes import textures as tx
from gid.data.scenes.builder import Builder, curve
from gid.data.scenes.sprites import Sprite


def flame_sprite(rng: np.random.Generator) -> Sprite:
    """A flame: white-yellow core, orange rim, blue foot, soft edge."""
    size = 128
    s, n = sprites._grid(size)
    t = np.clip(s, 0, 1)
    half = 0.19 * np.sin(np.pi * np.clip(t, 1e-3, 0.999) ** 0.62) ** 0.9 + 1e-4
    d = np.abs(n) / half
    alpha = np.clip((1.15 - d) * 2.2, 0, 1) * np.clip((1 - s) * 9, 0, 1) * np.clip(s * 20, 0, 1)
    heat = np.clip(1.25 - d * 0.75, 0, 1)[..., None]
    rgb = np.array([1.0, 0.62, 0.2], np.float32) * (1 - heat) + np.array([1.0, 0.97, 0.82], np.float32) * heat
    foot = np.clip(1 - t * 4.5, 0, 1)[..., None]
    rgb = rgb * (1 - 0.65 * foot) + np.array([0.2, 0.25, 0.7], np.float32) * 0.5 * foot
    return Sprite.build(np.dstack([np.clip(rgb, 0, 1) * alpha[..., None], alpha]).astype(np.float32))


def candles(b: Builder) -> None:
    """Candles or tea lights in the dark, whose flames lick and flicker while the wax stands still."""
    rng = b.rng
    count = int(rng.integers(1, 8))
    flame = flame_sprite(rng)
    size = b.height * rng.uniform(0.09, 0.24) * (1.1 if count < 4 else 0.8)
    glow = b.background
    y, x = np.mgrid[0 : b.height, 0 : b.width].astype(np.float32)
    spots = sorted(
        (
            (rng.uniform(0.06, 0.94) if count > 1 else rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.8))
            for _ in range(count)
        ),
        key=lambda s: s[1],
    )
    wax = tx.any_color(rng) * 0.4 + 0.5 if rng.random() < 0.6 else tx.color(rng, (0, 40), (0.3, 0.9), (0.3, 0.9))
    wide, tall = b.height * rng.uniform(0.05, 0.17), b.height * rng.uniform(0.05, 0.6)
    for u, v in spots:
        top = (u * b.width, v * b.height)
        near = np.exp(-(((x - top[0]) ** 2 + (y - top[1] + size / 2) ** 2) / (2 * (1.6 * size) ** 2)))
        glow += (near[..., None] * np.array([0.34, 0.17, 0.06]) * rng.uniform(0.3, 0.9)).astype(np.float32)
        stills.candle(b, top, wide * rng.uniform(0.9, 1.1), tall, wax)
        wick = (top[0], top[1] - size * 0.13)
        b.ribbon(curve(top, wick, 0.1, 4), np.full(4, 0.9 * b.unit), np.array([0.12, 0.06, 0.04], np.float32))
        tip = (wick[0], wick[1] - size)
        drive = b.swing(wick, tip, min(b.rms(1.1), 0.12 * size), rng.uniform(0.9, 2.4), 0.5, 1.7, 0.75)
        stretch = np.zeros((b.rig.num_bands - 1, 2, 2), np.complex64)
        stretch[:, 1, 1] = (
            b.wind.drive(rng, rng.uniform(1.2, 2.8), 0.6, wick, 0.3) * min(b.rms(1.2), 0.14 * size) / size
        )
        b.place(
            flame,
            (wick[0], wick[1] + 0.08 * size),
            rng.normal(0, 0.06),
            size,
            (drive, b.rig.joint(wick, size, 1.3, stretch)),
            rng.uniform(0.85, 1.15),
        )
    b.background = np.clip(glow, 0, 1)
