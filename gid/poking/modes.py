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
    over the long side. tempo: how many times faster than in the volume the modes swing when let go.
    Raises ValueError for another shape, no mode, a frequency of 0, or values that are not finite.
    """

    shapes: Complex
    frequencies: Real
    aspect: tuple[float, float]
    tempo: float = 1.0
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
    def from_volume(cls, volume: SpectralVolume, max_side: int | None = None) -> ModalModel:
        """Modes of `volume`, reduced to at most `max_side` pixels a side if given.

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
            parts = torch.view_as_real(coefficients.to(torch.complex64)).permute(0, 1, 4, 2, 3).flatten(1, 2)
            parts = F.interpolate(parts, reduced, mode="bilinear", antialias=True, align_corners=False)
            coefficients = torch.view_as_complex(parts.unflatten(1, (2, 2)).permute(0, 1, 3, 4, 2).contiguous())
            height, width = reduced
        scale_xy = np.array(aspect).reshape(1, 2, 1, 1)
        sides = np.full((len(coefficients) - 1, 1, 1, 1), 2.0)  # every bin stands for its conjugate too,
        if 2 * len(sides) == volume.num_frames and len(sides):
            sides[-1] = 1.0  # but the Nyquist bin is its own
        shapes = sides * coefficients[1:].numpy().astype(np.complex128) * scale_xy * rim_weight(height, width, aspect)
        frequencies = np.arange(1, len(shapes) + 1) * volume.fps / volume.num_frames
        return cls(shapes, frequencies, aspect, automatic_tempo(shapes, frequencies))

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
    def extremes(self) -> Complex:
        """(J, 2, P) shapes at the strongest pixel of each cell of an 8x8 grid: where a limit is met first."""
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
        chosen: Complex = self.shapes[:, :, rows, columns]
        return chosen

    def peak_at_extremes(self, q: Complex, gains: Real) -> float:
        """Largest displacement of modal coordinates q (J,) at `extremes`, in fractions of the long side."""
        moved = np.einsum("j,jcp->cp", q * gains, self.extremes).real
        return float(np.sqrt((moved**2).sum(axis=0)).max())

    def compliance(self, x: float, y: float, gains: Real | None = None) -> float:
        """How far the point moves relative to the strongest point of the photo, 0 (still) to 1."""
        gains = np.ones(len(self.shapes)) if gains is None else gains
        peak = self.peak(gains**2)
        if peak <= 0:
            return 0.0
        here = np.sqrt((np.abs(self.at(x, y) * gains[:, None]) ** 2).sum())
        return float(min(here / peak, 1.0))

    def displace(self, points: Real, pulls: Real, gains: Real, weights: Real) -> Complex:
        """Modal coordinates q (J,) that carry each point along its pull: drag and release, [S 1], for several points.

        points: (P, 2) fractions of width and height. pulls: (P, 2) fractions of the long side. gains, weights: (J,).
        With B_j the shapes at the points, q_j = w_j conj(B_j) f, so the points move by A f with
        A = Re sum_j w_j B_j B_j^H; one point and one direction is the paper's q_j = s conj(d.S_j). The forces f solve
        (A + e I) f = pull: a point that moves is carried all the way, one that hardly moves is not forced to.
        Points that stand still get no force at all, and the whole response is scaled down where it would throw any
        part of the photo past `DISPLACEMENT_LIMIT`.
        """
        peak = self.peak(weights * gains**2)
        if peak <= 0:
            return np.zeros(len(self.shapes), dtype=np.complex128)
        at_points = np.concatenate([self.at(x, y) for x, y in points], axis=1) * gains[:, None]
        matrix = np.einsum("j,ja,jb->ab", weights, at_points, at_points.conj()).real
        share = np.sqrt(np.diag(matrix).reshape(-1, 2).sum(axis=1)) / peak
        follow = np.clip((share - STILL) / (MOVING - STILL), 0, 1)
        follow = follow * follow * (3 - 2 * follow)
        lengths = np.sqrt((pulls**2).sum(axis=1))
        reach = np.array([elastic(length, PULL_LIMIT) / length if length > 0 else 0.0 for length in lengths])
        target = (pulls * (reach * follow)[:, None]).reshape(-1)
        force = np.linalg.solve(matrix + FOLLOW_REGULARIZATION * peak**2 * np.eye(len(matrix)), target)
        q: Complex = (weights * (at_points.conj() @ force)).astype(np.complex128)
        largest = self.peak_at_extremes(q, gains)
        bounded: Complex = q * (elastic(largest, DISPLACEMENT_LIMIT) / largest if largest > 0 else 1.0)
        return bounded
