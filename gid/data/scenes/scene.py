"""A finished scene: its photo, the exact motion of every pixel, and the true later frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gid.data.scenes.builder import Builder, Part
from gid.data.scenes.cutouts import CUTOUT_RECIPES, find_cutouts
from gid.data.scenes.motion import Rig
from gid.data.scenes.recipes import RECIPES
from gid.data.scenes.textures import Floats
from gid.motion.spectrum import SpectralVolume

SMALL = 48  # parts up to this many pixels a side are moved by their local affine map, larger ones pixel by pixel


@dataclass(frozen=True)
class SceneConfig:
    """Size and length of scenes.

    Attributes:
        width, height: size of the photo in pixels, at least 64 each and divisible by ``reduction``.
        num_frames, fps, num_bands: period of the motion in frames, its rate, and the bands including the constant one.
        reduction: the volume is stored at 1/reduction of the photo's size.
        kinds: draw only these kinds (names of ``RECIPES``); empty means all, by their weights.
        cutouts: folder of photographic cut-outs (see :mod:`gid.data.scenes.cutouts`); with one, scenes are pasted
            together from those and ``kinds`` are names of ``CUTOUT_RECIPES``.

    Raises:
        ValueError: for a size, band count or kind out of range.
    """

    width: int = 448
    height: int = 256
    num_frames: int = 150
    fps: float = 30.0
    num_bands: int = 16
    reduction: int = 4
    kinds: tuple[str, ...] = ()
    cutouts: str = ""

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height)):
            if value < 64 or value % self.reduction:
                raise ValueError(
                    f"{name} is {value}; it must be at least 64 and divisible by reduction={self.reduction}"
                )
        if not 2 <= self.num_bands <= self.num_frames // 2:
            raise ValueError(
                f"num_bands is {self.num_bands}; it must lie between 2 and num_frames/2 = {self.num_frames // 2}"
            )
        known = set(CUTOUT_RECIPES if self.cutouts else RECIPES)
        unknown = set(self.kinds) - known
        if unknown:
            raise ValueError(f"kinds {sorted(unknown)} are unknown; choose from {sorted(known)}")


@dataclass(frozen=True)
class Tone:
    """A global tone curve, the same in every frame."""

    exposure: float
    contrast: float
    saturation: float
    gamma: float
    cast: Floats

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Tone:
        """Draw a camera's rendition."""
        cast = np.array([1 + rng.normal(0, 0.04), 1.0, 1 + rng.normal(0, 0.05)], np.float32)
        return cls(
            float(rng.uniform(0.8, 1.2)),
            float(rng.uniform(0.85, 1.25)),
            float(rng.uniform(0.7, 1.2)),
            float(rng.uniform(0.85, 1.25)),
            cast,
        )

    def __call__(self, rgb: Floats) -> NDArray[np.uint8]:
        """Map (H,W,3) float RGB to uint8."""
        x = np.clip(rgb * (self.exposure * self.cast), 0, 1) ** np.float32(self.gamma)
        x = (x - 0.45) * self.contrast + 0.45
        gray = x.mean(-1, keepdims=True)
        x = gray + (x - gray) * self.saturation
        return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)


