"""Periodic sway: damped resonators in one shared gust, and the joints that carry it to pixels.

Every joint is a complex 2x2 matrix per band. A point p of a part that hangs on the joint moves by
``u_k(p) = M_k (p - pivot) (|p - pivot| / length)^(power - 1)``, so a joint of power 2 bends like a stem and one of
power 1 turns like a leaf. A part lists the joints of its ancestors (trunk, branch, leaf) and its motion is their sum.
Bands are k = 1..K-1, so that every motion repeats after ``num_frames`` without a seam; the displacement is pinned to
zero at frame 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]
REACH = 1.5  # beyond this multiple of a joint's length the bending profile grows no further


@dataclass(frozen=True)
class Wind:
    """One gust for a whole scene: unit direction (y down), complex amplitude per band, lag in seconds per pixel."""

    direction: tuple[float, float]
    gust: Complexes
    frequencies: Floats
    slope: float
    lag: tuple[float, float]
    coherence: float
    strength: float

    @classmethod
    def sample(cls, rng: np.random.Generator, num_bands: int, frequency_step: float, width: int) -> Wind:
        """Draw a gust; ``frequency_step`` is fps / num_frames in Hz, ``width`` the picture's width in pixels."""
        heading = rng.normal(0.0, 0.6) + (np.pi if rng.random() < 0.5 else 0.0)
        gust = (rng.normal(size=num_bands - 1) + 1j * rng.normal(size=num_bands - 1)).astype(np.complex64)
        speed = width / rng.uniform(0.1, 1.3)  # a gust crosses the picture in 0.1 to 1.3 s
        return cls(
            direction=(float(np.cos(heading)), float(np.sin(heading))),
            gust=gust,
            frequencies=(np.arange(1, num_bands) * frequency_step).astype(np.float32),
            slope=float(rng.uniform(0.15, 0.85)),
            lag=(float(np.cos(heading) / speed), float(0.5 * np.sin(heading) / speed)),
            coherence=float(rng.uniform(0.7, 0.97)),
            strength=float(np.exp(rng.uniform(np.log(0.0028), np.log(0.011)))),
        )

    def drive(
        self, rng: np.random.Generator, natural: float, damping: float, at: tuple[float, float], coherence: float = 1.0
    ) -> Complexes:
        """Response (K-1,) of a resonator of natural frequency ``natural`` Hz at a point, with a temporal rms of one."""
        f = self.frequencies
        first = 1 / (1 - (f / natural) ** 2 + 2j * damping * f / natural)
        second = 0.35 / (1 - (f / (2.1 * natural)) ** 2 + 2j * damping * f / (2.1 * natural))
        response = f**-self.slope * (first + second)
        shared = self.gust * np.exp(-2j * np.pi * f * (at[0] * self.lag[0] + at[1] * self.lag[1]))
        own = rng.normal(size=f.size) + 1j * rng.normal(size=f.size)
        share = self.coherence * coherence
        coefficients = response * (share * shared + np.sqrt(1 - share**2) * own)
        rms = np.sqrt(2 * np.sum(np.abs(coefficients) ** 2))
        return (coefficients / rms).astype(np.complex64)

    def torque(self, direction: tuple[float, float]) -> float:
        """How strongly the wind turns a part that points along ``direction``: signed, 0.45 to 1 in size."""
        cross = direction[0] * self.direction[1] - direction[1] * self.direction[0]
        return float((0.45 + 0.55 * abs(cross)) * (1.0 if cross >= 0 else -1.0))


def turn(drive: Complexes, angle: float) -> Complexes:
    """Matrices (K-1,2,2) of a small rotation by ``angle * drive`` radians."""
    matrix = np.zeros((drive.size, 2, 2), np.complex64)
    matrix[:, 0, 1], matrix[:, 1, 0] = -angle * drive, angle * drive
    return matrix


