"""Things that hang or flap: lanterns, laundry, paper, cords, grapes, flags, curtains."""

from __future__ import annotations

import cv2
import numpy as np

from gid.data.scenes import sprites, stills
from gid.data.scenes import textures as tx
from gid.data.scenes.builder import Builder, Chain, Point, curve
from gid.data.scenes.plants import Species, choose, leaf_at
from gid.data.scenes.sprites import Sprite
from gid.data.scenes.textures import Floats


def dome(rng: np.random.Generator, base: Floats, ribs: int, lit: bool, squash: float) -> Sprite:
    """A lantern, balloon or lamp shade: a ribbed ball with caps; placed downwards, its foot is the hook."""
    size = 128
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    u, v = (x - size / 2) / (size * 0.4), (y - size * 0.5) / (size * 0.36 * squash)
    r2 = u * u + v * v
    alpha = np.clip((1 - np.sqrt(r2)) * size * 0.35 + 0.5, 0, 1)
    z = np.sqrt(np.clip(1 - r2, 0, 1))
    around = np.arcsin(np.clip(u / np.sqrt(np.clip(1 - v * v, 0.02, 1)), -1, 1))
    rib = 1 - 0.18 * (np.abs(np.sin(around * ribs)) < 0.12) + 0.06 * np.sin(around * ribs * 2)
    light = (0.55 + 0.7 * z**0.7 if lit else 0.3 + 0.55 * z + 0.35 * np.clip(-u * 0.5 + v * 0.5, 0, 1)) * rib
    rgb = np.clip(base * light[..., None] + (0.28 * z**4 if lit else 0.0 * z)[..., None], 0, 1)
    canvas = np.dstack([rgb * alpha[..., None], alpha]).astype(np.float32)
    for end in (FOOT_ROW, 1 - FOOT_ROW):
        cap = np.zeros((size, size), np.float32)
        cv2.rectangle(cap, (int(size * 0.4), int(size * end) - 4), (int(size * 0.6), int(size * end) + 4), 1.0, -1)
        canvas = canvas * (1 - cap[..., None]) + np.dstack(
            [np.full((size, size, 3), 0.22, np.float32) * cap[..., None], cap]
        )
    return Sprite.build(canvas.astype(np.float32))


FOOT_ROW = 0.87


def lanterns(b: Builder, lit: bool) -> None:
    """Lanterns, balls or lamps on cords, or strung along a line that sways a little."""
    rng = b.rng
    count = int(rng.integers(1, 18))
    size = b.height * rng.uniform(0.3, 0.6) / np.sqrt(count) * 1.4
    looks = [
        dome(
            rng,
            tx.any_color(rng) * 0.5 + 0.3 if lit else tx.any_color(rng),
            int(rng.integers(3, 10)),
            lit,
            rng.uniform(0.7, 1.15),
        )
        for _ in range(3)
    ]
    strung = count > 3 and rng.random() < 0.6
    cord = tx.color(rng, (0, 40), (0, 0.4), (0.05, 0.4))
    hertz = rng.uniform(0.45, 1.6)
    left, sag, slant = (
        rng.uniform(0.02, 0.4) * b.height,
        rng.uniform(0.02, 0.15) * b.height,
        rng.uniform(-0.15, 0.35) * b.height,
    )
    for i in range(count):
        x = (i + rng.uniform(0.2, 0.8)) * b.width / count
        if strung:
            row = i % 2 * rng.uniform(0.2, 0.5) * b.height
            t = x / b.width
            hook: Point = (x, left + row + slant * t + 4 * sag * t * (1 - t))
            drop = size * rng.uniform(0.05, 0.3)
        else:
            hook = (x, -size * rng.uniform(0.1, 2.0) if rng.random() < 0.7 else rng.uniform(0, 0.3) * b.height)
            drop = size * rng.uniform(0.3, 2.0)
        neck = (hook[0], hook[1] + drop)
        scale = rng.uniform(0.7, 1.2) * size
        joint = b.swing(
            hook, (x, neck[1] + scale), b.rms(1.1), hertz * rng.uniform(0.85, 1.15), rng.uniform(0.06, 0.25), 1.0, 0.8
        )
        b.ribbon(curve(hook, neck, 0.0, 4), np.full(4, 0.7 * b.unit), cord, (joint,))
        if rng.random() < 0.6:
            tail = (x, neck[1] + scale * 1.3)
            b.ribbon(
                curve((x, neck[1] + scale * 0.8), tail, 0.05, 6),
                np.full(6, scale * 0.03),
                tx.color(rng, (0, 50), (0.4, 0.9), (0.3, 0.8)),
                (joint,),
            )
        b.place(looks[i % 3], neck, np.pi, scale, (joint,), 1.0, rng.uniform(0.85, 1.05))
    if strung:
        for row in (0.0,):
            points = np.stack(
                [
                    np.linspace(-5, b.width + 5, 24),
                    left
                    + row
                    + slant * np.linspace(0, 1, 24)
                    + 4 * sag * np.linspace(0, 1, 24) * (1 - np.linspace(0, 1, 24)),
                ],
                1,
            )
            b.ribbon(points, np.full(24, 0.7 * b.unit), cord)


