"""Mode shapes of a photo: what its spectral volume says about where a pull goes.

Every frequency band but the constant one is a mode. Inside this module displacements are fractions of the photo's
*long side* in both directions, so that lengths and angles mean what they mean on the screen; points are fractions of
the width and the height, like the coefficients of a spectral volume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from gid.motion.spectrum import SpectralVolume
from gid.poking.parts import Parts

DISPLACEMENT_LIMIT = 0.15
"""No pixel is ever shown further from its place than this fraction of the long side."""
PULL_LIMIT = 0.12
"""Where the elastic pull of the pointer ends, in fractions of the long side."""
ELASTIC_KNEE = 0.6
"""Below this share of a limit the response is exactly proportional."""
RIM = 0.08
"""Width of the pinned rim, as a fraction of the long side."""
FOLLOW_REGULARIZATION = 0.005
"""Tikhonov weight of the pull's solution, relative to the strongest point of the photo."""
STILL, MOVING = 0.03, 0.12
"""Amplitude, relative to the strongest point, below which a pull does nothing and above which it acts fully."""
HELD = 0.5
"""A hand holds a part if the point under it belongs to the part by this share at least."""
EXTREME_CELLS = 8
ALPHA, BETA = 0.4, 0.08
"""Rayleigh damping of the paper: gamma = alpha + beta omega^2."""
LIVELY_FREQUENCY = 0.9
"""Hz around which a let-go photo should swing. Recorded sway is mostly slow bending by the wind, at a few tenths of a
hertz; plucked plants ring at 1 to 3 Hz. The paper's demonstration sets this by hand for each photo."""
TEMPO_LIMITS = (1.0, 4.0)

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]


def elastic(length: float, limit: float) -> float:
    """Saturates a length >= 0: the identity up to `ELASTIC_KNEE * limit`, then smoothly towards `limit`."""
    ratio = length / limit
    if ratio <= ELASTIC_KNEE:
        return length
    rest = 1 - ELASTIC_KNEE
    return limit * (ELASTIC_KNEE + rest * math.tanh((ratio - ELASTIC_KNEE) / rest))


def limit_displacement(displacement: Real, limit: float = DISPLACEMENT_LIMIT) -> Real:
    """The same saturation for every pixel of (..., 2, H, W), lengths in fractions of the long side."""
    length = np.sqrt((displacement**2).sum(axis=-3, keepdims=True))
    ratio = length / limit
    rest = 1 - ELASTIC_KNEE
    bounded = ELASTIC_KNEE + rest * np.tanh((ratio - ELASTIC_KNEE) / rest)
    factor = np.where(ratio > ELASTIC_KNEE, bounded / np.maximum(ratio, ELASTIC_KNEE), 1.0)
    limited: Real = displacement * factor
    return limited


def rim_weight(height: int, width: int, aspect: tuple[float, float]) -> Real:
    """(H, W) weights: 0 on the outermost pixels, 1 from `RIM` inwards; there is nothing behind a photo's edge."""
    x = np.minimum(np.arange(width), np.arange(width)[::-1]) / width * aspect[0]
    y = np.minimum(np.arange(height), np.arange(height)[::-1]) / height * aspect[1]
    near = np.clip(np.minimum(x[None, :], y[:, None]) / RIM, 0, 1)
    weight: Real = near * near * (3 - 2 * near)
    return weight


def automatic_tempo(shapes: Complex, frequencies: Real) -> float:
    """Brings the mean frequency of a pull's response, weighted by energy, to `LIVELY_FREQUENCY`, within limits."""
    energy = (np.abs(shapes) ** 2).sum(axis=(1, 2, 3))
    if energy.sum() <= 0:
        return 1.0
    mean = float((energy * frequencies).sum() / energy.sum())
    return min(max(LIVELY_FREQUENCY / mean, TEMPO_LIMITS[0]), TEMPO_LIMITS[1])