@dataclass
class Rig:
    """Joints and smooth fields of a scene. Joint 0 stands still."""

    num_bands: int
    frequency_step: float
    fps: float
    pivots: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])
    lengths: list[float] = field(default_factory=lambda: [1.0])
    powers: list[float] = field(default_factory=lambda: [1.0])
    matrices: list[Complexes] = field(default_factory=list)
    grids: list[Complexes] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.matrices.append(np.zeros((self.num_bands - 1, 2, 2), np.complex64))

    def joint(self, pivot: tuple[float, float], length: float, power: float, matrix: Complexes) -> int:
        """Add a joint and return its number."""
        self.pivots.append((float(pivot[0]), float(pivot[1])))
        self.lengths.append(float(max(length, 1.0)))
        self.powers.append(float(power))
        self.matrices.append(matrix)
        return len(self.pivots) - 1

    def field(self, box: tuple[float, float, float, float], grid: Complexes) -> int:
        """Add a smooth field: ``grid`` (K-1,2,h,w) in pixels over the box x0, y0, x1, y1. Returns a negative number."""
        self.grids.append(grid.astype(np.complex64))
        self.boxes.append(box)
        return -len(self.grids)

    def phasors(self, time: float) -> Complexes:
        """(K-1,) factors 2 (exp(i w t) - 1); their real product with the coefficients is the pinned displacement."""
        w = 2 * np.pi * np.arange(1, self.num_bands) * self.frequency_step / self.fps
        return (2 * (np.exp(1j * w * time) - 1)).astype(np.complex64)

    def at(self, time: float) -> Pose:
        """The pose at ``time`` in frames."""
        z = self.phasors(time)
        matrices = np.einsum("jkab,k->jab", np.stack(self.matrices), z).real.astype(np.float32)
        grids = [np.einsum("kchw,k->chw", grid, z).real.astype(np.float32) for grid in self.grids]
        return Pose(self, matrices, grids)

    def profile(self, joints: NDArray[np.int64], x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Lever arm (dx, dy), in pixels, of points against their joints, the bending profile included."""
        pivots = np.asarray(self.pivots, np.float32)[joints]
        lengths = np.asarray(self.lengths, np.float32)[joints]
        powers = np.asarray(self.powers, np.float32)[joints]
        dx, dy = x - pivots[..., 0], y - pivots[..., 1]
        reach = np.minimum(np.sqrt(dx * dx + dy * dy) / lengths, REACH) + 1e-6
        gain = reach ** (powers - 1)
        return dx * gain, dy * gain

    def coefficients(self, chains: NDArray[np.int64], x: Floats, y: Floats) -> Complexes:
        """Coefficients (K-1,2,N) in pixels of N points that hang on ``chains`` (N, depth)."""
        out = np.zeros((x.size, self.num_bands - 1, 2), np.complex64)
        matrices = np.stack(self.matrices)
        for level in range(chains.shape[1]):
            joints = chains[:, level]
            rows = np.nonzero(joints > 0)[0]
            if rows.size:
                dx, dy = self.profile(joints[rows], x[rows], y[rows])
                m = matrices[joints[rows]]
                out[rows] += m[..., 0] * dx[:, None, None] + m[..., 1] * dy[:, None, None]
            for number in np.unique(joints[joints < 0]):
                rows = np.nonzero(joints == number)[0]
                grid = self.grids[-number - 1]
                flat = np.concatenate([grid.real, grid.imag]).reshape(-1, *grid.shape[2:])
                values = _sample(flat, self.boxes[-number - 1], x[rows], y[rows]).reshape(2, *grid.shape[:2], -1)
                out[rows] += np.moveaxis(values[0] + 1j * values[1], -1, 0)
        return np.moveaxis(out, 0, -1)


@dataclass(frozen=True)
class Pose:
    """All joints at one moment."""

    rig: Rig
    matrices: Floats
    grids: list[Floats]

    def displacement(self, chains: NDArray[np.int64], x: Floats, y: Floats) -> Floats:
        """Displacement (2,N) in pixels of N points that hang on ``chains`` (N, depth)."""
        out = np.zeros((2, x.size), np.float32)
        for level in range(chains.shape[1]):
            joints = chains[:, level]
            rows = np.nonzero(joints > 0)[0]
            if rows.size:
                dx, dy = self.rig.profile(joints[rows], x[rows], y[rows])
                m = self.matrices[joints[rows]]
                out[:, rows] += (m[:, :, 0] * dx[:, None] + m[:, :, 1] * dy[:, None]).T
            for number in np.unique(joints[joints < 0]):
                rows = np.nonzero(joints == number)[0]
                out[:, rows] += _sample(self.grids[-number - 1], self.rig.boxes[-number - 1], x[rows], y[rows])
        return out


def _sample(grid: Floats, box: tuple[float, float, float, float], x: Floats, y: Floats) -> Floats:
    """Bilinear samples (C,N) of ``grid`` (C,h,w) stretched over ``box``, clamped at its border."""
    height, width = grid.shape[1:]
    u = np.clip((x - box[0]) / max(box[2] - box[0], 1e-3), 0, 1) * (width - 1)
    v = np.clip((y - box[1]) / max(box[3] - box[1], 1e-3), 0, 1) * (height - 1)
    i, j = np.minimum(u.astype(int), width - 2), np.minimum(v.astype(int), height - 2)
    a, b = (u - i).astype(np.float32), (v - j).astype(np.float32)
    top = grid[:, j, i] * (1 - a) + grid[:, j, i + 1] * a
    bottom = grid[:, j + 1, i] * (1 - a) + grid[:, j + 1, i + 1] * a
    return np.asarray(top * (1 - b) + bottom * b)


def smooth_field(rng: np.random.Generator, channels: int, height: int, width: int, cells: int) -> Complexes:
    """Smooth complex random field (channels,height,width) of unit variance with about ``cells`` patches a side."""
    coarse = rng.normal(size=(cells + 1, cells + 1, 2 * channels)).astype(np.float32)
    planes = [cv2.resize(coarse[..., c], (width, height), interpolation=cv2.INTER_CUBIC) for c in range(2 * channels)]
    return (np.stack(planes[:channels]) + 1j * np.stack(planes[channels:])).astype(np.complex64)
