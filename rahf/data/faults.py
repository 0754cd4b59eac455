"""Faults planted into pictures, each with the mask of where it is. Pictures are (H,W,3) uint8, boxes (x, y, side)."""

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np

VISIBLE = 5.0
Box = tuple[int, int, int, int]  # x, y, width, height
Fault = Callable[[np.ndarray, Box, float, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def warp(image: np.ndarray, box: Box, severity: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Twist a disk in the box; up to three quarters of a turn at its middle."""
    grid_x, grid_y, reach = _disk(image, box)
    turn = severity * 1.5 * np.pi * generator.choice([-1, 1]) * reach**2
    dx, dy = grid_x - (box[0] + box[2] / 2), grid_y - (box[1] + box[3] / 2)
    x = np.cos(turn) * dx - np.sin(turn) * dy + box[0] + box[2] / 2
    y = np.sin(turn) * dx + np.cos(turn) * dy + box[1] + box[3] / 2
    return _remap(image, x, y), reach > 0.15


def melt(image: np.ndarray, box: Box, severity: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Let columns of the lower part of the box drip down by uneven amounts."""
    grid_x, grid_y, reach = _disk(image, box)
    waves = generator.uniform(0, 2 * np.pi, 3)
    width = max(box[2], 1)
    drip = sum(np.sin((grid_x - box[0]) / width * (4 + 5 * n) + wave) for n, wave in enumerate(waves))
    amount = severity * 0.28 * box[3] * (0.6 + 0.4 * drip / 1.5) * reach
    return _remap(image, grid_x, grid_y - amount), reach > 0.2


def double(
    image: np.ndarray, box: Box, severity: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Show part of the box a second time beside itself, half transparent."""
    grid_x, grid_y, reach = _disk(image, box)
    angle = generator.uniform(0, 2 * np.pi)
    shift = (0.18 + 0.22 * severity) * min(box[2:])
    copied = _remap(image, grid_x + shift * np.cos(angle), grid_y + shift * np.sin(angle))
    blend = (np.clip(reach * 4, 0, 1) * (0.4 + 0.3 * severity))[..., None]
    return (image * (1 - blend) + copied * blend).round().astype(np.uint8), reach > 0.1


def texture(
    image: np.ndarray, box: Box, severity: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Replace a patch by a texture that does not belong there."""
    grid_x, grid_y, reach = _disk(image, box)
    frequency = generator.uniform(0.3, 0.9)
    angle = generator.uniform(0, np.pi)
    pattern = np.sin(frequency * (np.cos(angle) * grid_x + np.sin(angle) * grid_y))
    pattern = pattern + np.sin(frequency * 1.3 * (np.cos(angle + 1.4) * grid_x + np.sin(angle + 1.4) * grid_y))
    colours = generator.uniform(30, 225, (2, 3))
    mixed = colours[0] + (colours[1] - colours[0]) * (pattern[..., None] / 4 + 0.5)
    blend = (np.clip(reach * 5 - 0.5, 0, 1) * (0.5 + 0.5 * severity))[..., None]
    return (image * (1 - blend) + mixed * blend).round().astype(np.uint8), reach > 0.12


def garble(
    image: np.ndarray, box: Box, severity: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Make writing unreadable: columns of letters are flipped, shifted and bent."""
    x, y, width, height = _inside(image, box)
    out = image.copy()
    edges = np.linspace(x, x + width, num=max(int(3 + 5 * severity), 3) + 1).astype(int)
    for left, right in pairwise(edges):
        part = image[y : y + height, left:right]
        part = part[::-1] if generator.random() < 0.5 else part[:, ::-1]
        out[y : y + height, left:right] = np.roll(part, int(generator.integers(-height // 6, height // 6 + 1)), axis=0)
    mask = np.zeros(image.shape[:2], bool)
    mask[y : y + height, x : x + width] = True
    return out, mask


OBJECT_FAULTS: dict[str, Fault] = {"warp": warp, "melt": melt, "double": double, "texture": texture}


def plant_warp(
    image: np.ndarray, generator: np.random.Generator, severity: float = 0.8, size: tuple[float, float] = (0.15, 0.35)
) -> tuple[np.ndarray, np.ndarray]:
    """Twist one disk somewhere in any picture, its side a part `size` of the shorter side; picture and mask (H,W)."""
    height, width = image.shape[:2]
    side = int(generator.uniform(*size) * min(height, width))
    x, y = int(generator.integers(0, width - side)), int(generator.integers(0, height - side))
    return warp(image, (x, y, side, side), severity, generator)


def burden_of(mask: np.ndarray, severity: float) -> float:
    """What a fault adds to a picture's burden: severity * (0.4 + 2 * the part of the picture it covers)."""
    return severity * (0.4 + 2 * float(mask.mean()))


def is_visible(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a fault changed a picture by more than VISIBLE levels on average where its mask is: a twisted patch of
    plain sky is no fault that anybody could see."""
    difference = np.abs(after[mask].astype(np.int16) - before[mask].astype(np.int16))
    return difference.size > 0 and float(difference.mean()) > VISIBLE


def spread(mask: np.ndarray, severity: float) -> np.ndarray:
    """A heatmap (H,W) float32 in [0, 1] from a mask: widened by a fortieth of the height, with soft edges."""
    radius = max(mask.shape[0] // 40, 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    wide = cv2.dilate(mask.astype(np.float32), kernel)
    soft = cv2.GaussianBlur(wide, (0, 0), radius) * severity
    return np.where(soft < 0.03, 0, soft).astype(np.float32)


def _disk(image: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel coordinates (H,W), and how deep each pixel is in the ellipse of the box: 0 at the rim, 1 in the middle."""
    height, width = image.shape[:2]
    grid_y, grid_x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y, box_width, box_height = box
    across = ((grid_x - x - box_width / 2) / (box_width / 2 + 1e-6)) ** 2
    down = ((grid_y - y - box_height / 2) / (box_height / 2 + 1e-6)) ** 2
    return grid_x, grid_y, np.clip(1 - np.sqrt(across + down), 0, 1)


def _remap(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return cv2.remap(image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _inside(image: np.ndarray, box: Box) -> Box:
    x, y = max(box[0], 0), max(box[1], 0)
    return x, y, min(box[2], image.shape[1] - x), min(box[3], image.shape[0] - y)
