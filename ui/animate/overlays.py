"""Pictures of motion: where a photo will move, and how strongly in each band."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.pictures import to_uint8
from gid.motion.spectrum import SpectralVolume

COLORMAP = "inferno"
CHART_WIDTH, CHART_HEIGHT, TOP = 300, 112, 36


def motion_energy_picture(photo: Tensor, volume: SpectralVolume) -> np.ndarray:
    """The motion energy laid over the greyed photo as (H, W, 3) uint8: dark is still, bright moves most.

    ``photo`` is (3, H, W) in [0, 1]. Energies are scaled by their 99th percentile, so that one fast pixel does not
    hide the rest; a volume without motion leaves the photo grey.
    """
    import matplotlib  # only who draws waits for it

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


def band_chart(volume: SpectralVolume) -> str:
    """Mean amplitude of every moving band as bars in an SVG that takes its colours from the page.

    The lowest bar is the first moving band, the highest is labelled in per cent of the photo's size.
    """
    amplitudes = [100 * size for size in volume.band_amplitudes().tolist()[1:]]
    frequencies = volume.frequencies.tolist()[1:]
    if not amplitudes:
        return ""
    top = max(amplitudes)
    step = CHART_WIDTH / len(amplitudes)
    bars, labels = [], []
    for index, (hz, size) in enumerate(zip(frequencies, amplitudes, strict=True)):
        height = CHART_HEIGHT * size / top if top > 0 else 0.0
        left = index * step
        bars.append(
            f'<rect x="{left + 1:.1f}" y="{TOP + CHART_HEIGHT - height:.1f}" width="{step - 2:.1f}" '
            f'height="{height:.1f}" rx="1.5"><title>{hz:.1f} Hz: {size:.3f}% of the photo</title></rect>'
        )
        if index % 3 == 0:
            labels.append(f'<text x="{left + step / 2:.1f}" y="{TOP + CHART_HEIGHT + 15}">{hz:.1f}</text>')
    described = f"Mean amplitude by frequency: {top:.2f} per cent of the photo's size at most"
    return (
        f'<svg class="bands" viewBox="0 0 {CHART_WIDTH} {TOP + CHART_HEIGHT + 36}" role="img" '
        f'aria-label="{described}"><g class="bars">{"".join(bars)}</g><g class="ticks">{"".join(labels)}'
        f'<text x="{CHART_WIDTH / 2}" y="{TOP + CHART_HEIGHT + 32}">frequency in Hz</text></g>'
        f'<text class="title" x="0" y="12">How strongly, by frequency</text>'
        f'<text class="top" x="{CHART_WIDTH}" y="30">up to {top:.2f}% of the photo</text></svg>'
    )