class Scene:
    """One generated scene; everything is a pure function of its seed and configuration."""

    def __init__(self, seed: int, kind: str, config: SceneConfig, builder: Builder, tone: Tone) -> None:
        self.seed, self.kind, self.config = seed, kind, config
        self._background, self._tone = builder.background, tone
        self._parts: list[Part] = builder.parts
        self._rig: Rig = builder.rig
        depth = max([1] + [len(part.chain) for part in builder.parts])
        self._chains = np.zeros((len(builder.parts) + 1, depth), np.int64)
        for i, part in enumerate(builder.parts):
            self._chains[i, : len(part.chain)] = part.chain
        self._owner = np.full((config.height, config.width), len(builder.parts), np.int64)
        self.photo = tone(self._compose([(part.rgba, part.x, part.y) for part in builder.parts], self._owner))
        """(H,W,3) uint8 RGB; equals ``frame(0)``."""

    def _compose(self, pieces: list[tuple[Floats, int, int]], owner: NDArray[np.int64] | None = None) -> Floats:
        """Lay pieces over the background, far to near; ``owner`` receives the piece that dominates each pixel."""
        canvas = self._background.copy()
        height, width = canvas.shape[:2]
        for number, (rgba, x, y) in enumerate(pieces):
            left, top = max(x, 0), max(y, 0)
            right, bottom = min(x + rgba.shape[1], width), min(y + rgba.shape[0], height)
            if right <= left or bottom <= top:
                continue
            piece = rgba[top - y : bottom - y, left - x : right - x]
            view = canvas[top:bottom, left:right]
            view *= 1 - piece[..., 3:]
            view += piece[..., :3]
            if owner is not None:
                # The soft shadow around a leaf has an alpha of at most 0.4 and does not own the pixel beneath it.
                owner[top:bottom, left:right][piece[..., 3] > 0.5] = number
        return canvas

    def moving(self) -> NDArray[np.bool_]:
        """(H,W) True where the visible layer hangs on a joint; elsewhere the motion is exactly zero."""
        return np.asarray((self._chains[self._owner] != 0).any(-1))

    def trajectories(self, times: Iterable[float]) -> torch.Tensor:
        """Displacement (N,2,H,W) of every photo pixel at ``times`` in frames, as fractions of width and height."""
        height, width = self._owner.shape
        rows, columns = np.nonzero(self.moving())
        chains = self._chains[self._owner[rows, columns]]
        x, y = columns.astype(np.float32), rows.astype(np.float32)
        moments = list(times)
        out = np.zeros((len(moments), 2, height, width), np.float32)
        for i, time in enumerate(moments):
            u = self._rig.at(float(time)).displacement(chains, x, y)
            out[i, 0, rows, columns], out[i, 1, rows, columns] = u[0] / width, u[1] / height
        return torch.from_numpy(out)

    @cached_property
    def volume(self) -> SpectralVolume:
        """Spectral volume at 1/reduction of the photo's size: the motion of the layer that dominates each cell."""
        height, width = self._owner.shape
        r = self.config.reduction
        h, w = height // r, width // r
        blocks = self._owner.reshape(h, r, w, r).swapaxes(1, 2).reshape(h * w, r * r)
        votes = (blocks[:, :, None] == blocks[:, None, :]).sum(-1)
        owner = blocks[np.arange(h * w), votes.argmax(1)]
        share = blocks == owner[:, None]
        offset_y, offset_x = np.divmod(np.arange(r * r), r)
        cell_y, cell_x = np.divmod(np.arange(h * w), w)
        y = (cell_y * r + (share * offset_y).sum(1) / share.sum(1)).astype(np.float32)
        x = (cell_x * r + (share * offset_x).sum(1) / share.sum(1)).astype(np.float32)
        chains = self._chains[owner]
        rows = np.nonzero((chains != 0).any(1))[0]
        bands = np.zeros((self.config.num_bands, 2, h * w), np.complex64)
        if rows.size:
            c = self._rig.coefficients(chains[rows], x[rows], y[rows])
            bands[1:, :, rows] = c / np.array([width, height], np.float32)[:, None]
            bands[0] = -2 * bands[1:].real.sum(0)
        return SpectralVolume(
            coefficients=torch.from_numpy(bands.reshape(-1, 2, h, w)),
            fps=self.config.fps,
            num_frames=self.config.num_frames,
            image_size=(width, height),
            model="scenes",
            seed=self.seed,
        )

    def frame(self, time: float) -> NDArray[np.uint8]:
        """The true frame (H,W,3) uint8 at ``time`` in frames: every part moves, what it hid comes into view."""
        pose = self._rig.at(float(time))
        corners = np.zeros((3 * len(self._parts), 2), np.float32)
        for i, part in enumerate(self._parts):
            h, w = part.rgba.shape[:2]
            middle = np.array([part.x + w / 2, part.y + h / 2])
            corners[3 * i : 3 * i + 3] = middle + np.array([[0, 0], [w / 4 + 0.5, 0], [0, h / 4 + 0.5]])
        chains = np.repeat(self._chains[:-1], 3, axis=0)
        moved = corners + pose.displacement(chains, corners[:, 0], corners[:, 1]).T
        pieces = []
        for i, part in enumerate(self._parts):
            if not part.chain:
                pieces.append((part.rgba, part.x, part.y))
            elif max(part.rgba.shape[:2]) <= SMALL:
                pieces.append(_affine(part, corners[3 * i : 3 * i + 3], moved[3 * i : 3 * i + 3]))
            else:
                pieces.append(self._warp(part, self._chains[i], pose))
        return self._tone(self._compose(pieces))

    def _warp(self, part: Part, chain: NDArray[np.int64], pose: object) -> tuple[Floats, int, int]:
        """Move a large part: find for every pixel where it came from by fixed-point iteration of q = p + u(p)."""
        h, w = part.rgba.shape[:2]
        displacement = pose.displacement  # type: ignore[attr-defined]
        gy, gx = np.mgrid[0:5, 0:5]
        probe = displacement(
            np.repeat(chain[None], 25, 0),
            (part.x + gx * w / 4).ravel().astype(np.float32),
            (part.y + gy * h / 4).ravel().astype(np.float32),
        )
        pad = int(np.ceil(np.abs(probe).max() * 1.2)) + 2
        # The inverse map is smooth, so a grid of every second pixel carries it.
        y, x = np.mgrid[part.y - pad : part.y + h + pad + 2 : 2, part.x - pad : part.x + w + pad + 2 : 2].astype(
            np.float32
        )
        chains = np.broadcast_to(chain, (x.size, chain.size))
        u = np.zeros((2, x.size), np.float32)
        for _ in range(5):
            u = displacement(chains, x.ravel() - u[0], y.ravel() - u[1])
        u = u.reshape(2, *x.shape)
        size = (w + 2 * pad, h + 2 * pad)
        matrix = np.array([[0.5, 0, 0], [0, 0.5, 0]], np.float32)
        dense = [
            cv2.warpAffine(
                c, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
            )
            for c in u
        ]
        columns, rows = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
        moved = cv2.remap(part.rgba, columns - pad - dense[0], rows - pad - dense[1], cv2.INTER_LINEAR)
        return moved, part.x - pad, part.y - pad


