"""Scenes pasted together from photographs: plants that sway, things that stand still, photos behind them.

Drawn plants teach how things move; photographed ones teach what real leaves, blossoms and objects look like. The
cut-outs are not part of this project: they are read from a folder with the sub-folders of `FOLDERS`, PNG with
transparency in all but ``backgrounds``, whose photos must show nothing that moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from gid.data.scenes import backgrounds
from gid.data.scenes import textures as tx
from gid.data.scenes.builder import Builder, Chain, curve
from gid.data.scenes.textures import Floats

FOLDERS = ("plants", "flowers", "candles", "things", "backgrounds")
LARGEST_SIDE = 480
WAX_FROM = 0.42  # a cut-out of a candle: flame above this share of its height, wax below


@dataclass(frozen=True)
class Cutouts:
    """Files of each kind, in alphabetical order."""

    plants: tuple[Path, ...]
    flowers: tuple[Path, ...]
    candles: tuple[Path, ...]
    things: tuple[Path, ...]
    backgrounds: tuple[Path, ...]

    @classmethod
    def find(cls, folder: Path) -> Cutouts:
        """List the pictures of ``folder``.

        Raises:
            ValueError: if a sub-folder holds no picture.
        """
        kinds = {}
        for name in FOLDERS:
            files = sorted(p for p in (folder / name).glob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
            if not files:
                raise ValueError(f"{folder / name} holds no PNG or JPEG; put pictures there, see weights.md")
            kinds[name] = tuple(files)
        return cls(**kinds)


@lru_cache(maxsize=512)
def _read(path: Path) -> Floats:
    """Premultiplied float32 RGBA (h, w, 4), cut to what is opaque, its longer side at most LARGEST_SIDE."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError(f"{path} is not a picture that can be read; remove it")
    if picture.dtype == np.uint16:
        picture = (picture // 257).astype(np.uint8)
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGRA)
    elif picture.shape[2] == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)
    rows, columns = np.nonzero(picture[..., 3] > 30)
    if rows.size:
        picture = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    rgba = cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA).astype(np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    scale = min(1.0, LARGEST_SIDE / max(rgba.shape[:2]))
    return cv2.resize(rgba, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _cutout(b: Builder, files: tuple[Path, ...], height: float, gain: float = 1.0) -> Floats:
    """A random cut-out, ``height`` pixels tall, mirrored half of the time, its colours shifted a little."""
    rng = b.rng
    rgba = _read(files[rng.integers(len(files))])
    scale = height / rgba.shape[0]
    width = int(np.clip(rgba.shape[1] * scale * rng.uniform(0.85, 1.18), 3, 2.5 * b.width))
    rgba = cv2.resize(
        rgba, (width, max(3, int(height))), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    if rng.random() < 0.5:
        rgba = rgba[:, ::-1]
    tint = gain * rng.uniform(0.65, 1.2) * np.exp(rng.normal(0, 0.1, 3))
    alpha = np.clip(rgba[..., 3:], 0, 1)
    return np.dstack([np.clip(rgba[..., :3] * tint, 0, alpha), alpha]).astype(np.float32)


def _photo(b: Builder, files: tuple[Path, ...], blur: float) -> Floats:
    """A random window of a photo that fills the picture."""
    rng = b.rng
    rgb = _read(files[rng.integers(len(files))])[..., :3]
    h, w = rgb.shape[:2]
    share = rng.uniform(0.5, 1.0) * min(w / b.width, h / b.height)
    dw, dh = max(8, int(share * b.width)), max(8, int(share * b.height))
    y, x = int(rng.integers(0, max(1, h - dh + 1))), int(rng.integers(0, max(1, w - dw + 1)))
    out = cv2.resize(rgb[y : y + dh, x : x + dw], (b.width, b.height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        out = out[:, ::-1]
    if rng.random() < blur:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(1.0, 7.0) * b.unit)
    return np.clip(out * rng.uniform(0.6, 1.15) * np.exp(rng.normal(0, 0.06, 3)), 0, 1).astype(np.float32)


def _behind(b: Builder, c: Cutouts, kinds: dict[str, float], photos: float, blur: float) -> None:
    """A photo as background with probability ``photos``, else a drawn one."""
    if b.rng.random() < photos:
        b.background = _photo(b, c.backgrounds, blur)
    else:
        b.background = backgrounds.make(b.rng, b.height, b.width, backgrounds.pick(b.rng, kinds), blur)


def _things(b: Builder, c: Cutouts, count: int, tall: float) -> None:
    """Still things, standing on the lower part of the picture or hanging about."""
    rng = b.rng
    for _ in range(count):
        rgba = _cutout(b, c.things, b.height * rng.uniform(0.12, tall))
        if rgba.shape[1] > 0.8 * b.width:
            continue
        bottom = b.height * (rng.uniform(0.75, 1.1) if rng.random() < 0.8 else rng.uniform(0.2, 0.7))
        b.add(rgba, int(rng.uniform(-0.1, 1.0) * b.width), int(bottom) - rgba.shape[0])


def _swaying(b: Builder, foot: tuple[float, float], tall: float, wide: float, sway: float) -> Chain:
    """Joints of a plant that stands at ``foot``: its stem bends, its crown ripples more towards the top."""
    rng = b.rng
    tip = (foot[0], foot[1] - tall)
    bend = b.swing(foot, tip, min(b.rms(0.8 * sway), 0.06 * tall), rng.uniform(0.4, 1.2), 0.3, rng.uniform(1.3, 1.9))
    rise = np.linspace(1, 0, 16)[:, None] ** rng.uniform(0.5, 1.0) * np.ones((1, 16))
    box = (foot[0] - wide / 2, tip[1], foot[0] + wide / 2, foot[1])
    ripple = b.field(box, b.rms(0.6 * sway), rng.uniform(0.7, 2.0), int(rng.integers(2, 7)), rise.astype(np.float32))
    return (bend, ripple)


def plants(b: Builder, c: Cutouts) -> None:
    """Trees, bushes and grasses, far to near."""
    rng = b.rng
    _behind(b, c, {"sky": 3.0, "landscape": 2.0, "bokeh": 1.0, "wall": 1.5}, 0.45, 0.3)
    if rng.random() < 0.4:
        _things(b, c, int(rng.integers(1, 4)), 0.5)
    near = np.sort(rng.random(int(rng.choice([1, 1, 2, 3, 5, 9]))))
    for depth in near:
        tall = b.height * (0.25 + 0.9 * depth) * rng.uniform(0.7, 1.3)
        rgba = _cutout(b, c.plants, tall, 0.75 + 0.25 * depth)
        foot = (rng.uniform(-0.05, 1.05) * b.width, b.height * (0.72 + 0.35 * depth + rng.normal(0, 0.04)))
        chain = _swaying(b, foot, tall, rgba.shape[1], 1.0)
        blur = rng.uniform(0, 1.5) * b.unit if rng.random() < 0.15 else 0.0
        b.add(rgba, int(foot[0] - rgba.shape[1] / 2), int(foot[1] - tall), chain, blur)


def flowers(b: Builder, c: Cutouts) -> None:
    """Photographed blossoms on drawn stems, among foliage or before a still background."""
    rng = b.rng
    _behind(b, c, {"bokeh": 4.0, "studio": 1.5, "wall": 1.5, "sky": 1.0, "black": 0.7, "interior": 1.0}, 0.35, 0.75)
    if rng.random() < 0.3:
        _things(b, c, int(rng.integers(1, 4)), 0.5)
    count = int(rng.choice([1, 1, 2, 3, 5, 8, 14]))
    largest = (0.95, 0.7, 0.55, 0.45)[min(count - 1, 3)] * (0.6 if count > 5 else 1.0)
    one_kind = (c.flowers[rng.integers(len(c.flowers))],) if rng.random() < 0.7 else c.flowers
    green = tx.leaf_color(rng)
    for _ in range(count):
        size = b.height * rng.uniform(0.45, 1.0) * largest
        head = (rng.uniform(0.05, 0.95) * b.width, b.height * rng.uniform(0.1, 0.8))
        if count < 3:
            head = (rng.uniform(0.25, 0.75) * b.width, b.height * rng.uniform(0.3, 0.65))
        base = (head[0] + rng.normal(0, 0.12) * b.width, b.height * rng.uniform(1.05, 1.3))
        tall = base[1] - head[1]
        stem = b.swing(base, head, min(b.rms(1.2), 0.08 * tall), rng.uniform(0.5, 1.4), 0.25, 1.7)
        b.ribbon(curve(base, head, rng.normal(0, 0.15)), np.linspace(2.5, 1.5, 14) * b.unit, green, (stem,))
        if rng.random() < 0.6:
            leafy = _cutout(b, c.plants, tall * rng.uniform(0.5, 0.9), 0.8)
            if leafy.shape[1] < b.width:
                ripple = _swaying(b, base, tall, leafy.shape[1], 0.6)
                b.add(leafy, int(base[0] - leafy.shape[1] / 2), int(base[1]) - leafy.shape[0], ripple)
        rgba = _cutout(b, one_kind, size)
        nod = b.flutter(head, 0.0, size, b.rms(0.35), rng.uniform(1.0, 2.5))
        blur = rng.uniform(0.5, 3) * b.unit if count > 3 and rng.random() < 0.3 else 0.0
        b.add(rgba, int(head[0] - rgba.shape[1] / 2), int(head[1] - size / 2), (stem, nod), blur)


def candles(b: Builder, c: Cutouts) -> None:
    """Photographed candles in the dark: wax stands still, the flame licks."""
    rng = b.rng
    b.background = backgrounds.make(rng, b.height, b.width, "black", 0.5)
    if rng.random() < 0.35:
        b.background = _photo(b, c.backgrounds, 0.5) * np.float32(rng.uniform(0.05, 0.4))
    if rng.random() < 0.25:
        _things(b, c, 1, 0.5)
    y, x = np.mgrid[0 : b.height, 0 : b.width].astype(np.float32)
    stout, tall = rng.uniform(0.8, 4.0), b.height * rng.uniform(0.3, 0.9)
    for spot in np.sort(rng.uniform(0.35, 0.8, int(rng.integers(1, 8)))):
        wick = (rng.uniform(0.05, 0.95) * b.width, spot * b.height)
        rgba = _cutout(b, c.candles, tall * rng.uniform(0.9, 1.1))
        cut = int(WAX_FROM * rgba.shape[0])
        glow = np.exp(-(((x - wick[0]) ** 2 + (y - wick[1] + cut / 2) ** 2) / (2 * (1.3 * cut) ** 2)))[..., None]
        b.background = np.clip(
            b.background + glow * np.array([0.3, 0.15, 0.05], np.float32) * rng.uniform(0.2, 1.0), 0, 1
        )
        wax = cv2.resize(rgba[cut:], None, fx=stout, fy=rng.uniform(0.4, 1.6), interpolation=cv2.INTER_LINEAR)
        b.add(wax, int(wick[0] - wax.shape[1] / 2), int(wick[1]))
        tip = (wick[0], wick[1] - cut)
        lick = b.swing(wick, tip, min(b.rms(1.2), 0.14 * cut), rng.uniform(0.9, 2.4), 0.5, 1.6, 0.75)
        b.add(rgba[:cut], int(wick[0] - rgba.shape[1] / 2), int(wick[1]) - cut, (lick,))


def still(b: Builder, c: Cutouts) -> None:
    """Nothing moves: a photo of still things, with cut-outs of more of them before it or none."""
    rng = b.rng
    _behind(b, c, {"interior": 3.0, "landscape": 2.0, "wall": 2.0, "studio": 1.0}, 0.7, 0.15)
    if rng.random() < 0.6:
        _things(b, c, int(rng.integers(1, 9)), rng.uniform(0.3, 1.0))


CUTOUT_RECIPES: dict[str, tuple[float, Callable[[Builder, Cutouts], None]]] = {
    "cutout_plants": (5.0, plants),
    "cutout_flowers": (5.0, flowers),
    "cutout_candles": (1.5, candles),
    "cutout_still": (4.0, still),
}


@lru_cache(maxsize=4)
def find_cutouts(folder: str) -> Cutouts:
    """The cut-outs of a folder, looked up once."""
    return Cutouts.find(Path(folder))