def sheet(
    b: Builder,
    corner: Point,
    width: float,
    height: float,
    fixed: str,
    rms: float,
    paint: Floats | None = None,
    stiff: bool = False,
) -> None:
    """A cloth fixed along its top or one side: it flaps more the farther from there, and folds shade it."""
    rng = b.rng
    x, y = corner
    picture = tx.fabric(rng, int(height) + 2, int(width) + 2) if paint is None else paint
    folds = tx.noise(rng, 24, 40, rng.uniform(6, 14), 2)
    if not stiff:
        along = np.linspace(0, rng.uniform(2, 7) * 2 * np.pi, 40)[None, :] + rng.uniform(0, 6)
        folds = 0.6 * np.sin(along + 0.5 * folds) + 0.4 * folds
    shade = np.clip(1 + (0.05 if stiff else rng.uniform(0.08, 0.3)) * folds, 0.3, 1.5).astype(np.float32)
    free = np.linspace(0, 1, 16)[:, None] if fixed == "top" else np.linspace(0, 1, 20)[None, :]
    gain = np.broadcast_to(free ** rng.uniform(0.8, 1.4), (16, 20)).astype(np.float32)
    hertz = rng.uniform(0.5, 1.9)
    chain: Chain
    pad = 6 * b.unit
    if stiff:
        hook = (x + width / 2, y)
        chain = (
            b.swing(hook, (hook[0], y + height), rms, hertz, 0.15, 1.0, 0.7),
            b.field((x - pad, y, x + width + pad, y + height), 0.4 * rms, hertz * 1.3, 2, gain),
        )
    else:
        chain = (b.field((x - pad, y, x + width + pad, y + height), rms, hertz, int(rng.integers(2, 5)), gain),)
    t = np.linspace(0, 1, 20)
    wave = np.sin(t * rng.uniform(4, 14) + rng.uniform(0, 6)) * (0.0 if stiff else 0.03 * height)
    top = np.stack([x + t * width, y + 0.2 * wave], 1)
    bottom = np.stack(
        [x + t[::-1] * width + rng.normal(0, 0.04) * width, y + height + wave[::-1] + rng.normal(0, 0.03) * height], 1
    )
    b.polygon(np.concatenate([top, bottom]), picture, chain, 0.0, shade)