def _affine(part: Part, corners: Floats, moved: Floats) -> tuple[Floats, int, int]:
    """Move a small part by the affine map that takes three of its points where they belong."""
    h, w = part.rgba.shape[:2]
    pad = int(np.ceil(np.abs(moved - corners).max() * 2)) + 2
    origin = np.array([part.x, part.y], np.float32)
    matrix = cv2.getAffineTransform(corners - origin, moved - origin + np.float32(pad))
    return cv2.warpAffine(part.rgba, matrix, (w + 2 * pad, h + 2 * pad)), part.x - pad, part.y - pad


def generate_scene(seed: int, config: SceneConfig | None = None) -> Scene:
    """Draw the scene of a seed; the same seed and configuration give the same scene on every machine."""
    config = config or SceneConfig()
    rng = np.random.default_rng(seed)
    weight_of = {kind: recipe[0] for kind, recipe in (CUTOUT_RECIPES if config.cutouts else RECIPES).items()}
    kinds = config.kinds or tuple(weight_of)
    weights = np.array([weight_of[kind] for kind in kinds])
    kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
    builder = Builder(rng, config.width, config.height, config.num_bands, config.num_frames, config.fps)
    if config.cutouts:
        CUTOUT_RECIPES[kind][1](builder, find_cutouts(config.cutouts))
    else:
        RECIPES[kind][1](builder)
    grain = rng.normal(0, builder.grain, (config.height, config.width, 1)).astype(np.float32)
    builder.background = (builder.background + grain).astype(np.float32)
    return Scene(seed, kind, config, builder, Tone.sample(rng))
