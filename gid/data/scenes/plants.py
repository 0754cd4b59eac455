"""Herbs: flowers on stems, leaves, grass, reeds, meadows and close-ups."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gid.data.scenes import sprites
from gid.data.scenes.builder import Builder, Chain, Point, curve, heading
from gid.data.scenes.sprites import Sprite
from gid.data.scenes.textures import Floats, blossom_color, color, leaf_color, noise

HEADS = ("daisy", "lily", "rose", "cup", "cluster", "umbel", "spike")


@dataclass(frozen=True)
class Species:
    """The look and the stiffness that the plants of one kind share."""

    leaves: tuple[Sprite, ...]
    heads: tuple[Sprite, ...]
    stem: Floats
    leaf_length: float
    stem_hertz: float
    leaf_hertz: float
    damping: float
    head_size: float

    @classmethod
    def sample(cls, rng: np.random.Generator, shape: str | None = None, heads: bool = True) -> Species:
        """Draw a species."""
        base = leaf_color(rng)
        shape = shape or str(rng.choice(sprites.SHAPES[:6]))
        kind, tint = str(rng.choice(HEADS)), blossom_color(rng)
        return cls(
            leaves=tuple(sprites.leaf(rng, shape, base * rng.uniform(0.85, 1.15)) for _ in range(3)),
            heads=tuple(sprites.blossom(rng, kind, tint) for _ in range(2)) if heads else (),
            stem=np.clip(base * rng.uniform(0.6, 0.95) + rng.uniform(0, 0.08), 0, 1).astype(np.float32),
            leaf_length=float(rng.uniform(0.14, 0.4)),
            stem_hertz=float(rng.uniform(0.45, 1.9)),
            leaf_hertz=float(rng.uniform(0.9, 2.6)),
            damping=float(rng.uniform(0.12, 0.45)),
            head_size=float(rng.uniform(0.16, 0.42)),
        )


def choose(rng: np.random.Generator, items: tuple[Sprite, ...]) -> Sprite:
    """One of the sprites."""
    return items[rng.integers(len(items))]


def leaf_at(
    b: Builder,
    species: Species,
    foot: Point,
    angle: float,
    length: float,
    chain: Chain,
    gain: float,
    blur: float,
    flutter: float = 0.5,
) -> None:
    """A leaf with its own flutter."""
    joint = b.flutter(
        foot, angle, length, min(b.rms(flutter), 0.16 * length), species.leaf_hertz * b.rng.uniform(0.8, 1.25)
    )
    tint = gain * (1 + b.rng.normal(0, 0.05, 3)) * b.warmth
    aspect = b.rng.uniform(0.45, 1.1) * (1 if b.rng.random() < 0.5 else -1)
    b.place(choose(b.rng, species.leaves), foot, angle, length, (*chain, joint), aspect, tint.astype(np.float32), blur)


def flower(
    b: Builder,
    species: Species,
    base: Point,
    height: float,
    blur: float = 0.0,
    gain: float = 1.0,
    leaves: int | None = None,
    chain: Chain = (),
    sway: float = 1.0,
    lean: float | None = None,
) -> None:
    """One stem with leaves and a head; it bends about its base with a power of its own."""
    rng = b.rng
    tilt = rng.normal(0, 0.22) if lean is None else lean
    tip = (base[0] + height * float(np.sin(tilt)), base[1] - height * float(np.cos(tilt)))
    points = curve(base, tip, rng.normal(0, 0.12))
    rms = b.rms(sway) * min(1.5, (height / (0.5 * b.height)) ** 0.6)
    hertz = species.stem_hertz * rng.uniform(0.85, 1.2)
    stem = b.swing(base, tip, rms, hertz, species.damping, rng.uniform(1.3, 2.2))
    thick = max(0.5, height * 0.011)
    b.ribbon(points, np.linspace(thick, thick * 0.6, len(points)), species.stem * gain, (*chain, stem), blur)
    for _ in range(int(rng.integers(1, 7)) if leaves is None else leaves):
        foot, along = heading(points, rng.uniform(0.03, 0.75))
        side = 1 if rng.random() < 0.5 else -1
        size = height * species.leaf_length * rng.uniform(0.7, 1.2)
        leaf_at(
            b,
            species,
            foot,
            along + side * rng.uniform(0.5, 1.4),
            size,
            (*chain, stem),
            gain * rng.uniform(0.7, 1.05),
            blur,
            0.4,
        )
    if species.heads:
        foot, along = heading(points, 0.99)
        size = height * species.head_size * rng.uniform(0.85, 1.15)
        nod = b.swing(foot, (foot[0], foot[1] - size), min(b.rms(0.3), 0.1 * size), hertz * 1.7, 0.3, 1.0)
        tint = (gain * rng.uniform(0.9, 1.08) * b.warmth).astype(np.float32)
        b.place(
            choose(rng, species.heads),
            foot,
            along + rng.normal(0, 0.25),
            size * 1.15,
            (*chain, stem, nod),
            1 if rng.random() < 0.5 else -1,
            tint,
            blur,
        )


def blades(
    b: Builder,
    row: float,
    height: float,
    count: int,
    base: Floats,
    blur: float,
    gain: float,
    x0: float,
    x1: float,
    heads: tuple[Sprite, ...] = (),
) -> None:
    """A tuft or row of grass blades or reeds; neighbours share a joint as they lean on each other."""
    rng = b.rng
    hertz, damping, power = rng.uniform(0.5, 1.5), rng.uniform(0.2, 0.5), rng.uniform(1.4, 2.2)
    cells = max(1, int((x1 - x0) / (18 * b.unit)))
    joints: dict[int, int] = {}
    for x in np.sort(rng.uniform(x0, x1, count)):
        cell = int((x - x0) / (x1 - x0 + 1e-3) * cells)
        tall = height * rng.uniform(0.55, 1.15)
        foot = (float(x), row + rng.normal(0, 0.03) * height)
        if cell not in joints:
            joints[cell] = b.swing(
                foot,
                (foot[0], foot[1] - height),
                b.rms(min(1.3, height / (0.35 * b.height))),
                hertz * rng.uniform(0.85, 1.2),
                damping,
                power,
            )
        own = b.swing(
            foot, (foot[0], foot[1] - tall), b.rms(0.35) * min(1.0, tall / (0.2 * b.height)), hertz * 1.4, 0.3, power
        )
        lean = rng.normal(0, 0.17)
        tip = (foot[0] + tall * float(np.sin(lean)), foot[1] - tall * float(np.cos(lean)))
        points = curve(foot, tip, rng.normal(0, 0.13), 10)
        wide = max(0.5, tall * rng.uniform(0.005, 0.012))
        tint = base * gain * rng.uniform(0.65, 1.25) * b.warmth
        b.ribbon(points, wide * np.linspace(1, 0.1, 10), tint.astype(np.float32), (joints[cell], own), blur)
        if heads and rng.random() < 0.5:
            end, along = heading(points, 0.97)
            b.place(
                choose(rng, heads), end, along, tall * rng.uniform(0.12, 0.25), (joints[cell], own), 1.0, gain, blur
            )


def tufts(
    b: Builder,
    looks: tuple[Sprite, ...],
    row: float,
    height: float,
    count: int,
    blur: float,
    gain: float,
    x0: float,
    x1: float,
) -> None:
    """A row of grass tufts, each with a joint of its own that follows the gust."""
    rng = b.rng
    hertz, damping, power = rng.uniform(0.5, 1.4), rng.uniform(0.2, 0.5), rng.uniform(1.4, 2.1)
    for x in rng.uniform(x0, x1, count):
        tall = height * rng.uniform(0.65, 1.15)
        foot = (float(x), row + rng.normal(0, 0.04) * height)
        joint = b.swing(
            foot,
            (foot[0], foot[1] - tall),
            b.rms(min(1.2, tall / (0.3 * b.height))),
            hertz * rng.uniform(0.85, 1.2),
            damping,
            power,
        )
        tint = (gain * rng.uniform(0.75, 1.15) * b.warmth).astype(np.float32)
        b.place(
            choose(rng, looks),
            foot,
            rng.normal(0, 0.1),
            tall,
            (joint,),
            rng.uniform(0.7, 1.3) * rng.choice([-1, 1]),
            tint,
            blur,
        )


def turf(b: Builder, horizon: float, base: Floats) -> None:
    """The matted grass that shows between the tufts of a meadow; it moves weakly."""
    rng = b.rng
    x = np.linspace(-b.margin, b.width + b.margin, 40)
    edge = horizon + noise(rng, 2, 40, 12, 3)[0] * 0.012 * b.height
    low = b.height + b.margin
    outline = np.concatenate([np.stack([x, edge], 1), [[x[-1], low], [x[0], low]]])
    h, w = int(low - horizon) + 4, b.width + 2 * b.margin + 4
    streaks = cv2.resize(noise(rng, max(4, h // 5), w, 7, 3, 0.8), (w, h))
    paint = base * (0.75 + 0.22 * streaks)[..., None] * np.linspace(0.8, 1.0, h)[:, None, None]
    box = (-b.margin, horizon - 10, b.width + b.margin, low)
    joint = b.field(box, b.rms(0.35), rng.uniform(0.5, 1.4), 6, np.ones((16, 28), np.float32))
    b.polygon(outline, np.clip(paint, 0, 1).astype(np.float32), (joint,), 1.0 * b.unit)


def meadow(b: Builder, horizon: float, focus: float, rows: int = 9, flowers: float = 0.5, tall: float = 1.0) -> None:
    """Rows of grass and flowers, far to near, larger and sharper towards ``focus`` (share of the depth)."""
    rng = b.rng
    green = leaf_color(rng)
    species = [Species.sample(rng) for _ in range(2)]
    spread = rng.uniform(0.1, 0.35)
    turf(b, horizon, green * 0.6)
    looks = tuple(
        sprites.tuft(rng, green * rng.uniform(0.85, 1.15), int(rng.integers(14, 34)), spread) for _ in range(4)
    )
    for i in range(rows):
        depth = (i + 1) / rows
        row = horizon + (b.height * 1.08 - horizon) * depth**1.4
        height = b.height * (0.06 + 0.34 * depth**1.3) * tall
        blur = 3.2 * abs(depth - focus) ** 1.2 * b.unit
        gain = 0.6 + 0.45 * depth * rng.uniform(0.8, 1.1)
        tufts(b, looks, row, height, int(4.2 * b.width / height + 8), blur, gain, -20, b.width + 20)
        blades(b, row, height * 1.15, 6, green, blur, gain, -20, b.width + 20)
        for _ in range(int(rng.poisson(flowers * (13 - 6 * depth)))):
            kind = species[int(rng.random() < 0.3)]
            flower(
                b,
                kind,
                (rng.uniform(-10, b.width + 10), row + 2),
                height * rng.uniform(0.9, 1.5),
                blur,
                gain * 1.1,
                leaves=int(rng.integers(0, 3)),
                sway=1.0,
            )


def closeup(b: Builder) -> None:
    """One large bloom, its petals loose, before its own leaves."""
    rng = b.rng
    species = Species.sample(rng)
    centre = (b.width * rng.uniform(0.3, 0.7), b.height * rng.uniform(0.35, 0.6))
    base = (centre[0] + rng.normal(0, 0.12) * b.width, b.height * 1.5)
    stem = b.swing(base, centre, b.rms(1.2), species.stem_hertz, species.damping, 1.6)
    points = curve(base, centre, rng.normal(0, 0.08))
    for _ in range(int(rng.integers(2, 8))):
        foot, along = heading(points, rng.uniform(0.2, 0.75))
        leaf_at(
            b,
            species,
            foot,
            along + rng.choice([-1, 1]) * rng.uniform(0.6, 1.6),
            b.height * rng.uniform(0.3, 0.6),
            (stem,),
            rng.uniform(0.55, 1.0),
            rng.uniform(0, 2) * b.unit,
            0.5,
        )
    b.ribbon(points, np.linspace(4.5, 3.2, 14) * b.unit, species.stem, (stem,))
    radius = b.height * rng.uniform(0.26, 0.56)
    tint, pointed = blossom_color(rng), rng.random() < 0.4
    width = rng.uniform(0.2, 0.32) if pointed else rng.uniform(0.36, 0.5)
    petals = tuple(
        Sprite.build(sprites.petal(rng, tint * rng.uniform(0.85, 1.08), width, pointed, 192)) for _ in range(4)
    )
    rings, flat = int(rng.integers(2, 6)), rng.uniform(0.7, 1.0)
    for ring in range(rings):
        count = int(rng.integers(6, 11)) - ring // 2
        for i in range(count):
            angle = (i + 0.5 * ring) * 2 * np.pi / count + rng.normal(0, 0.1)
            length = radius * (1 - 0.72 * ring / rings) * rng.uniform(0.9, 1.06)
            seen = float(np.arctan2(np.sin(angle), np.cos(angle) * flat))
            joint = b.flutter(centre, seen, length, b.rms(0.22), species.leaf_hertz)
            b.place(
                choose(rng, petals),
                centre,
                seen,
                length * (1 - (1 - flat) * abs(np.cos(angle))),
                (stem, joint),
                rng.uniform(0.85, 1.1),
                rng.uniform(0.8, 1.0) + 0.04 * ring,
            )
    if pointed or rings < 4:
        heart = np.zeros((64, 64, 4), np.float32)
        sprites.disc(heart, (32, 34), 24, color(rng, (30, 70), (0.4, 0.9), (0.3, 0.9)), rng)
        b.place(
            Sprite.build(heart), (centre[0], centre[1] + radius * 0.16), 0.0, radius * rng.uniform(0.25, 0.5), (stem,)
        )