@dataclass(frozen=True)
class ModalModel:
    """Mode shapes ready to be pulled.

    shapes: (J, 2, H, W) complex128, x then y, fractions of the long side, rim pinned, bands 1..K-1 of the volume with
    the factor 2 of the one-sided transform in them. frequencies: (J,) Hz, as in the volume. aspect: width and height
    over the long side. tempo: how many times faster than in the volume the modes swing when let go. parts: of the
    photo, on the shapes' grid; every one has modal coordinates of its own. Without them the photo moves as one.
    Raises ValueError for another shape, no mode, a frequency of 0, or values that are not finite.
    """

    shapes: Complex
    frequencies: Real
    aspect: tuple[float, float]
    tempo: float = 1.0
    parts: Parts | None = None
    _peaks: dict[bytes, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.shapes.ndim != 4 or self.shapes.shape[1] != 2 or len(self.shapes) != len(self.frequencies):
            raise ValueError(f"mode shapes must be (J, 2, H, W) with J frequencies, got {self.shapes.shape}")
        if len(self.shapes) == 0:
            raise ValueError("a motion with one band has no modes to poke: use one with at least two bands")
        if not np.isfinite(self.shapes).all():
            raise ValueError("the motion contains values that are not numbers: estimate it again or load another file")
        if not (self.frequencies > 0).all():
            raise ValueError(f"mode frequencies must be above 0 Hz, got {self.frequencies.min()}")

    @classmethod
    def from_volume(cls, volume: SpectralVolume, max_side: int | None = None, parts: Parts | None = None) -> ModalModel:
        """Modes of `volume`, reduced to at most `max_side` pixels a side if given, with the `parts` of its photo.

        The constant band is left out: it has no stiffness, so a force on it would drift for ever.
        Raises ValueError if the volume has fewer than two bands or holds values that are not finite.
        """
        coefficients = volume.coefficients.detach().cpu()
        height, width = coefficients.shape[-2:]
        size = volume.image_size or (width, height)
        aspect = (size[0] / max(size), size[1] / max(size))
        if max_side is not None and max(height, width) > max_side:
            scale = max_side / max(height, width)
            reduced = (max(2, round(height * scale)), max(2, round(width * scale)))
            channels = torch.view_as_real(coefficients.to(torch.complex64)).permute(0, 1, 4, 2, 3).flatten(1, 2)
            channels = F.interpolate(channels, reduced, mode="bilinear", antialias=True, align_corners=False)
            coefficients = torch.view_as_complex(channels.unflatten(1, (2, 2)).permute(0, 1, 3, 4, 2).contiguous())
            height, width = reduced
        scale_xy = np.array(aspect).reshape(1, 2, 1, 1)
        sides = np.full((len(coefficients) - 1, 1, 1, 1), 2.0)  # every bin stands for its conjugate too,
        if 2 * len(sides) == volume.num_frames and len(sides):
            sides[-1] = 1.0  # but the Nyquist bin is its own
        shapes = sides * coefficients[1:].numpy().astype(np.complex128) * scale_xy * rim_weight(height, width, aspect)
        frequencies = np.arange(1, len(shapes) + 1) * volume.fps / volume.num_frames
        parts = None if parts is None else parts.resize(height, width)
        return cls(shapes, frequencies, aspect, automatic_tempo(shapes, frequencies), parts)

    @property
    def groups(self) -> int:
        """How many sets of J modal coordinates the photo has: one, or one for each of its parts, the ground first."""
        return 1 if self.parts is None else self.parts.count

    @property
    def omega(self) -> Real:
        """(J,) angular frequencies of the free modes in rad/s."""
        return 2 * np.pi * self.tempo * self.frequencies

    @property
    def gamma(self) -> Real:
        """(J,) damping rates in 1/s: the paper's Rayleigh damping, in the same tempo, so that damping ratios stay."""
        return self.tempo * (ALPHA + BETA * (2 * np.pi * self.frequencies) ** 2)

    def at(self, x: float, y: float) -> Complex:
        """(J, 2) mode shapes at a point given in fractions of width and height, bilinearly interpolated."""
        height, width = self.shapes.shape[-2:]
        column = min(max(x * width - 0.5, 0.0), width - 1.0)
        row = min(max(y * height - 0.5, 0.0), height - 1.0)
        left, top = min(int(column), max(width - 2, 0)), min(int(row), max(height - 2, 0))
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        u, v = column - left, row - top
        upper = self.shapes[:, :, top, left] * (1 - u) + self.shapes[:, :, top, right] * u
        lower = self.shapes[:, :, bottom, left] * (1 - u) + self.shapes[:, :, bottom, right] * u
        point: Complex = upper * (1 - v) + lower * v
        return point

    def members_at(self, x: float, y: float) -> Real:
        """(groups,) how much the point belongs to each part; they sum to 1."""
        members = np.zeros(self.groups)
        owner, share = (0, 0.0) if self.parts is None else self.parts.at(x, y)
        members[0] = 1 - share
        members[owner] += share
        return members

    def grouped_at(self, x: float, y: float) -> Complex:
        """(groups * J, 2) what each modal coordinate of each part, [part][mode], does at a point."""
        shapes = self.members_at(x, y)[:, None, None] * self.at(x, y)
        grouped: Complex = shapes.reshape(-1, 2)
        return grouped

    def displacement(self, weights: Complex) -> Real:
        """(..., 2, H, W) displacement by weights (..., groups * J) of the shapes, in fractions of the long side."""
        size = self.shapes.shape[-2:]
        shapes = self.shapes.reshape(len(self.shapes), 2, -1)
        by_part = weights.reshape(*weights.shape[:-1], self.groups, -1)

        def moved(part: int, chosen: Real | slice) -> Real:
            by_mode, where = by_part[..., part, :], shapes[:, :, chosen].reshape(len(shapes), -1)
            flat = by_mode.real @ where.real - by_mode.imag @ where.imag
            return np.asarray(flat.reshape(*flat.shape[:-1], 2, -1), np.float64)

        result = moved(0, slice(None))
        if self.parts is not None:
            owners, shares = self.parts.owners.ravel(), self.parts.shares.ravel()
            result *= 1 - shares
            for part in range(1, self.groups):
                own = owners == part
                if own.any() and by_part[..., part, :].any():
                    result[..., own] += shares[own] * moved(part, own)
        return result.reshape(*result.shape[:-1], *size)

    def envelope(self, weights: Real) -> Real:
        """(H, W) amplitude sqrt(sum_j w_j |shape_j|^2), in fractions of the long side for unit weights."""
        energy = np.einsum("j,jchw->hw", weights, np.abs(self.shapes) ** 2)
        amplitude: Real = np.sqrt(energy)
        return amplitude

    def peak(self, weights: Real) -> float:
        """The largest value of `envelope(weights)`, remembered: a drag asks for it at every move."""
        key = weights.tobytes()
        if key not in self._peaks:
            self._peaks[key] = float(self.envelope(weights).max())
        return self._peaks[key]

    @cached_property
    def extreme_pixels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns (P,) of the strongest pixel of each cell of an 8x8 grid: where a limit is met first."""
        energy = self.envelope(np.ones(len(self.shapes)))
        height, width = energy.shape
        points = []
        for i in range(EXTREME_CELLS):
            for j in range(EXTREME_CELLS):
                top, bottom = i * height // EXTREME_CELLS, (i + 1) * height // EXTREME_CELLS
                left, right = j * width // EXTREME_CELLS, (j + 1) * width // EXTREME_CELLS
                if bottom > top and right > left:
                    cell = energy[top:bottom, left:right]
                    row, column = divmod(int(cell.argmax()), right - left)
                    points.append((top + row, left + column))
        rows, columns = np.array(points).T
        return rows, columns

    @cached_property
    def extremes(self) -> Complex:
        """(J, 2, P) shapes at `extreme_pixels`."""
        rows, columns = self.extreme_pixels
        chosen: Complex = self.shapes[:, :, rows, columns]
        return chosen

    @cached_property
    def part_extremes(self) -> Complex:
        """(J, 2, parts) shapes at the strongest pixel of each part but the ground; 0 for one without pixels."""
        if self.parts is None:
            return np.zeros((len(self.shapes), 2, 0), dtype=np.complex128)
        energy = self.envelope(np.ones(len(self.shapes))).ravel()
        flat = self.shapes.reshape(len(self.shapes), 2, -1)
        chosen = np.zeros((len(self.shapes), 2, self.groups - 1), dtype=np.complex128)
        for part in range(1, self.groups):
            own = ((self.parts.owners == part) & (self.parts.shares >= 1)).ravel()
            if own.any():
                chosen[:, :, part - 1] = flat[:, :, np.where(own, energy, -1).argmax()]
        return chosen

    def peak_at_extremes(self, q: Complex, gains: Real) -> float:
        """Largest displacement at `extremes`, in fractions of the long side, of modal coordinates q: (groups * J), or
        (J,) of all parts alike."""
        by_part = q.reshape(-1, len(self.shapes)) * gains
        if self.parts is None or len(by_part) == 1:
            moved = np.einsum("j,jcp->cp", by_part[0], self.extremes).real
        else:
            owners, shares = self.parts.owners[self.extreme_pixels], self.parts.shares[self.extreme_pixels]
            mixed = (1 - shares)[:, None] * by_part[0] + shares[:, None] * by_part[owners]
            moved = np.einsum("pj,jcp->cp", mixed, self.extremes).real
        return float(np.sqrt((moved**2).sum(axis=0)).max())

    def compliance(self, x: float, y: float, gains: Real | None = None) -> float:
        """How far the point moves relative to the strongest point of the photo, 0 (still) to 1."""
        gains = np.ones(len(self.shapes)) if gains is None else gains
        peak = self.peak(gains**2)
        if peak <= 0:
            return 0.0
        here = np.sqrt((np.abs(self.at(x, y) * gains[:, None]) ** 2).sum())
        return float(min(here / peak, 1.0))

    def pull_limit(self, x: float, y: float) -> float:
        """Where the elastic pull of a hand at a point ends, in fractions of the long side: less for small things."""
        owner, share = (0, 0.0) if self.parts is None else self.parts.at(x, y)
        if self.parts is None or share < HELD:
            return PULL_LIMIT
        return min(PULL_LIMIT, float(self.parts.limits[owner - 1]))

    def displace(self, points: Real, pulls: Real, gains: Real, weights: Real) -> Complex:
        """Modal coordinates q (groups * J) that carry each point along its pull: drag and release, [S 1], for several.

        points: (P, 2) fractions of width and height. pulls: (P, 2) fractions of the long side. gains, weights: (J,).
        With B_j the shapes at the points, q_j = w_j conj(B_j) f, so the points move by A f with
        A = Re sum_j w_j B_j B_j^H; one point and one direction is the paper's q_j = s conj(d.S_j). The forces f solve
        (A + e I) f = pull: a point that moves is carried all the way, one that hardly moves is not forced to.
        A part's coordinates are modes that are 0 elsewhere, so that it comes along as far as the points belong to it.
        Points that stand still get no force at all, no point is pulled further than `pull_limit`, and the response is
        scaled down where it would throw any of the photo past `DISPLACEMENT_LIMIT`, or a part past as much of its own.
        """
        peak = self.peak(weights * gains**2)
        if peak <= 0:
            return np.zeros(self.groups * len(self.shapes), dtype=np.complex128)
        weights = np.tile(weights, self.groups)
        at_points = np.concatenate([self.grouped_at(x, y) for x, y in points], axis=1)
        at_points *= np.tile(gains, self.groups)[:, None]
        matrix = np.einsum("j,ja,jb->ab", weights, at_points, at_points.conj()).real
        share = np.sqrt(np.diag(matrix).reshape(-1, 2).sum(axis=1)) / peak
        follow = np.clip((share - STILL) / (MOVING - STILL), 0, 1)
        follow = follow * follow * (3 - 2 * follow)
        lengths = np.sqrt((pulls**2).sum(axis=1))
        limits = [self.pull_limit(x, y) for x, y in points]
        reach = [_factor(length, limit) for length, limit in zip(lengths, limits, strict=True)]
        target = (pulls * (np.array(reach) * follow)[:, None]).reshape(-1)
        force = np.linalg.solve(matrix + FOLLOW_REGULARIZATION * peak**2 * np.eye(len(matrix)), target)
        return self._bounded((weights * (at_points.conj() @ force)).astype(np.complex128), gains)

    def _bounded(self, q: Complex, gains: Real) -> Complex:
        """Modal coordinates (groups * J) scaled down, softly, where they would throw something too far."""
        by_part = q.reshape(self.groups, -1)
        if self.parts is not None:
            moved = np.einsum("gj,jcg->cg", by_part[1:] * gains, self.part_extremes).real
            limits = np.minimum(self.parts.limits, PULL_LIMIT) * (DISPLACEMENT_LIMIT / PULL_LIMIT)
            lengths = np.sqrt((moved**2).sum(axis=0))
            factors = [_factor(length, limit) for length, limit in zip(lengths, limits, strict=True)]
            by_part = by_part * np.array([1.0, *factors])[:, None]
        bounded: Complex = by_part.reshape(-1)
        return bounded * _factor(self.peak_at_extremes(bounded, gains), DISPLACEMENT_LIMIT)


def _factor(length: float, limit: float) -> float:
    """What takes a length to its elastic value."""
    return elastic(length, limit) / length if length > 0 else 0.0
