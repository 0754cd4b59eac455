"""Interactive dynamics (paper, section 6 and supplement 1): a photo that answers a pull, a poke and the wind.

Every frequency band j of the spectral volume is a mode with the damped oscillator q'' + gamma q' + omega^2 q = f / m,
gamma = alpha + beta omega^2, and the photo's displacement is Re sum_j S_j(p) q_j(t). The oscillators are stepped with
their exact solution (the supplement's equation 8 adds an acceleration to a position and diverges), so that a frame may
take a millisecond or ten seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gid.limits import POKE
from gid.motion.spectrum import SpectralVolume
from gid.poking.modes import Complex, ModalModel, Real, limit_displacement
from gid.poking.oscillator import propagator
from gid.poking.parts import Parts
from gid.poking.wind import WIND_STEP, Wind, WindOnModes

HOLD_OMEGA = 2 * math.pi * 6
"""A held point is carried to the pointer by a critically damped spring of 6 Hz: 95 % of the way in 1/8 s."""
REST = 2e-4
"""Below this fraction of the long side nothing moves visibly (a tenth of a pixel at 512)."""
PULL_STEP = 1 / 120
SWING_TIME, SWING_SAMPLES = 1.5, 48


@dataclass(frozen=True)
class Knobs:
    """Material of the photo.

    stiffness: scales omega^2. damping: scales gamma; 1 is the paper's, half of it rings on longer. mass: divides
    forces and omega^2. Both stiffness and mass leave each mode's damping ratio alone, so that they change tempo, not
    liveliness. strength: scales what is shown. gains: one factor a mode, 0 mutes it; None for all 1.
    Raises ValueError for a value out of range.
    """

    stiffness: float = 1.0
    damping: float = 0.5
    mass: float = 1.0
    strength: float = 1.0
    gains: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("stiffness", "damping", "mass", "strength"):
            POKE[name].check(name, getattr(self, name))
        for gain in self.gains or ():
            POKE["gain"].check("the gain of a band", gain)


@dataclass(frozen=True)
class Gesture:
    """One thing a hand does.

    at: (x, y) in fractions of the photo's width and height. force: (dx, dy), the pull in the same fractions: where the
    pointer goes. kind: "drag" pulls and lets go, "poke" is a short push. start: seconds. duration: seconds from the
    first touch to letting go (drag only).
    Raises ValueError for a point outside the photo, a force of zero, over one photo, or not finite.
    """

    at: tuple[float, float]
    force: tuple[float, float]
    kind: Literal["drag", "poke"] = "drag"
    start: float = 0.0
    duration: float = 0.5

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) and 0 <= v <= 1 for v in self.at):
            raise ValueError(f"the point {self.at} is outside the photo: give fractions from 0 to 1")
        if not all(math.isfinite(v) and abs(v) <= 1 for v in self.force):
            raise ValueError(f"the force {self.force} is not within one photo size: give fractions from -1 to 1")
        if self.force == (0.0, 0.0):
            raise ValueError("the force is zero: give a direction to pull in, for example 0.1,0")
        if self.kind not in ("drag", "poke"):
            raise ValueError(f"a gesture is a drag or a poke, got {self.kind!r}")
        if not 0 <= self.start <= 60:
            raise ValueError(f"start must be 0 to 60 s, got {self.start}")
        POKE["hold"].check("duration", self.duration)


@dataclass
class Simulation:
    """The state of one photo's modes and what acts on them. Time goes on only in `step`.

    q, v: (groups * J) modal coordinates and their velocities, [part][mode].
    """

    model: ModalModel
    knobs: Knobs = field(default_factory=Knobs)
    time: float = 0.0

    def __post_init__(self) -> None:
        self.q: Complex = np.zeros(self.model.groups * len(self.model.shapes), dtype=np.complex128)
        self.v: Complex = np.zeros_like(self.q)
        self.held: dict[int, tuple[tuple[float, float], tuple[float, float]]] = {}
        self.winds: list[WindOnModes] = []
        self._target: Complex | None = None

    @property
    def gains(self) -> Real:
        """(J,) band gains. Raises ValueError if the knobs hold another number of them."""
        count = len(self.model.shapes)
        if self.knobs.gains is None:
            return np.ones(count)
        if len(self.knobs.gains) != count:
            raise ValueError(f"the motion has {count} bands above the constant one, got {len(self.knobs.gains)} gains")
        return np.array(self.knobs.gains, dtype=np.float64)

    def _in_all(self, values: Real) -> Real:
        """Values (J,) of the modes, for every part alike."""
        return np.tile(values, self.model.groups)

    def hold(self, at: tuple[float, float], pull: tuple[float, float], pointer: int = 0) -> None:
        """Take hold of the photo at `at` and pull it by `pull` (fractions of width and height); call again to move."""
        self.held[pointer] = (at, (pull[0] * self.model.aspect[0], pull[1] * self.model.aspect[1]))
        self._aim()

    def release(self, pointer: int = 0) -> None:
        """Let go: the modes ring down from where they are."""
        self.held.pop(pointer, None)
        self._aim()

    def _aim(self) -> None:
        if not self.held:
            self._target = None
            return
        points = np.array([at for at, _ in self.held.values()])
        pulls = np.array([pull for _, pull in self.held.values()])
        self._target = self.model.displace(points, pulls, self.gains, np.ones(len(self.model.shapes)))

    def poke(self, at: tuple[float, float], push: tuple[float, float]) -> None:
        """An impulse that, on the paper's material, swings the point out by `push` (fractions of width and height)."""
        pull = np.array([[push[0] * self.model.aspect[0], push[1] * self.model.aspect[1]]])
        omega = self.model.omega
        amplitude = self.model.displace(np.array([at]), pull, self.gains, 1 / omega)
        here = self.model.grouped_at(*at) * self._in_all(self.gains)[:, None]
        meant = float(np.linalg.norm((amplitude @ here).real))
        peak = 0.0
        for k in range(1, SWING_SAMPLES + 1):
            swing = propagator(omega, self.model.gamma, k * SWING_TIME / SWING_SAMPLES)[1]
            peak = max(peak, float(np.linalg.norm((self._in_all(swing * omega) * amplitude @ here).real)))
        if peak > 0:
            self.v = self.v + self._in_all(omega) * amplitude * (meant / peak / self.knobs.mass)

    def gust(self, wind: Wind) -> None:
        """Let a wind come up at the next wind step."""
        start = math.floor(self.time / WIND_STEP + 1e-9) + 1
        self.winds.append(WindOnModes(self.model, wind, self.gains, start))

    def step(self, dt: float) -> None:
        """Advance by `dt` seconds, exactly. Raises ValueError unless dt is finite and at least 0."""
        if not (math.isfinite(dt) and dt >= 0):
            raise ValueError(f"a time step must be finite and at least 0, got {dt}")
        remaining = dt
        while remaining > 0:
            index = math.floor(self.time / WIND_STEP + 1e-9)
            self.winds = [wind for wind in self.winds if not wind.finished(index)]
            part = min(remaining, (index + 1) * WIND_STEP - self.time) if self.winds else remaining
            self._advance(part, index)
            self.time += part
            remaining -= part

    def _advance(self, dt: float, wind_index: int) -> None:
        tempo = math.sqrt(self.knobs.stiffness / self.knobs.mass)
        omega = self.model.omega * tempo
        gamma = self.knobs.damping * tempo * self.model.gamma
        rest: Complex = np.zeros_like(self.q)
        if self._target is not None:
            omega = np.full_like(omega, HOLD_OMEGA)
            gamma = 2 * omega
            rest = self._target
        elif self.winds:
            for wind in self.winds:
                rest = rest + np.tile(wind.force(wind_index) / (self.knobs.mass * omega**2), self.model.groups)
        a, b, c, d = (self._in_all(values) for values in propagator(omega, gamma, dt))
        offset = self.q - rest
        self.q, self.v = rest + a * offset + b * self.v, c * offset + d * self.v

    def displacement(self) -> Real:
        """(2, H, W) displacement shown now, x and y in fractions of the long side, within `DISPLACEMENT_LIMIT`."""
        return limit_displacement(self.model.displacement(self.weights))

    @property
    def weights(self) -> Complex:
        """(groups * J) what the shapes are multiplied with: modal coordinates times gains and strength."""
        return self.q * self._in_all(self.gains) * self.knobs.strength

    def at_rest(self) -> bool:
        """Whether nothing moves visibly any more and nothing will."""
        if self.held or self.winds:
            return False
        reach = np.abs(self.q) + np.abs(self.v) / self._in_all(self.model.omega)
        reach = reach.reshape(self.model.groups, -1).max(axis=0)
        return bool(np.einsum("j,jcp->cp", reach * self.gains, np.abs(self.model.extremes)).max() < REST)


