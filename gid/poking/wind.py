"""Wind: a seeded front that travels over the photo and pushes the modes it meets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gid.poking.modes import DISPLACEMENT_LIMIT, Complex, ModalModel, Real
from gid.poking.oscillator import propagator

WIND_STEP = 0.05
"""Seconds for which the wind is held constant. A fixed grid, so that the result does not depend on the frame rate."""
SLICES = 16
TRAVEL_TIME = 0.8
GUST_LIMIT_SHARE = 0.4


def hash_unit(seed: int, index: int) -> float:
    """A number in [0, 1) from two integers: the same in Python and in JavaScript."""
    mask = 0xFFFFFFFF
    x = (index * 0x9E3779B1 + seed * 0x85EBCA6B + 0x27D4EB2F) & mask
    x ^= x >> 16
    x = (x * 0x7FEB352D) & mask
    x ^= x >> 15
    x = (x * 0x846CA68B) & mask
    x ^= x >> 16
    return x / 4294967296.0


def smooth_noise(seed: int, t: float) -> float:
    """Smooth noise in [0, 1) with one independent value a unit of t."""
    index = math.floor(t)
    mix = 0.5 - 0.5 * math.cos(math.pi * (t - index))
    return hash_unit(seed, index) * (1 - mix) + hash_unit(seed, index + 1) * mix


@dataclass(frozen=True)
class Wind:
    """A wind over the photo.

    strength: 1 bends the strongest point by about 6 % of the long side. angle: degrees, 0 blows to the right, 90 down.
    duration: seconds of a gust, or infinity for a wind that goes on. seed: which wind.
    Raises ValueError for values that are not finite, or no duration.
    """

    strength: float = 1.0
    angle: float = 0.0
    duration: float = 2.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and math.isfinite(self.angle)) or not self.duration > 0:
            raise ValueError(
                f"a wind needs a finite strength and angle and a duration above 0 s, got strength {self.strength}, "
                f"angle {self.angle}, duration {self.duration}; strength 1 is a good start"
            )

    def profile(self, t: float) -> float:
        """Wind speed `t` seconds after the front arrives, about 0 to 1.5; 0 before it and after the gust."""
        if t <= 0 or t >= self.duration:
            return 0.0
        rough = 0.5 + smooth_noise(self.seed, 3 * t)
        if math.isinf(self.duration):
            start = min(t, 1.0)
            return start * start * (3 - 2 * start) * (0.4 * rough + smooth_noise(self.seed + 1, 0.6 * t))
        return math.sin(math.pi * t / self.duration) ** 2 * rough


class WindOnModes:
    """A wind projected on the modes of a photo: modal force at every wind step."""

    def __init__(self, model: ModalModel, wind: Wind, gains: Real, start: int) -> None:
        self.wind = wind
        self.start = start
        self.slices = slice_forces(model, wind.angle, gains)
        self.scale = 0.0
        self.scale = self._automatic_scale(model, gains)

    def _unit_force(self, index: int) -> Complex:
        time = index * WIND_STEP
        speeds = [self.wind.profile(time - TRAVEL_TIME * (s + 0.5) / SLICES) for s in range(SLICES)]
        force: Complex = self.slices @ np.array(speeds)
        return force

    def force(self, step: int) -> Complex:
        """(J,) modal force in wind step `step` of the simulation's clock."""
        return self._unit_force(step - self.start) * (self.scale * self.wind.strength)

    def finished(self, step: int) -> bool:
        """Whether the front has left the photo for good."""
        return (step - self.start) * WIND_STEP > self.wind.duration + TRAVEL_TIME

    def _automatic_scale(self, model: ModalModel, gains: Real) -> float:
        """So that strength 1 moves the strongest point by a set share of the limit: try the wind once, measure."""
        omega = model.omega
        a, b, c, d = propagator(omega, model.gamma, WIND_STEP)
        q = np.zeros(len(omega), dtype=np.complex128)
        v = np.zeros_like(q)
        peak = 0.0
        for index in range(round(4 / WIND_STEP)):
            rest = self._unit_force(index) / omega**2
            q, v = rest + a * (q - rest) + b * v, c * (q - rest) + d * v
            peak = max(peak, model.peak_at_extremes(q, gains))
        return GUST_LIMIT_SHARE * DISPLACEMENT_LIMIT / peak if peak > 0 else 0.0


def slice_forces(model: ModalModel, angle: float, gains: Real) -> Complex:
    """(J, SLICES) modal force of a uniform wind on each slice of the photo across the wind's direction."""
    height, width = model.shapes.shape[-2:]
    direction = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    x = (np.arange(width) + 0.5) / width * model.aspect[0]
    y = (np.arange(height) + 0.5) / height * model.aspect[1]
    along = x[None, :] * direction[0] + y[:, None] * direction[1]
    # The corners bound the photo along any direction, so that every pixel falls into a slice.
    corners = [px * direction[0] + py * direction[1] for px in (0, model.aspect[0]) for py in (0, model.aspect[1])]
    low, high = min(corners), max(corners)
    index = np.clip(((along - low) / (high - low) * SLICES).astype(int), 0, SLICES - 1).reshape(-1)
    push = np.einsum("jchw,c->jhw", model.shapes.conj(), direction).reshape(len(model.shapes), -1) * gains[:, None]
    forces = np.zeros((len(push), SLICES), dtype=np.complex128)
    for s in range(SLICES):
        forces[:, s] = push[:, index == s].sum(axis=1) / (height * width)
    return forces
