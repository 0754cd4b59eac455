"""The paper's augmentations (supplement 4.1): colour jitter, mirror, scale, rotation up to 5 degrees, crop.

The motion is transformed with the photo: a turned picture has turned displacement vectors, a crop makes each
displacement a larger fraction of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges of the augmentations.

    Attributes:
        scale: smallest and largest share of the picture's side that is kept; over 1 nothing is kept beyond the rim.
        degrees: largest rotation either way.
        brightness, contrast, saturation, hue: largest relative change of each; hue in turns of the colour circle.
        reverse_time: chance that the motion runs backwards.
    """

    scale: tuple[float, float] = (0.6, 1.0)
    degrees: float = 5.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.4
    hue: float = 0.03
    reverse_time: float = 0.3


def augment(
    photo: Tensor,
    coefficients: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator,
    confidence: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One augmented copy.

    Args:
        photo: uint8 (3, H, W).
        coefficients: (K, 4, h, w), fractions of width and height, same aspect.
        config: ranges.
        generator: the only source of randomness.
        confidence: (h, w) in [0, 1], moved along.

    Returns:
        Photo uint8 (3, H, W), coefficients (K, 4, h, w) and confidence (h, w), None if none was given.
    """
    height, width = photo.shape[-2:]
    low, high = config.scale
    share = low + (high - low) * _uniform(generator)
    angle = math.radians(config.degrees) * (2 * _uniform(generator) - 1)
    # The turned window must stay inside the picture: what lies beyond the rim has no colour and no motion.
    aspect = width / height
    reach = share * (math.cos(abs(angle)) + math.sin(abs(angle)) * max(aspect, 1 / aspect))
    share = share / max(1.0, reach)
    reach = min(1.0, reach)
    shift_x = (1 - reach) * (2 * _uniform(generator) - 1)
    shift_y = (1 - reach) * (2 * _uniform(generator) - 1)
    matrix = _window(share, angle, shift_x, shift_y, aspect)
    if _uniform(generator) < 0.5:
        photo = photo.flip(-1)
        coefficients = coefficients.flip(-1) * torch.tensor([-1.0, -1.0, 1.0, 1.0])[:, None, None]
        confidence = None if confidence is None else confidence.flip(-1)
    turned_photo = _sample(photo[None].float() / 255, matrix)[0]
    flat = _sample(coefficients.float().flatten(0, 1)[None], matrix)[0]
    turned = _turn_vectors(flat.unflatten(0, coefficients.shape[:2]), angle, share, aspect)
    if _uniform(generator) < config.reverse_time:
        turned = turned * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]  # F(-t): conjugate coefficients
    if confidence is not None:
        confidence = _sample(confidence[None, None].float(), matrix)[0, 0]
    return (_jitter(turned_photo, config, generator) * 255).round().byte(), turned, confidence


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _window(share: float, angle: float, shift_x: float, shift_y: float, aspect: float) -> Tensor:
    """Affine map from output to input in [-1, 1] coordinates: a window of ``share``, turned by ``angle``."""
    cos, sin = share * math.cos(angle), share * math.sin(angle)
    return torch.tensor([[cos, -sin / aspect, shift_x], [sin * aspect, cos, shift_y]])


def _sample(maps: Tensor, matrix: Tensor) -> Tensor:
    grid = F.affine_grid(matrix[None], [1, 1, *maps.shape[-2:]], align_corners=False)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _turn_vectors(coefficients: Tensor, angle: float, share: float, aspect: float) -> Tensor:
    """Vectors in the window's own axes, as fractions of the window."""
    cos, sin = math.cos(angle) / share, math.sin(angle) / share
    x, y = coefficients[:, :2], coefficients[:, 2:]
    return torch.cat([cos * x + sin / aspect * y, -sin * aspect * x + cos * y], dim=1)


def _jitter(photo: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    def factor(range_: float) -> float:
        return 1 + range_ * (2 * _uniform(generator) - 1)

    grey_weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    photo = photo * factor(config.brightness)
    photo = photo.mean() + (photo - photo.mean()) * factor(config.contrast)
    grey = (photo * grey_weights).sum(0, keepdim=True)
    photo = grey + (photo - grey) * factor(config.saturation)
    turn = 2 * math.pi * config.hue * (2 * _uniform(generator) - 1)
    return (_hue_matrix(turn) @ photo.flatten(1)).unflatten(1, photo.shape[1:]).clamp(0, 1)


def _hue_matrix(turn: float) -> Tensor:
    """Rotation of RGB about the grey axis (Rodrigues' formula)."""
    axis = torch.full((3,), 1 / math.sqrt(3))
    cross = torch.tensor([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return math.cos(turn) * torch.eye(3) + math.sin(turn) * cross + (1 - math.cos(turn)) * torch.outer(axis, axis)