def poke_displacements(
    volume: SpectralVolume,
    at: tuple[float, float] | None = None,
    force: tuple[float, float] | None = None,
    *,
    gestures: Sequence[Gesture] = (),
    wind: Wind | None = None,
    seconds: float = 3.0,
    fps: float = 30.0,
    knobs: Knobs | None = None,
    parts: Parts | None = None,
) -> Tensor:
    """The photo's answer to gestures and wind, from rest to rest.

    volume: motion of the photo. at, force: shorthand for one drag `Gesture(at, force)`. seconds: length, 0.5 to 60.
    parts: of the photo, which then answer a hand each by itself (`gid.poking.parts`); without them it moves as one.
    Returns (N, 2, H, W) float32 at the volume's resolution, fractions of width (x) and height (y), N = seconds * fps;
    the first and the last frame are zero: what still rings near the end is faded out.
    Raises ValueError for nothing to do, a length out of range, or what `Gesture`, `Knobs` and `Wind` refuse.
    """
    gestures = list(gestures)
    if (at is None) != (force is None):
        raise ValueError("a poke needs both a point and a force")
    if at is not None and force is not None:
        gestures.append(Gesture(at, force))
    if not gestures and wind is None:
        raise ValueError("nothing acts on the photo: give a point and a force, or a gust")
    if not 0.5 <= seconds <= 60 or not 1 <= fps <= 120:
        raise ValueError(f"length must be 0.5 to 60 s at 1 to 120 frames a second, got {seconds} s at {fps}")
    simulation = Simulation(ModalModel.from_volume(volume, parts=parts), knobs or Knobs())
    if wind is not None:
        simulation.gust(wind)
    count = max(2, round(seconds * fps))
    modal = np.zeros((count, len(simulation.q)), dtype=np.complex128)
    for n in range(1, count):
        _play(simulation, gestures, (n - 1) / fps, n / fps)
        modal[n] = simulation.weights
    frames = limit_displacement(simulation.model.displacement(modal))
    fade = torch.tensor([_fade(n / (count - 1) * seconds, seconds) for n in range(count)])
    aspect = torch.tensor(simulation.model.aspect)
    return torch.from_numpy(frames).float() * fade[:, None, None, None] / aspect[:, None, None]


def _fade(time: float, seconds: float) -> float:
    """1, then a smooth way to 0 over the last third (at most 1.5 s)."""
    share = min(max((seconds - time) / min(1.5, seconds / 3), 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _play(simulation: Simulation, gestures: Sequence[Gesture], begin: float, end: float) -> None:
    """Step from begin to end in fine steps, acting out the gestures on the way."""
    steps = max(1, math.ceil((end - begin) / PULL_STEP))
    for k in range(steps):
        t = begin + (end - begin) * k / steps
        after = begin + (end - begin) * (k + 1) / steps
        for pointer, gesture in enumerate(gestures):
            if gesture.kind == "poke":
                if t <= gesture.start < after:
                    simulation.poke(gesture.at, gesture.force)
                continue
            progress = (after - gesture.start) / gesture.duration
            if 0 < progress <= 1:
                share = min(progress / 0.8, 1.0)  # the hand arrives, then waits a moment
                share = share * share * (3 - 2 * share)
                simulation.hold(gesture.at, (gesture.force[0] * share, gesture.force[1] * share), pointer)
            elif pointer in simulation.held:
                simulation.release(pointer)
        simulation.step((end - begin) / steps)
