"""What a scene of each kind is made of: background, still things and movers, far to near."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gid.data.scenes import animals, backgrounds, flames, hanging, plants, sprites, stills
from gid.data.scenes import trees as trees_
from gid.data.scenes.builder import Builder
from gid.data.scenes.plants import Species
from gid.data.scenes.textures import color

OUTDOOR = {"sky": 3.0, "landscape": 2.0, "bokeh": 2.0, "wall": 1.0}
CLOSE = {"bokeh": 4.0, "studio": 2.0, "wall": 1.5, "sky": 1.0, "black": 0.7, "interior": 1.0}
INDOOR = {"interior": 4.0, "wall": 3.0, "studio": 2.0, "bokeh": 0.5}


def _back(b: Builder, kinds: dict[str, float], blur: float) -> None:
    """Set the background; foliage far out of focus sways weakly in half of the pictures."""
    name = backgrounds.pick(b.rng, kinds)
    b.background = backgrounds.make(b.rng, b.height, b.width, name, blur)
    if name == "bokeh" and b.rng.random() < 0.65:
        _sway_background(b, b.rng.uniform(0.25, 0.8))


def _sway_background(b: Builder, strength: float) -> None:
    """Turn the background into the farthest moving layer."""
    m = b.margin
    rgb = np.pad(b.background, ((m, m), (m, m), (0, 0)), mode="reflect")
    rgba = np.dstack([rgb, np.ones(rgb.shape[:2], np.float32)]).astype(np.float32)
    gain = np.linspace(1.0, b.rng.uniform(0.3, 1.0), 20)[:, None] * np.ones((1, 28))
    box = (-m, -m, b.width + m, b.height + m)
    natural, cells = b.rng.uniform(0.5, 1.4), int(b.rng.integers(2, 6))
    b.add(rgba, -m, -m, (b.field(box, b.rms(strength), natural, cells, gain.astype(np.float32)),))


def _maybe_stills(b: Builder, chance: float, most: int = 3) -> None:
    if b.rng.random() < chance:
        stills.scatter(b, int(b.rng.integers(1, most + 1)))


def _far_plants(b: Builder, chance: float) -> None:
    """Out-of-focus plants behind the subject, which sway as well."""
    rng = b.rng
    if rng.random() > chance:
        return
    species = Species.sample(rng)
    blur = rng.uniform(2.0, 5.0) * b.unit
    for _ in range(int(rng.integers(3, 16))):
        base = (rng.uniform(-0.1, 1.1) * b.width, b.height * rng.uniform(1.0, 1.4))
        plants.flower(
            b,
            species,
            base,
            b.height * rng.uniform(0.5, 1.2),
            blur,
            rng.uniform(0.35, 0.75),
            int(rng.integers(3, 9)),
            sway=0.7,
        )


def flowers(b: Builder) -> None:
    """One to seven flowers on stems."""
    rng = b.rng
    _back(b, CLOSE, 0.85)
    _far_plants(b, 0.4)
    _maybe_stills(b, 0.2)
    species = Species.sample(rng)
    count = int(rng.integers(1, 11))
    for i in range(count):
        depth = (i + 1) / count
        tall = b.height * rng.uniform(0.7, 1.25) * (1.35 if count < 3 else 1.0)
        base = (b.width * rng.uniform(0.1, 0.9), b.height * rng.uniform(1.0, 1.3))
        blur = 0.0 if depth > 0.4 or count < 3 else rng.uniform(0, 2) * b.unit
        plants.flower(b, species, base, tall, blur, 0.7 + 0.3 * depth)


def bouquet(b: Builder) -> None:
    """A pot or vase, standing still, with flowers or foliage."""
    rng = b.rng
    _back(b, INDOOR, 0.4)
    _maybe_stills(b, 0.5)
    for _ in range(1 if rng.random() < 0.7 else 2):
        width, height = b.width * rng.uniform(0.1, 0.22), b.height * rng.uniform(0.15, 0.35)
        rim = (b.width * rng.uniform(0.2, 0.8), b.height * rng.uniform(0.55, 0.8))
        kinds = [Species.sample(rng, heads=rng.random() < 0.75) for _ in range(2)]
        for i in range(int(rng.integers(6, 22))):
            lean = float(np.clip(rng.normal(0, 0.5), -1.3, 1.3))
            base = (rim[0] + lean * 0.25 * width, rim[1] + 0.08 * height)
            tall = b.height * rng.uniform(0.25, 0.55)
            plants.flower(b, kinds[int(rng.random() < 0.35)], base, tall, 0.0, 0.65 + 0.02 * i, lean=lean, sway=0.9)
        stills.pot(b, rim, width, height)


def meadow(b: Builder) -> None:
    """A field of grass and flowers with depth."""
    rng = b.rng
    _back(b, {"sky": 2.0, "bokeh": 3.0, "landscape": 1.0}, 0.8)
    horizon = b.height * rng.uniform(-0.1, 0.55)
    plants.meadow(
        b, horizon, rng.uniform(0.3, 1.0), int(rng.integers(5, 9)), rng.uniform(0, 1.0), rng.uniform(0.7, 1.4)
    )


def reeds(b: Builder) -> None:
    """Tall grass or reeds before water, sky or a wall."""
    rng = b.rng
    _back(b, OUTDOOR, 0.5)
    _maybe_stills(b, 0.2)
    base = plants.leaf_color(rng)
    heads = Species.sample(rng).heads if rng.random() < 0.6 else ()
    looks = tuple(
        sprites.tuft(rng, base * rng.uniform(0.8, 1.15), int(rng.integers(12, 30)), rng.uniform(0.08, 0.25))
        for _ in range(3)
    )
    for i in range(int(rng.integers(2, 5))):
        x0 = rng.uniform(-0.1, 0.5) * b.width if rng.random() < 0.4 else -20.0
        x1 = x0 + b.width * rng.uniform(0.3, 0.7) if x0 > -20 else b.width + 20.0
        tall = b.height * rng.uniform(0.35, 0.95)
        blur, gain = 0.0 if i else 1.5 * b.unit, 0.6 + 0.15 * i
        plants.tufts(
            b, looks, b.height * 1.05, tall * 0.8, int((x1 - x0) / tall * rng.uniform(2, 7)), blur, gain, x0, x1
        )
        plants.blades(b, b.height * 1.05, tall, int(rng.integers(8, 26)), base, blur, gain, x0, x1, heads)


def trees(b: Builder) -> None:
    """One or more trees or bushes in the open or before houses."""
    rng = b.rng
    _back(b, OUTDOOR, 0.25)
    count = int(rng.integers(1, 4))
    for i in range(count):
        last = i == count - 1
        height = b.height * (rng.uniform(0.75, 1.45) if last else rng.uniform(0.3, 0.75))
        foot = (
            b.width * rng.uniform(0.1, 0.9),
            b.height * (rng.uniform(0.8, 1.1) if last else rng.uniform(0.65, 0.85)),
        )
        trees_.crown(
            b,
            foot,
            height,
            0.0 if last else 0.8 * b.unit,
            0.7 + 0.3 * last,
            int(rng.uniform(280, 520)) if last else 150,
            rng.random() < 0.35,
        )
    _maybe_stills(b, 0.35)
    if rng.random() < 0.3:
        looks = tuple(sprites.tuft(rng, plants.leaf_color(rng), 24, 0.3) for _ in range(2))
        plants.tufts(b, looks, b.height * 1.05, b.height * rng.uniform(0.1, 0.25), 60, 0.0, 0.9, -10, b.width + 10)


def branches(b: Builder) -> None:
    """Boughs that reach into the picture, with leaves or blossom."""
    rng = b.rng
    _back(b, {"sky": 4.0, "bokeh": 2.0, "wall": 1.0, "landscape": 1.0, "black": 0.3}, 0.5)
    shape = str(rng.choice(["ovate", "lance", "round", "lobed", "needle", "obovate"]))
    species = Species.sample(rng, shape, heads=rng.random() < 0.5)
    bark = color(rng, (15, 40), (0.1, 0.5), (0.12, 0.45))
    for i in range(int(rng.integers(2, 6))):
        side = rng.random()
        if side < 0.4:
            start, angle = (-0.05 * b.width, rng.uniform(0, 0.7) * b.height), rng.normal(np.pi / 2, 0.4)
        elif side < 0.8:
            start, angle = (1.05 * b.width, rng.uniform(0, 0.7) * b.height), rng.normal(-np.pi / 2, 0.4)
        else:
            start, angle = (rng.uniform(0.1, 0.9) * b.width, -0.05 * b.height), rng.normal(np.pi, 0.5)
        length = b.width * rng.uniform(0.35, 0.8)
        blur = 0.0 if i or rng.random() < 0.7 else 2.5 * b.unit
        trees_.branch(
            b,
            species,
            start,
            angle,
            length,
            rng.uniform(2, 6) * b.unit,
            (),
            2,
            bark,
            blur,
            rng.uniform(0.25, 0.9),
            0.8 + 0.1 * i,
            1.3,
        )


def hedge(b: Builder) -> None:
    """Leaves that cover a wall, a part of it, or the whole picture."""
    rng = b.rng
    _back(b, {"wall": 4.0, "interior": 1.0, "sky": 1.0, "black": 0.7}, 0.15)
    pick, edge, slant = rng.random(), rng.uniform(0.25, 0.75), rng.normal(0, 0.3)
    ripple = rng.uniform(0, 6)

    def inside(x: float, y: float) -> bool:
        u, v = x / b.width, y / b.height
        wave = 0.06 * np.sin(9 * u + ripple) + 0.04 * np.sin(23 * u)
        if pick < 0.5:
            return True
        if pick < 0.7:
            return bool(v > edge + wave + slant * (u - 0.5))
        if pick < 0.85:
            return bool(v < edge + wave + slant * (u - 0.5))
        return bool(u < edge + 0.06 * np.sin(9 * v + ripple) + slant * (v - 0.5))

    if pick < 0.5 and rng.random() < 0.7:
        # A dense hedge shows no wall through its gaps but the shade of more leaves.
        b.background = backgrounds.make(rng, b.height, b.width, "bokeh", 0.0) * np.float32(rng.uniform(0.15, 0.6))
        _sway_background(b, 0.6)
    size = b.height * float(np.exp(rng.uniform(np.log(0.07), np.log(0.3))))
    count = int(min(620, 4.2 * b.width * b.height / (size * size)))
    trees_.foliage(b, inside, size, count, rng.random() < 0.5, 0.0, rng.uniform(0.6, 1.1))
    _maybe_stills(b, 0.25, 2)


def bigleaves(b: Builder) -> None:
    """A few large leaves close to the camera."""
    rng = b.rng
    _back(b, {"black": 2.0, "bokeh": 3.0, "studio": 1.0}, 0.9)
    species = Species.sample(rng, heads=False)
    for i in range(int(rng.integers(6, 18))):
        foot = (b.width * rng.uniform(0, 1), b.height * rng.uniform(-0.1, 0.9))
        near = i / 15
        angle = rng.normal(np.pi if rng.random() < 0.6 else 0, 0.9)
        length = b.height * rng.uniform(0.3, 0.75)
        tip = (foot[0] + length * np.sin(angle), foot[1] - length * np.cos(angle))
        joint = b.swing((foot[0], foot[1] + 0.4 * b.height), tip, b.rms(0.9), species.stem_hertz, 0.3, 1.2)
        blur = max(0.0, 2.5 - 5 * near) * b.unit
        plants.leaf_at(b, species, foot, angle, length, (joint,), 0.35 + 0.7 * near + rng.uniform(0, 0.2), blur, 0.6)


def closeup(b: Builder) -> None:
    """A single bloom that fills the picture."""
    _back(b, {"bokeh": 5.0, "studio": 2.0, "black": 1.5, "wall": 0.7}, 1.0)
    _far_plants(b, 0.35)
    plants.closeup(b)


def lanterns(b: Builder) -> None:
    """Lanterns, balls or lamps."""
    lit = b.rng.random() < 0.5
    _back(
        b,
        {"black": 2.0, "studio": 1.0, "bokeh": 0.6}
        if lit
        else {"landscape": 3.0, "wall": 2.0, "interior": 2.0, "sky": 1.5},
        0.3,
    )
    hanging.lanterns(b, lit)


def laundry(b: Builder) -> None:
    """Cloth, paper or notes on a line."""
    _back(b, {"sky": 3.0, "wall": 3.0, "studio": 2.0, "landscape": 1.0, "interior": 1.0}, 0.4)
    hanging.laundry(b)


def flags(b: Builder) -> None:
    """Flags on poles, with houses or sky."""
    _back(b, {"sky": 3.0, "landscape": 3.0, "wall": 1.0}, 0.2)
    hanging.flag(b)
    _maybe_stills(b, 0.3)


def curtains(b: Builder) -> None:
    """Curtains in a room."""
    _back(b, {"interior": 4.0, "wall": 1.0, "landscape": 1.0}, 0.2)
    hanging.curtain(b)
    _maybe_stills(b, 0.4)


def grapes(b: Builder) -> None:
    """Hanging fruit, berries or catkins."""
    _back(b, {"bokeh": 4.0, "wall": 1.0, "sky": 1.0}, 0.95)
    hanging.grapes(b)


def cords(b: Builder) -> None:
    """Hanging cords or rods."""
    _back(b, {"sky": 1.0, "wall": 2.0, "interior": 1.0, "bokeh": 2.0, "landscape": 1.0}, 0.4)
    hanging.cords(b)


def candles(b: Builder) -> None:
    """Candles in the dark."""
    _back(b, {"black": 4.0, "studio": 0.6, "interior": 0.3}, 0.8)
    b.background = b.background * np.float32(b.rng.uniform(0.1, 0.7))
    flames.candles(b)


def animal(b: Builder) -> None:
    """A resting animal in a room or garden."""
    _back(b, {"interior": 3.0, "landscape": 2.0, "wall": 1.0}, 0.2)
    _maybe_stills(b, 0.5)
    animals.animal(b)


def still(b: Builder) -> None:
    """Nothing moves: houses, furniture, pots, stones, people, letters."""
    rng = b.rng
    _back(b, {"interior": 3.0, "landscape": 3.0, "wall": 2.0, "studio": 1.0}, 0.15)
    stills.scatter(b, int(rng.integers(1, 9)), tall=0.6)
    if rng.random() < 0.3:
        stills.face(
            b, (b.width * rng.uniform(0.25, 0.75), b.height * rng.uniform(0.35, 0.5)), b.height * rng.uniform(0.18, 0.3)
        )


RECIPES: dict[str, tuple[float, Callable[[Builder], None]]] = {
    "flowers": (11.0, flowers),
    "closeup": (8.0, closeup),
    "bouquet": (7.0, bouquet),
    "meadow": (8.0, meadow),
    "reeds": (4.0, reeds),
    "trees": (11.0, trees),
    "branches": (10.0, branches),
    "hedge": (9.0, hedge),
    "bigleaves": (7.0, bigleaves),
    "lanterns": (5.0, lanterns),
    "laundry": (6.0, laundry),
    "flags": (2.5, flags),
    "curtains": (2.5, curtains),
    "grapes": (5.0, grapes),
    "cords": (2.0, cords),
    "candles": (5.0, candles),
    "animal": (3.0, animal),
    "still": (5.0, still),
}