def laundry(b: Builder) -> None:
    """Cloths, papers or notes on a line, held by pegs that stand still."""
    rng = b.rng
    line = b.height * rng.uniform(0.08, 0.4)
    slant = rng.normal(0, 0.06) * b.height
    count = int(rng.integers(1, 8))
    stiff = rng.random() < 0.45
    step = b.width / count
    peg = tx.any_color(rng)
    text = stiff and rng.random() < 0.5
    b.ribbon(
        curve((-5, line), (b.width + 5, line + slant), 0.0, 4),
        np.full(4, 0.9 * b.unit),
        tx.color(rng, (0, 40), (0, 0.3), (0.05, 0.8)),
    )
    for i in range(count):
        w = step * rng.uniform(0.55, 0.95)
        h = min(w * rng.uniform(0.7, 1.1) if stiff else b.height * rng.uniform(0.3, 0.65), 0.75 * b.height)
        x = i * step + (step - w) * rng.random()
        y = line + slant * (x + w / 2) / b.width
        paint = None
        if stiff:
            paint = np.clip(
                tx.any_color(rng) * 0.5 + 0.45 + 0.02 * tx.noise(rng, int(h) + 2, int(w) + 2, 30, 4)[..., None], 0, 1
            ).astype(np.float32)
            if text:
                stills.write(rng, paint)
        sheet(b, (x, y), w, h, "top", b.rms(1.0 if stiff else 0.9), paint, stiff)
        for px in (x + 0.5 * w,) if stiff else (x + 0.08 * w, x + 0.92 * w):
            b.ribbon(curve((px, y - 6 * b.unit), (px, y + 7 * b.unit), 0.0, 4), np.full(4, 2.2 * b.unit), peg)


def flag(b: Builder) -> None:
    """One or more flags on still poles."""
    rng = b.rng
    for _ in range(int(rng.integers(1, 4))):
        h = b.height * rng.uniform(0.15, 0.4)
        w = h * rng.uniform(1.2, 1.9)
        x, y = rng.uniform(0.03, 0.7) * b.width, rng.uniform(0.03, 0.4) * b.height
        sheet(b, (x, y), w, h, "side", b.rms(1.4))
        b.ribbon(
            curve((x, y - 8), (x, b.height + 10), 0.0, 6),
            np.full(6, 1.8 * b.unit),
            tx.color(rng, (0, 60), (0, 0.3), (0.2, 0.9)),
        )


def curtain(b: Builder) -> None:
    """Curtains from a rod, before a window or a wall."""
    rng = b.rng
    y = rng.uniform(-0.15, 0.15) * b.height
    sides = [(-0.05, rng.uniform(0.15, 0.45))] + ([(rng.uniform(0.6, 0.8), 1.05)] if rng.random() < 0.7 else [])
    for start, end in sides:
        sheet(b, (start * b.width, y), (end - start) * b.width, b.height * rng.uniform(0.7, 1.2) - y, "top", b.rms(1.0))


