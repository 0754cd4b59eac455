"""A synthetic motion with a known answer: one blob sways, everything else stands still."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gid.motion.spectrum import SpectralVolume

CENTRE = (0.4, 0.5)


def swaying_volume(
    height: int = 48, width: int = 80, bands: int = 8, size: tuple[int, int] = (320, 192)
) -> SpectralVolume:
    """A blob about `CENTRE` that moves mostly sideways, with its own phase in every band; exactly 0 far from it."""
    y = (torch.arange(height) + 0.5).view(-1, 1) / height
    x = (torch.arange(width) + 0.5).view(1, -1) / width
    distance = ((x - CENTRE[0]) / 0.2) ** 2 + ((y - CENTRE[1]) / 0.3) ** 2
    blob = (1 - distance).clamp(min=0) ** 2
    coefficients = torch.zeros(bands, 2, height, width, dtype=torch.complex64)
    generator = torch.Generator().manual_seed(3)
    coefficients[0, 0] = 0.02 * blob
    for k in range(1, bands):
        phase = 2 * math.pi * torch.rand(2, generator=generator)
        for axis, amplitude in ((0, 0.01), (1, 0.004)):
            angle = phase[axis] + 1.5 * (x + y)
            coefficients[k, axis] = amplitude / k * blob * torch.polar(torch.ones_like(angle), angle)
    return SpectralVolume(coefficients, image_size=size)


def textured_photo(size: tuple[int, int] = (320, 192)) -> Tensor:
    """A smooth colourful photo (3, H, W) in [0, 1] in which any shift of a pixel or more can be seen."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / 9 + np.sin(y / 23)), np.sin(y / 11 + x / 31), np.sin((x + y) / 14)]
    return torch.from_numpy(np.stack(waves)).float() * 0.4 + 0.5
