"""Woody plants and dense leaves: boughs, crowns, bushes, hedges, ivy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gid.data.scenes import sprites
from gid.data.scenes.builder import Builder, Chain, Point, curve, heading
from gid.data.scenes.plants import Species, choose, leaf_at
from gid.data.scenes.textures import Floats, color


def branch(
    b: Builder,
    species: Species,
    start: Point,
    angle: float,
    length: float,
    thick: float,
    chain: Chain,
    order: int,
    bark: Floats,
    blur: float,
    density: float,
    gain: float = 1.0,
    sway: float = 1.0,
) -> None:
    """A branch with side twigs and leaves or blossoms; each order of branching has its own joint."""
    rng = b.rng
    end = (start[0] + length * float(np.sin(angle)), start[1] - length * float(np.cos(angle)))
    points = curve(start, end, rng.normal(0, 0.16), 10)
    joint = b.swing(
        start,
        end,
        min(b.rms((0.4, 0.45, 0.6)[order] * sway), 0.08 * length),
        rng.uniform(0.5, 0.9) * (1.5 ** (2 - order)),
        rng.uniform(0.15, 0.45),
        1.7,
    )
    hung = (*chain, joint)
    b.ribbon(points, np.linspace(thick, max(0.45, thick * 0.3), 10), bark * gain, hung, blur)
    if order > 0:
        for _ in range(int(rng.integers(3, 6))):
            foot, along = heading(points, rng.uniform(0.2, 0.95))
            side = 1 if rng.random() < 0.5 else -1
            branch(
                b,
                species,
                foot,
                along + side * rng.uniform(0.4, 1.1),
                length * rng.uniform(0.3, 0.55),
                max(0.45, thick * 0.5),
                hung,
                order - 1,
                bark,
                blur,
                density,
                gain,
                sway,
            )
    size = 9 * b.unit * (1 + species.leaf_length * 2.5)
    for _ in range(int(rng.poisson(density * length / size * (6.0 if order == 0 else 2.5)))):
        foot, along = heading(points, rng.uniform(0.15, 1.0))
        foot = (foot[0] + rng.normal(0, size * 0.25), foot[1] + rng.normal(0, size * 0.25))
        if species.heads and rng.random() < 0.6:
            b.place(
                choose(rng, species.heads),
                foot,
                rng.uniform(-1.5, 1.5),
                size * rng.uniform(0.8, 1.4),
                hung,
                1.0,
                gain * rng.uniform(0.75, 1.08),
                blur,
            )
        else:
            leaf_at(
                b,
                species,
                foot,
                along + rng.normal(0, 0.9),
                size * rng.uniform(0.8, 1.5),
                hung,
                gain * rng.uniform(0.6, 1.1),
                blur,
                0.3,
            )


def crown(
    b: Builder, base: Point, height: float, blur: float = 0.0, gain: float = 1.0, count: int = 420, bush: bool = False
) -> None:
    """A tree or bush: a trunk, limbs as joints, and clusters of leaves lit from above."""
    rng = b.rng
    species = Species.sample(
        rng, str(rng.choice(["ovate", "round", "obovate", "lobed", "lance", "needle"])), heads=rng.random() < 0.25
    )
    bark = color(rng, (15, 40), (0.1, 0.45), (0.15, 0.45))
    top = (base[0] + rng.normal(0, 0.05) * height, base[1] - height)
    trunk = b.swing(base, top, b.rms(0.35), rng.uniform(0.3, 0.7), 0.3, 2.0)
    wide, bare = height * rng.uniform(0.28, 0.55), 0.05 if bush else rng.uniform(0.2, 0.4)
    if not bush:
        b.ribbon(
            curve(base, (base[0], base[1] - height * 0.75), 0.03),
            np.linspace(height * 0.04, height * 0.012, 14),
            bark * gain,
            (trunk,),
            blur,
        )
    conical = rng.random() < 0.3
    centre_y = base[1] - height * (bare + (1 - bare) / 2)
    half = height * (1 - bare) / 2
    limbs = []
    for _ in range(int(rng.integers(7, 16))):
        phi, r = rng.uniform(0, 6.3), np.sqrt(rng.random()) * 0.8
        v = float(np.sin(phi) * r)
        narrow = (1 + v) / 2 * 0.9 + 0.1 if conical else 1.0
        centre = (base[0] + wide * float(np.cos(phi)) * r * narrow, centre_y + half * v)
        root = (base[0], min(centre[1] + 0.3 * half, base[1]))
        joint = b.swing(root, centre, b.rms(0.5), rng.uniform(0.5, 1.3), rng.uniform(0.15, 0.4), 1.4)
        limbs.append((centre, joint, narrow))
        if not bush:
            b.ribbon(
                curve(root, centre, rng.normal(0, 0.15), 8),
                np.linspace(height * 0.012, 0.5, 8),
                bark * gain,
                (trunk, joint),
                blur,
            )
    size = height * rng.uniform(0.035, 0.08)
    spread = wide * rng.uniform(0.3, 0.46)
    if rng.random() < 0.8:
        shade = [sprites.clump(rng, species.stem * rng.uniform(0.5, 0.9)) for _ in range(2)]
        for centre, joint, narrow in limbs:
            reach = 2.1 * spread * narrow * rng.uniform(0.8, 1.15)
            foot = (centre[0], centre[1] + reach / 2)
            b.place(
                shade[rng.integers(2)],
                foot,
                0.0,
                reach,
                (trunk, joint),
                rng.choice([-1, 1]),
                gain * rng.uniform(0.7, 1.1),
                blur,
            )
    for i in range(count):
        centre, joint, narrow = limbs[i % len(limbs)] if rng.random() < 0.6 else limbs[rng.integers(len(limbs))]
        u, v = np.clip(rng.normal(0, 0.55, 2), -1.3, 1.3)
        foot = (centre[0] + spread * u * narrow, centre[1] + spread * v * 0.85)
        light = 0.42 + 0.35 * i / count + 0.3 * float(np.clip(-v, -0.6, 1)) + 0.2 * (centre_y - foot[1]) / half
        if species.heads and rng.random() < 0.5:
            b.place(
                choose(rng, species.heads),
                foot,
                rng.uniform(-3, 3),
                size * 1.3,
                (trunk, joint),
                1.0,
                gain * (light + 0.25),
                blur,
            )
        else:
            leaf_at(
                b,
                species,
                foot,
                rng.normal(0, 1.6),
                size * rng.uniform(0.8, 1.7),
                (trunk, joint),
                gain * max(0.25, light),
                blur,
                0.3,
            )


def foliage(
    b: Builder,
    inside: Callable[[float, float], bool],
    size: float,
    count: int,
    hanging: bool,
    blur: float = 0.0,
    sway: float = 1.0,
) -> None:
    """A hedge, ivy on a wall or a carpet of leaves: overlapping leaves in groups that share a slow joint."""
    rng = b.rng
    species = Species.sample(rng, "lobed" if hanging and rng.random() < 0.5 else None, heads=rng.random() < 0.3)
    cell = 60 * b.unit
    groups: dict[tuple[int, int], int] = {}
    layers = 3
    for i in range(count):
        x, y = rng.uniform(-0.03, 1.03) * b.width, rng.uniform(-0.03, 1.05) * b.height
        if not inside(x, y):
            continue
        key = (int((x + 500) / cell), int((y + 500) / cell))
        if key not in groups:
            pivot = (x, y + 1.6 * cell)
            groups[key] = b.swing(
                pivot, (x, y), b.rms(0.65 * sway), species.stem_hertz * rng.uniform(0.8, 1.3), 0.35, 1.2
            )
        depth = (i * layers // count + 1) / layers
        angle = rng.normal(np.pi, 0.6) if hanging else rng.normal(0, 1.1)
        gain = (0.35 + 0.65 * depth) * rng.uniform(0.8, 1.12)
        if species.heads and depth == 1 and rng.random() < 0.15:
            b.place(choose(rng, species.heads), (x, y), angle, size * 1.2, (groups[key],), 1.0, gain, blur)
        else:
            leaf_at(b, species, (x, y), angle, size * rng.uniform(0.7, 1.4), (groups[key],), gain, blur, 0.25 * sway)
