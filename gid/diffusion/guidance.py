"""Motion self-guidance: pulling a sample towards a seamless loop while it is denoised (paper, equations 5 and 7).

A volume of K Fourier terms already repeats after T frames. What guidance removes is the quick return: the last frame
should look like the first, and move like it. Kept as the paper's reference; ordinary samples of a model trained on
periodic motion loop by construction (see :mod:`gid.rendering.animate`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def loop_energy(coefficients: Tensor, num_frames: int) -> Tensor:
    """L_g = |F_T - F_1|_1 + |dF_T - dF_1|_1 of equation 7, the mean over pixels, one number a volume.

    Args:
        coefficients: (B, K, 4, H, W) real, in the order x_re, x_im, y_re, y_im.
        num_frames: T; the last frame is T - 1, the first 0, velocities are differences with the next frame.

    Returns:
        (B,) energies, differentiable in the coefficients.
    """
    times = torch.tensor([0.0, 1.0, num_frames - 1.0, float(num_frames)], device=coefficients.device)
    bands = torch.arange(coefficients.shape[1], device=coefficients.device)
    angle = 2 * math.pi / num_frames * times[:, None] * bands[None, :]
    weight = torch.where(bands == 0, 1.0, 2.0)
    cos, sin = torch.cos(angle) * weight, torch.sin(angle) * weight
    x = torch.einsum("tk,bkhw->bthw", cos, coefficients[:, :, 0]) - torch.einsum(
        "tk,bkhw->bthw", sin, coefficients[:, :, 1]
    )
    y = torch.einsum("tk,bkhw->bthw", cos, coefficients[:, :, 2]) - torch.einsum(
        "tk,bkhw->bthw", sin, coefficients[:, :, 3]
    )
    frames = torch.stack([x, y], dim=2)
    first, second, last, after = frames.unbind(1)
    position = (last - first).abs()
    velocity = ((after - last) - (second - first)).abs()
    return (position + velocity).mean(dim=(1, 2, 3))


def guide(predicted: Tensor, gradient: Tensor, alpha: float, sigma: float, weight: float) -> Tensor:
    """Add u sigma grad L_g to a v-prediction (equation 5).

    The equation adds it to the noise; noise = alpha v + sigma x, so v takes it over alpha. Near pure noise alpha
    vanishes and the estimate of the clean volume means nothing yet: no guidance there.
    """
    if alpha < 0.1:
        return predicted
    return predicted + weight * sigma * gradient / alpha
