"""Where motion ends and where objects end: edges of a motion map against edges of the photo."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.bool_]


def image_edges(photo: Tensor, low: int = 60, high: int = 160) -> Mask:
    """(H, W) bool: Canny edges of a photo (3, H, W) in [0, 1], after a slight blur against grain and texture."""
    grey = photo.float().mean(0).clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    return np.asarray(cv2.Canny(cv2.GaussianBlur(grey, (0, 0), 1.2), low, high) > 0)


def motion_edges(motion: Tensor, share: float = 0.03) -> Mask:
    """(H, W) bool: ridges of the gradient of a map of motion (C, H, W), the strongest `share` of its pixels.

    A ridge is a pixel that no neighbour across the edge exceeds. None, if nothing moves.
    """
    field = motion.detach().float().cpu().numpy()
    dx = np.stack([cv2.Sobel(channel, cv2.CV_32F, 1, 0, scale=1 / 8) for channel in field])
    dy = np.stack([cv2.Sobel(channel, cv2.CV_32F, 0, 1, scale=1 / 8) for channel in field])
    size = np.sqrt((dx**2 + dy**2).sum(0))
    if not size.max() > 0:
        return np.zeros(size.shape, bool)
    steep_x = (dx**2).sum(0) >= (dy**2).sum(0)
    padded = np.pad(size, 1)
    across = np.maximum(padded[1:-1, :-2], padded[1:-1, 2:])
    down = np.maximum(padded[:-2, 1:-1], padded[2:, 1:-1])
    ridge = size >= np.where(steep_x, across, down)
    # The picture's rim is no edge of an object.
    ridge[[0, -1]] = False
    ridge[:, [0, -1]] = False
    strong = size >= np.quantile(size, 1 - share)
    return np.asarray(ridge & strong & (size > 0))


def edge_distance(found: Mask, wanted: Mask) -> float:
    """Mean distance in pixels from each found edge pixel to the nearest wanted one; NaN if either has none."""
    if not found.any() or not wanted.any():
        return math.nan
    distance = cv2.distanceTransform((~wanted).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float(distance[found].mean())


def chance_distance(wanted: Mask) -> float:
    """What edges laid anywhere would score: the mean distance of all pixels to the nearest wanted one."""
    return edge_distance(np.ones_like(wanted), wanted)