def grapes(b: Builder) -> None:
    """Clusters of berries, catkins or pods hanging among leaves."""
    rng = b.rng
    species = Species.sample(rng, str(rng.choice(["lobed", "heart", "ovate"])), heads=False)
    catkins = rng.random() < 0.4
    berry = np.zeros((64, 64, 4), np.float32)
    base = tx.color(rng, (0, 360), (0.3, 0.8), (0.3, 0.85))
    sprites.disc(berry, (32, 32), 26, base, np.random.default_rng(0))
    y, x = np.mgrid[0:64, 0:64].astype(np.float32)
    ball = np.clip(1 - ((x - 32) ** 2 + (y - 32) ** 2) / 26**2, 0, 1)
    shine = 0.6 * np.exp(-((x - 24) ** 2 + (y - 22) ** 2) / 40)
    berry[..., :3] = np.clip(base * (0.35 + 0.75 * np.sqrt(ball))[..., None] + shine[..., None], 0, 1) * berry[..., 3:]
    sprite = Sprite.build(sprites.with_halo(berry, 0.45))
    for _ in range(int(rng.integers(4, 16))):
        foot = (rng.uniform(0, b.width), rng.uniform(-0.1, 0.4) * b.height)
        leaf_at(
            b,
            species,
            foot,
            rng.normal(np.pi, 1.2),
            b.height * rng.uniform(0.18, 0.4),
            (),
            rng.uniform(0.4, 0.9),
            rng.choice([0, 1.5]) * b.unit,
            0.6,
        )
    for _ in range(int(rng.integers(6, 30)) if catkins else int(rng.integers(1, 5))):
        hook = (rng.uniform(0.05, 0.95) * b.width, rng.uniform(-0.1, 0.6 if catkins else 0.25) * b.height)
        length = b.height * (rng.uniform(0.12, 0.35) if catkins else rng.uniform(0.35, 0.75))
        joint = b.swing(hook, (hook[0], hook[1] + length), b.rms(0.9), rng.uniform(0.5, 1.2), 0.2, 1.3, 0.8)
        size = length * (0.09 if catkins else rng.uniform(0.13, 0.2))
        b.ribbon(
            curve(hook, (hook[0], hook[1] + length * 0.3), 0.05, 5), np.full(5, 1.1 * b.unit), species.stem, (joint,)
        )
        count = 26 if catkins else int(rng.integers(25, 60))
        for i in range(count):
            t = i / count if catkins else rng.uniform(0.12, 1)
            wide = 0.05 if catkins else 0.26 * np.sin(np.pi * min(1.0, t * 0.75 + 0.2))
            at = (hook[0] + rng.normal(0, 0.6) * wide * length, hook[1] + t * length)
            own: Chain = (joint,)
            if not catkins:
                own = (joint, b.flutter(at, 0.0, size, min(b.rms(0.15), 0.1 * size), 2.0))
            b.place(
                sprite,
                at,
                0.0,
                size * rng.uniform(0.85, 1.15),
                own,
                1.0,
                rng.uniform(0.6, 1.05) * (0.7 + 0.3 * i / count),
            )
    for _ in range(int(rng.integers(2, 8))):
        foot = (rng.uniform(0, b.width), rng.uniform(-0.15, 0.15) * b.height)
        leaf_at(
            b,
            species,
            foot,
            rng.normal(np.pi, 1.2),
            b.height * rng.uniform(0.2, 0.4),
            (),
            rng.uniform(0.8, 1.1),
            0.0,
            0.6,
        )


def cords(b: Builder) -> None:
    """Bare cords, chains, ribbons or willow rods that hang from above."""
    rng = b.rng
    species = Species.sample(rng, "lance", heads=False)
    leafy = rng.random() < 0.5
    paint = species.stem if leafy else tx.any_color(rng)
    wide = rng.uniform(0.6, 4) * b.unit
    for _ in range(int(rng.integers(3, 16))):
        hook = (rng.uniform(0, b.width), rng.uniform(-0.2, 0.1) * b.height)
        end = (hook[0] + rng.normal(0, 0.03) * b.width, hook[1] + b.height * rng.uniform(0.4, 1.1))
        joint = b.swing(hook, end, b.rms(1.2), rng.uniform(0.35, 0.9), 0.2, 1.5)
        points = curve(hook, end, rng.normal(0, 0.05), 16)
        b.ribbon(
            points,
            np.full(16, wide if not leafy else 0.9 * b.unit),
            (paint * rng.uniform(0.7, 1.1)).astype(np.float32),
            (joint,),
        )
        if leafy:
            for p in points[3:].repeat(2, 0):
                leaf_at(
                    b,
                    species,
                    (float(p[0]), float(p[1])),
                    rng.normal(np.pi, 0.7),
                    b.height * rng.uniform(0.06, 0.12),
                    (joint,),
                    rng.uniform(0.6, 1.1),
                    0.0,
                    0.3,
                )
        elif rng.random() < 0.4:
            head = species.leaves if leafy else (dome(rng, tx.any_color(rng), 4, False, 1.0),)
            b.place(choose(rng, head), end, np.pi, b.height * rng.uniform(0.06, 0.14), (joint,))
