"""How strongly to show a motion when no one says: natural for most photos, never so strong that the picture tears.

Two things are known of a predicted motion's size. The model's own amplitude, which is right on average and off by a
factor of about two for a given photo; and what measured clips say of any motion that fills such a share of the
picture. Both are estimates of the same logarithm, so they are averaged (shrinkage): strength = sqrt(natural / own).
Above that stands a stated maximum: neighbouring pixels must not be pulled apart further than in measured clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gid.limits import AUTO, Strength
from gid.motion.spectrum import SpectralVolume


@dataclass(frozen=True)
class NaturalMotion:
    """What the twelve measured training clips say of motion: a line fitted through log amplitude over log share.

    They scatter about it by a factor of 1.7.

    Attributes:
        amplitude: rms displacement of the moving area, as a fraction of sqrt(width * height), of a motion that fills
            the picture.
        exponent: how it grows with the moving share of the picture, amplitude * share ** exponent.
        trust: weight of this against the model's own amplitude, in logarithms.
        lowest, highest: strengths are kept between these.
        stills: a motion under this share of the natural amplitude is a still picture's leak: it is not made stronger.
        stretch: the largest displacement gradient (pixels a pixel), met by all but one in a thousand of a volume's
            places and moments. At 1 the picture folds; measured clips reach 0.58.

    Raises:
        ValueError: for numbers that contradict each other.
    """

    amplitude: float = 3.9e-3
    exponent: float = 0.42
    trust: float = 0.5
    lowest: float = 0.5
    highest: float = 2.0
    stills: float = 0.3
    stretch: float = 0.6

    def __post_init__(self) -> None:
        if not (0 < self.lowest <= 1 <= self.highest and 0 <= self.trust <= 1):
            raise ValueError(f"{self} must have lowest <= 1 <= highest and trust from 0 to 1")
        if not (self.amplitude > 0 and self.stretch > 0 and 0 <= self.stills < 1):
            raise ValueError(f"{self} must have a positive amplitude and stretch, and stills from 0 to under 1")


def automatic_strength(volume: SpectralVolume, natural: NaturalMotion | None = None) -> float:
    """The strength at which a motion looks natural, at most `maximum_strength`.

    1 for a volume in which nothing moves.
    """
    rules = natural or NaturalMotion()
    ratio = natural_ratio(volume, rules)
    if ratio <= 0:
        return 1.0
    strength = min(max(ratio**-rules.trust, rules.lowest), rules.highest)
    if strength > 1:
        # From "a still picture" to "a faint motion" without a jump: photos must not flip between the two.
        certain = min(max((ratio / rules.stills - 1) / 1.0, 0.0), 1.0)
        strength = 1 + (strength - 1) * certain
    return min(strength, maximum_strength(volume, rules))


def hardly_moves(volume: SpectralVolume, natural: NaturalMotion | None = None) -> bool:
    """Whether a motion is so faint beside measured clips that its picture stands still, as far as one can see."""
    rules = natural or NaturalMotion()
    return natural_ratio(volume, rules) < rules.stills


def natural_ratio(volume: SpectralVolume, rules: NaturalMotion) -> float:
    """A motion's amplitude over that of measured clips which move in as much of the picture; 0 if nothing moves."""
    amplitude, share = moving_amplitude(volume)
    return amplitude / (rules.amplitude * share**rules.exponent) if amplitude > 0 else 0.0


def maximum_strength(volume: SpectralVolume, natural: NaturalMotion | None = None) -> float:
    """The strength beyond which neighbouring pixels part further than in measured clips; infinite if none moves."""
    rules = natural or NaturalMotion()
    steepest = steepest_gradient(volume)
    return rules.stretch / steepest if steepest > 0 else math.inf


def moving_amplitude(volume: SpectralVolume) -> tuple[float, float]:
    """Root mean square displacement of the moving area, a fraction of sqrt(width * height), and that area's share.

    What moves is what has at least a tenth of the energy's 95th percentile, as in background leakage.
    """
    energy = isotropic(volume.coefficients[1:], volume).abs().square().sum(dim=(0, 1)).mul(2).sqrt().flatten().double()
    moving = energy > 0.1 * torch.quantile(energy, 0.95)
    if not bool(moving.any()):
        # Less than one place in twenty moves.
        moving = energy > 0.1 * energy.max()
    if not bool(moving.any()):
        return 0.0, 0.0
    return float(energy[moving].square().mean().sqrt()), float(moving.double().mean())


def steepest_gradient(volume: SpectralVolume, moments: int = 25, quantile: float = 0.999) -> float:
    """A high quantile, over places and moments, of how far displacement changes from one pixel to the next.

    Differences of neighbouring cells of the volume, |dFx/dx|, |dFy/dx|, |dFx/dy| and |dFy/dy|, in pixels a pixel.
    """
    rows, columns = volume.coefficients.shape[-2:]
    times = torch.arange(moments, dtype=torch.float64) * (volume.num_frames / moments)
    motion = isotropic(volume.displacement(times), volume)
    width, height = volume.image_size or (columns, rows)
    root = math.sqrt(width * height)
    parts = []
    if columns > 1:
        parts.append(motion.diff(dim=-1).abs().flatten() * (columns * root / width))
    if rows > 1:
        parts.append(motion.diff(dim=-2).abs().flatten() * (rows * root / height))
    if not parts:
        return 0.0
    values = torch.cat(parts)
    rank = min(values.numel(), max(1, math.ceil(quantile * values.numel())))
    return float(values.kthvalue(rank).values)


def isotropic(maps: Tensor, volume: SpectralVolume) -> Tensor:
    """Maps (..., 2, H, W) in fractions of width and height -> in fractions of sqrt(width * height), x and y alike."""
    width, height = volume.image_size or (maps.shape[-1], maps.shape[-2])
    root = math.sqrt(width * height)
    scale = torch.tensor([width / root, height / root], device=maps.device)
    return maps * scale[:, None, None]


def resolve(strength: Strength, volume: SpectralVolume) -> float:
    """The number that a strength stands for."""
    return automatic_strength(volume) if strength == AUTO else float(strength)
