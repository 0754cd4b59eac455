"""Collects the parts of a scene, far to near, together with the joints they hang on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gid.data.scenes.motion import Rig, Wind, smooth_field, turn
from gid.data.scenes.sprites import Sprite, strip
from gid.data.scenes.textures import Floats

Point = tuple[float, float]
Chain = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """A premultiplied picture (h,w,4) at integer pixel (x, y), hanging on joints; an empty chain stands still."""

    rgba: Floats
    x: int
    y: int
    chain: Chain


class Builder:
    """Draws a scene of ``width`` x ``height`` pixels; lengths scale with ``unit``, one at a width of 448."""

    def __init__(
        self, rng: np.random.Generator, width: int, height: int, num_bands: int, num_frames: int, fps: float
    ) -> None:
        self.rng, self.width, self.height = rng, width, height
        self.unit = width / 448
        self.margin = round(0.08 * width)
        self.rig = Rig(num_bands, fps / num_frames, fps)
        self.wind = Wind.sample(rng, num_bands, fps / num_frames, width)
        self.parts: list[Part] = []
        self.background: Floats = np.zeros((height, width, 3), np.float32)
        self.grain = float(rng.uniform(0.002, 0.022))
        self.noise = rng.normal(size=(256, 256, 1)).astype(np.float32) * self.grain
        self.warmth = np.array([1 + rng.normal(0, 0.04), 1.0, 1 + rng.normal(0, 0.06)], np.float32)

    def rms(self, factor: float = 1.0) -> float:
        """Typical sway of this scene in pixels, times a factor and some scatter."""
        return self.wind.strength * self.width * factor * float(np.exp(self.rng.normal(0, 0.2)))

    def swing(
        self, pivot: Point, tip: Point, rms: float, natural: float, damping: float, power: float, coherence: float = 1.0
    ) -> int:
        """Joint that sways its tip by ``rms`` pixels; wind decides its sense."""
        dx, dy = tip[0] - pivot[0], tip[1] - pivot[1]
        length = max(float(np.hypot(dx, dy)), 1.0)
        angle = rms / length * self.wind.torque((dx / length, dy / length))
        drive = self.wind.drive(self.rng, natural, damping, pivot, coherence)
        # Bending towards and away from the viewer shortens the part along its own axis.
        along = np.array([dx, dy]) / length
        depth = self.wind.drive(self.rng, natural, damping, pivot, 0.8 * coherence) * (0.45 * rms / length)
        matrix = turn(drive, angle) + (depth[:, None, None] * np.outer(along, along)).astype(np.complex64)
        return self.rig.joint(pivot, length, power, matrix.astype(np.complex64))

    def flutter(self, pivot: Point, angle: float, length: float, rms: float, natural: float) -> int:
        """Joint of a leaf: a turn about its foot and a change of its apparent width, as it twists."""
        drive = self.wind.drive(self.rng, natural, 0.25, pivot, 0.7)
        direction = (float(np.sin(angle)), float(-np.cos(angle)))
        matrix = turn(drive, rms / max(length, 4.0) * self.wind.torque(direction))
        across = np.array([np.cos(angle), np.sin(angle)])
        twist = self.wind.drive(self.rng, natural * 1.2, 0.3, pivot, 0.4) * rms / max(length, 4.0) * 0.6
        matrix = matrix + (twist[:, None, None] * np.outer(across, across)).astype(np.complex64)
        return self.rig.joint(pivot, length, 1.0, matrix.astype(np.complex64))

    def field(
        self, box: tuple[float, float, float, float], rms: float, natural: float, cells: int, gain: Floats
    ) -> int:
        """Smooth field over a box with a share ``gain`` (h,w) in [0, 1] of the rms, of ``cells`` patches a side."""
        height, width = gain.shape
        drive = self.wind.drive(self.rng, natural, 0.3, (box[0], box[1]))
        waves = smooth_field(self.rng, 2 * drive.size, height, width, cells).reshape(drive.size, 2, height, width)
        x = np.linspace(box[0], box[2], width)[None, :] * self.wind.lag[0] * 1.5
        shared = np.exp(-2j * np.pi * self.wind.frequencies[:, None, None] * x)[:, None]
        axis = np.array(self.wind.direction)[None, :, None, None]
        size = np.abs(drive)[:, None, None, None]
        grid = (
            0.85 * drive[:, None, None, None] * shared * axis
            + 0.5 * size * waves * np.array([0.8, 0.6])[None, :, None, None]
        ) * gain
        return self.rig.field(box, (grid * rms).astype(np.complex64))

    def add(self, rgba: Floats, x: int, y: int, chain: Sequence[int] = (), blur: float = 0.0) -> None:
        """Append a part in front of all others; it is cut to the picture plus a margin and dropped if outside."""
        if blur > 0.3:
            pad = int(2.2 * blur) + 1
            rgba = cv2.copyMakeBorder(rgba, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
            rgba, x, y = cv2.GaussianBlur(rgba, (0, 0), blur), x - pad, y - pad
        m = self.margin
        left, top = max(x, -m), max(y, -m)
        right, bottom = min(x + rgba.shape[1], self.width + m), min(y + rgba.shape[0], self.height + m)
        if right - left < 1 or bottom - top < 1:
            return
        rgba = np.ascontiguousarray(rgba[top - y : bottom - y, left - x : right - x])
        h, w = rgba.shape[:2]
        if h <= 256 and w <= 256:
            i, j = self.rng.integers(0, 257 - h), self.rng.integers(0, 257 - w)
            rgba[..., :3] += self.noise[i : i + h, j : j + w] * rgba[..., 3:]
        else:
            rgba[..., :3] += self.rng.normal(0, self.grain, (h, w, 1)).astype(np.float32) * rgba[..., 3:]
        self.parts.append(Part(rgba, left, top, tuple(chain)))

    def place(
        self,
        sprite: Sprite,
        foot: Point,
        angle: float,
        length: float,
        chain: Sequence[int] = (),
        aspect: float = 1.0,
        gain: Floats | float = 1.0,
        blur: float = 0.0,
    ) -> None:
        """Put a sprite with its foot at a point, turned clockwise from up by ``angle``, ``length`` pixels long."""
        source, m = sprite.matrix(foot, angle, length, aspect)
        size = source.shape[0]
        corners = m @ np.array([[0, size, size, 0], [0, 0, size, size], [1, 1, 1, 1]], np.float32)
        x, y = int(np.floor(corners[0].min())), int(np.floor(corners[1].min()))
        w, h = int(corners[0].max()) - x + 2, int(corners[1].max()) - y + 2
        if (
            x > self.width + self.margin
            or y > self.height + self.margin
            or x + w < -self.margin
            or y + h < -self.margin
        ):
            return
        m = m.copy()
        m[:, 2] -= (x, y)
        rgba = cv2.warpAffine(source, m, (w, h))
        rgba[..., :3] *= np.asarray(gain, np.float32)
        self.add(rgba, x, y, chain, blur)

    def polygon(
        self,
        outline: NDArray[np.float64],
        paint: Floats,
        chain: Sequence[int] = (),
        blur: float = 0.0,
        shade: Floats | None = None,
    ) -> None:
        """Anti-aliased polygon (N,2); ``paint`` is a colour (3,) or a picture (h,w,3) laid over its bounding box."""
        x, y = np.floor(outline.min(0)).astype(int) - 2
        w, h = np.ceil(outline.max(0)).astype(int) - (x, y) + 3
        if w > 3 * self.width or h > 3 * self.height:
            return
        mask = np.zeros((h, w), np.uint8)
        fixed = np.round((outline - (x, y)) * 16).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, 4)
        alpha = mask.astype(np.float32)[..., None] / 255
        rgb = np.broadcast_to(paint, (h, w, 3)) if paint.ndim == 1 else cv2.resize(paint, (w, h))
        if shade is not None:
            rgb = rgb * cv2.resize(shade, (w, h))[..., None]
        self.add(np.dstack([np.clip(rgb, 0, 1) * alpha, alpha]).astype(np.float32), int(x), int(y), chain, blur)

    def ribbon(
        self,
        points: NDArray[np.float64],
        widths: NDArray[np.float64],
        paint: Floats,
        chain: Sequence[int] = (),
        blur: float = 0.0,
    ) -> None:
        """A stem, blade or branch: a tapering band (half widths in pixels) with a light and a dark side."""
        low, high = points.min(0), points.max(0)
        reach = float(widths.max()) + 3
        x, y = np.floor(low - reach).astype(int)
        w, h = np.ceil(high + reach).astype(int) - (x, y) + 1
        if (
            x > self.width + self.margin
            or x + w < -self.margin
            or y > self.height + self.margin
            or y + h < -self.margin
        ):
            return
        picture = np.zeros((h, w, 3), np.uint8)
        alpha = np.zeros((h, w), np.uint8)
        for offset, share, gain in ((0.0, 1.0, 0.72), (-0.25, 0.62, 1.0), (-0.4, 0.25, 1.22)):
            moved = points - (x, y) + np.array([offset, 0.0]) * widths[:, None]
            outline = np.round(strip(moved, widths * share) * 16).astype(np.int32)
            shade = tuple(float(v) for v in np.clip(paint * gain, 0, 1) * 255)
            if share == 1.0:
                picture[:] = np.asarray(shade, np.uint8)
                cv2.fillPoly(alpha, [outline], 255, cv2.LINE_AA, 4)
            elif reach > 4.2:
                cv2.fillPoly(picture, [outline], shade, cv2.LINE_AA, 4)
        cover = alpha.astype(np.float32)[..., None] / 255 * min(1.0, 0.45 + float(widths.max()) * 0.6)
        if self.rng.random() < 0.7 and reach > 6:
            texture = cv2.resize(self.rng.normal(1, 0.16, (h // 3 + 2, w // 3 + 2)).astype(np.float32), (w, h))
            rgb = np.clip(picture / 255.0 * texture[..., None], 0, 1)
        else:
            rgb = picture / 255.0
        self.add(np.dstack([rgb * cover, cover]).astype(np.float32), int(x), int(y), chain, blur)


def curve(start: Point, end: Point, bow: float, count: int = 14) -> NDArray[np.float64]:
    """Points (count,2) of a bent line; ``bow`` is the sideways bulge as a share of its length."""
    t = np.linspace(0, 1, count)[:, None]
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    side = np.array([-(b - a)[1], (b - a)[0]])
    return a + (b - a) * t + side * bow * (t * (1 - t)) * 2


def heading(points: NDArray[np.float64], at: float) -> tuple[Point, float]:
    """Point of a polyline at a share of its length, and its heading clockwise from up."""
    index = at * (len(points) - 1)
    i = min(int(index), len(points) - 2)
    p = points[i] + (points[i + 1] - points[i]) * (index - i)
    d = points[i + 1] - points[i]
    return (float(p[0]), float(p[1])), float(np.arctan2(d[0], -d[1]))
