"""What the issue of a loop must hold to: seam, first frame, still pixels, sharpness of rendered frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gid.evaluation.metrics import psnr, seam_ratio, temporal_sharpness
from gid.motion.spectrum import SpectralVolume


@dataclass(frozen=True)
class RenderingScores:
    """Judgement of one rendered loop.

    Attributes:
        seam: step across the wrap over the median interior step; 1 is seamless.
        first_frame_psnr: of frame 0 against the photo, dB; infinite if equal.
        still_error: largest difference from the photo, in any frame, of any pixel outside the moving region, in [0, 1].
        still_share: share of the picture that lies outside the moving region.
        sharpness: mean over the frames of the gradient magnitude relative to frame 0.
        sharpness_min: its minimum over the frames.
    """

    seam: float
    first_frame_psnr: float
    still_error: float
    still_share: float
    sharpness: float
    sharpness_min: float


def still_mask(volume: SpectralVolume, height: int, width: int, pixels: float = 0.05, margin: int = 8) -> Tensor:
    """(H, W) bool: where no displacement can exceed `pixels`, `margin` pixels away from everything that can.

    The bound is |F_t - F_0| <= 4 sum_k |S_k| over k >= 1. The margin is how far a moving neighbour may reach.
    """
    sized = volume.resize(height, width).coefficients[1:].abs().sum(0)
    reach = 4 * ((sized[0] * width).square() + (sized[1] * height).square()).sqrt()
    # What moves far also lands far away from where it was.
    radius = margin + int(reach.max().ceil())
    moving = (reach > pixels).float()[None, None]
    return F.max_pool2d(moving, 2 * radius + 1, stride=1, padding=radius)[0, 0] == 0


def judge_loop(photo: Tensor, volume: SpectralVolume, frames: Tensor) -> RenderingScores:
    """Judge the frames (N, 3, H, W) rendered from a photo (3, H, W) in [0, 1] with a volume.

    Raises:
        ValueError: if sizes differ or there are fewer than 3 frames.
    """
    if frames.ndim != 4 or frames.shape[1:] != photo.shape:
        raise ValueError(f"frames are {tuple(frames.shape)}, the photo is {tuple(photo.shape)}; sizes must agree")
    mask = still_mask(volume, *photo.shape[-2:])
    sharpness = temporal_sharpness(frames)
    difference = (frames - photo).abs()[..., mask]
    return RenderingScores(
        seam=seam_ratio(frames),
        first_frame_psnr=psnr(frames[0], photo),
        still_error=float(difference.max()) if difference.numel() else 0.0,
        still_share=float(mask.float().mean()),
        sharpness=float(sharpness.mean()),
        sharpness_min=float(sharpness.min()),
    )
