"""Frequency-adaptive normalization of spectral volumes (paper, equation 4), and its extension to the picture.

Motion spectra fall off steeply with frequency: scaled by one number, the high bands vanish under diffusion noise.
The paper scales each band by a high percentile of its own coefficients and compresses with a square root. Here the
amplitude *envelope* of every pixel can be divided out first, so that what diffusion models - phases, coherence, the
share of each band - has unit size wherever anything moves, and is zero where nothing does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

# Amplitude of a unit volume under which its motion fades. Small: where things move is the envelope's to say, and it
# says it better than a sample does (motion-energy correlation on left-out clips 0.47 at 0.2, 0.50 at 0.05, 0.52 at
# 0.01; leakage 0.31, 0.30, 0.24).
FADE = 0.01


@dataclass(frozen=True)
class FrequencyAdaptiveNormalization:
    """S' = sign(S) sqrt(|S| / s_f) for each real scalar, one scale s_f a band (paper, equation 4), and back.

    Attributes:
        scales: K positive numbers, the 95th percentile of the coefficients' magnitudes in each band.
    """

    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.scales or any(not scale > 0 for scale in self.scales):
            raise ValueError(f"scales are {self.scales}; every band needs a positive number")

    @classmethod
    def fit(cls, volumes: Iterable[Tensor], percentile: float = 95.0) -> FrequencyAdaptiveNormalization:
        """Fit the scales to real coefficients, an iterable of (..., K, 4, H, W).

        Pixels whose coefficients are all zero carry no motion and are left out: a mostly still training set would
        otherwise have a percentile of zero.

        Raises:
            ValueError: if no volume is given or some band never moves.
        """
        magnitudes: list[list[Tensor]] = []
        for volume in volumes:
            bands = volume.movedim(-4, 0).flatten(1, -4) if volume.ndim > 4 else volume[:, None]
            moving = bands.abs().amax(dim=(0, 2)) > 0
            for k, band in enumerate(bands):
                while len(magnitudes) <= k:
                    magnitudes.append([])
                chosen = band.abs().movedim(1, 0)[:, moving].flatten()
                magnitudes[k].append(chosen)
        if not magnitudes:
            raise ValueError("no volume was given to fit the normalization to")
        scales = []
        for k, parts in enumerate(magnitudes):
            values = torch.cat(parts)
            if values.numel() == 0:
                raise ValueError(f"band {k} never moves in the training set; its scale cannot be fitted")
            rank = min(values.numel(), max(1, round(percentile / 100 * values.numel())))
            scales.append(float(values.kthvalue(rank).values))
        return cls(tuple(scales))

    def _scale(self, like: Tensor) -> Tensor:
        if like.shape[-4] != len(self.scales):
            raise ValueError(f"{like.shape[-4]} bands given; the normalization was fitted to {len(self.scales)}")
        return torch.tensor(self.scales, device=like.device, dtype=like.dtype)[:, None, None, None]

    def normalize(self, coefficients: Tensor) -> Tensor:
        """(..., K, 4, H, W) coefficients -> normalized, same shape."""
        scaled = coefficients / self._scale(coefficients)
        return scaled.sign() * scaled.abs().sqrt()

    def denormalize(self, normalized: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        return normalized * normalized.abs() * self._scale(normalized)


def envelope_of(coefficients: Tensor) -> Tensor:
    """(..., K, 4, H, W) real coefficients -> (..., 1, H, W) rms displacement over time about its mean (k >= 1)."""
    return (2 * coefficients[..., 1:, :, :, :].square().sum(dim=(-4, -3))).sqrt().unsqueeze(-3)


@dataclass(frozen=True)
class EnvelopeNormalization:
    """Divide a volume by its amplitude envelope E(p), so that it has unit energy where the picture moves.

    Attributes:
        floor: envelope, as a fraction of sqrt(width * height), under which motion fades to nothing. It keeps the noise
            of measured motion in still regions from being blown up.
    """

    floor: float = 3e-4

    def normalize(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """(..., K, 4, H, W) -> (unit-energy coefficients of that shape, envelope (..., 1, H, W))."""
        envelope = envelope_of(coefficients)
        return coefficients / (envelope + self.floor).unsqueeze(-4), envelope

    def denormalize(self, unit: Tensor, envelope: Tensor) -> Tensor:
        """Give coefficients the envelope: scaled per pixel so that their energy *is* ``envelope`` (..., 1, H, W).

        Where the unit coefficients all but vanish (energy under FADE) the motion fades along: noise is not blown up.
        """
        energy = envelope_of(unit).clamp_min(FADE)
        return unit * (envelope / energy).unsqueeze(-4)


def to_isotropic(coefficients: Tensor, width: int, height: int) -> Tensor:
    """(..., K, 4, H, W) fractions of width and height -> fractions of sqrt(width * height) for x and y alike."""
    root = (width * height) ** 0.5
    scale = torch.tensor([width / root, width / root, height / root, height / root], device=coefficients.device)
    return coefficients * scale[:, None, None].to(coefficients.dtype)


def from_isotropic(coefficients: Tensor, width: int, height: int) -> Tensor:
    """The inverse of :func:`to_isotropic`."""
    root = (width * height) ** 0.5
    scale = torch.tensor([root / width, root / width, root / height, root / height], device=coefficients.device)
    return coefficients * scale[:, None, None].to(coefficients.dtype)
