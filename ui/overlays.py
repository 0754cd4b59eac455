"""Pictures of motion: where a photo will move, and how strongly in each band."""

from __future__ import annotations

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gid.photo import to_uint8
from gid.spectrum import SpectralVolume

COLORMAP = "inferno"


def motion_energy_picture(photo: Tensor, volume: SpectralVolume) -> np.ndarray:
    """The motion energy laid over the greyed photo as (H, W, 3) uint8: dark is still, bright moves most.

    ``photo`` is (3, H, W) in [0, 1]. Energies are scaled by their 99th percentile, so that one fast pixel does not
    hide the rest; a volume without motion leaves the photo grey.
    """
    height, width = photo.shape[-2:]
    energy = volume.motion_energy()[None, None].float().cpu()
    energy = F.interpolate(energy, (height, width), mode="bilinear", align_corners=False)[0, 0]
    top = float(torch.quantile(energy.flatten()[:: max(1, energy.numel() // 100_000)], 0.99))
    share = (energy / top).clamp(0, 1) if top > 0 else torch.zeros_like(energy)
    colours = torch.from_numpy(matplotlib.colormaps[COLORMAP](share.numpy())[..., :3]).float().permute(2, 0, 1)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grey = (photo.cpu().float() * weights).sum(0, keepdim=True).expand(3, -1, -1) * 0.6
    alpha = (share * 1.6).clamp(0, 0.85)
    return to_uint8((grey * (1 - alpha) + colours * alpha)[None])[0]


def peak_motion_percent(volume: SpectralVolume) -> float:
    """The strongest rms motion of any pixel, in per cent of the photo's size."""
    return 100 * float(volume.motion_energy().max())


def band_table(volume: SpectralVolume) -> list[tuple[str, float]]:
    """(frequency in Hz, mean amplitude in per cent of the photo's size) of every moving band, lowest first."""
    amplitudes = volume.band_amplitudes().tolist()
    frequencies = volume.frequencies.tolist()
    return [(f"{hz:.1f}", 100 * size) for hz, size in zip(frequencies[1:], amplitudes[1:], strict=True)]
