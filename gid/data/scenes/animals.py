"""A resting animal that breathes."""

from __future__ import annotations

import cv2
import numpy as np

from gid.data.scenes import textures as tx
from gid.data.scenes.builder import Builder


def animal(b: Builder) -> None:
    """A furry shape that lies and breathes: a weak, smooth field, nearly nothing at the ground."""
    rng = b.rng
    w, h = b.width * rng.uniform(0.25, 0.6), b.height * rng.uniform(0.25, 0.5)
    x, y = rng.uniform(0.05, 0.95) * (b.width - w), b.height * rng.uniform(0.5, 0.95) - h
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    lumps = 1 + 0.06 * np.sin(3 * t + rng.uniform(0, 6)) + 0.04 * np.sin(5 * t + rng.uniform(0, 6))
    outline = np.stack(
        [x + w / 2 + w / 2 * np.cos(t) * lumps, y + h / 2 + h / 2 * np.clip(np.sin(t) * lumps, -2, 0.75)], 1
    )
    base, other = tx.color(rng, (15, 40), (0.05, 0.6), (0.2, 0.85)), tx.color(rng, (15, 40), (0.05, 0.5), (0.1, 0.95))
    fur = tx.noise(rng, int(h) + 8, int(w) + 8, 7, 2)
    fur = cv2.blur(fur, (3, 7)) * 2
    bands = np.sin(np.linspace(0, rng.uniform(8, 40), int(w) + 8)[None] + tx.noise(rng, int(h) + 8, int(w) + 8, 50, 3))
    coat = tx.mix(base, other, 0.5 + 0.5 * bands * (rng.random() < 0.6)) * (1 + 0.12 * fur)[..., None]
    v = np.linspace(-1, 1, 24)[:, None]
    shade = np.clip(1.05 - 0.45 * np.clip(v, 0, 1) - 0.2 * v**2 + np.zeros((1, 32)), 0.2, 1.2).astype(np.float32)
    gy, gx = np.mgrid[0:1:16j, -1:1:20j]
    gain = (np.clip(1 - gy, 0, 1) ** 0.7 * np.exp(-((gx - rng.uniform(-0.3, 0.3)) ** 2) / 0.4)).astype(np.float32)
    chain = (b.field((x, y, x + w, y + h), b.rms(0.4), rng.uniform(0.25, 0.6), 2, gain),)
    head = 0.2 * h * np.stack([np.cos(t), 0.85 * np.sin(t)], 1) * 1.2
    side = x + w * (0.12 if rng.random() < 0.5 else 0.88)
    centre = np.array([side, y + h * rng.uniform(0.45, 0.65)])
    b.polygon(outline, np.clip(coat, 0, 1).astype(np.float32), chain, 0.6, shade)
    for ear in (-1, 1):
        tip = centre + np.array([ear * 0.17 * h, -0.36 * h])
        b.polygon(
            np.array([centre + np.array([ear * 0.04, -0.15]) * h, tip, centre + np.array([ear * 0.22, -0.08]) * h]),
            (base * 0.8).astype(np.float32),
            chain,
            0.5,
        )
    b.polygon(
        centre + head,
        np.clip(coat[: coat.shape[0] // 2, : coat.shape[1] // 2] * 1.05, 0, 1).astype(np.float32),
        chain,
        0.5,
        shade,
    )
