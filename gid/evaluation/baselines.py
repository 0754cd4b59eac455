"""What a prediction has to beat: motion maps that need no learning."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def uniform_sway(photo: Tensor) -> Tensor:
    """Everything sways alike: ones (H, W)."""
    return torch.ones(photo.shape[-2:])


def still(photo: Tensor) -> Tensor:
    """Nothing moves: zeros (H, W)."""
    return torch.zeros(photo.shape[-2:])


def greenness(photo: Tensor) -> Tensor:
    """Excess green 2g - r - b with r + g + b = 1, from 0 up, (H, W): plants move."""
    chromatic = photo.double() / photo.double().sum(0).clamp_min(1e-6)
    excess = 2 * chromatic[1] - chromatic[0] - chromatic[2]
    # Colour in near-black pixels is noise.
    return (excess.clamp_min(0) * (photo.double().sum(0) > 0.1)).float()


def edge_strength(photo: Tensor) -> Tensor:
    """Gradient magnitude of the grey photo, blurred over 2 % of its width, (H, W): detail moves."""
    grey = photo.float().mean(0).cpu().numpy()
    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    return torch.from_numpy(cv2.GaussianBlur(np.hypot(dx, dy), (0, 0), 0.02 * grey.shape[1]))


BASELINES: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform sway": uniform_sway,
    "greenness": greenness,
    "edge strength": edge_strength,
    "still": still,
}


def baseline_energy(name: str, photo: Tensor, size: tuple[int, int]) -> Tensor:
    """A baseline's map for a photo (3, H, W) in [0, 1], area-averaged to `size` (height, width).

    Raises:
        ValueError: for an unknown name.
    """
    if name not in BASELINES:
        raise ValueError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
    return F.interpolate(BASELINES[name](photo)[None, None], size, mode="area")[0, 0]
