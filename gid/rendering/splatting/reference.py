"""Forward warping in plain torch operations: the definition that every faster kernel has to match.

It runs on every device and gets its gradients from autograd, so it is also what CUDA and MPS use.
"""

from __future__ import annotations

import torch
from torch import Tensor

# exp(-50) is 2e-22: small enough to lose against anything, far from float32's smallest normal number (1e-38).
METRIC_RANGE = 50.0


def weighted_splat(features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of what lands on each pixel, by bilinear shares.

    With ``b(u) = max(0, 1 - |u_x|) max(0, 1 - |u_y|)`` and source pixels ``q``,
    ``total(p) = sum_q b(p - q - flow(q)) weight(q) features(q)`` and ``mass(p)`` the same sum with features of one
    (Niklaus and Liu 2020, equations 1 to 3). Sources with a non-finite flow land nowhere.

    Args:
        features: (B, C, H, W) float.
        flow: (B, 2, H, W) pixels, float32 or float64, same dtype as ``features`` and ``weight``.
        weight: (B, 1, H, W).

    Returns:
        ``total`` (B, C, H, W) and ``mass`` (B, 1, H, W).
    """
    batch, channels, height, width = features.shape
    ys, xs = torch.meshgrid(
        torch.arange(height, device=flow.device, dtype=flow.dtype),
        torch.arange(width, device=flow.device, dtype=flow.dtype),
        indexing="ij",
    )
    with torch.no_grad():
        x_plain, y_plain = xs + flow[:, 0], ys + flow[:, 1]
        # NaN compares false, so this also drops flows that are not finite.
        lands = (x_plain > -1) & (x_plain < width) & (y_plain > -1) & (y_plain < height)
    # Replaced before any arithmetic: a NaN multiplied by a zero gradient would still be NaN.
    safe = torch.where(lands[:, None], flow, torch.zeros_like(flow))
    x, y = xs + safe[:, 0], ys + safe[:, 1]
    left, top = x.detach().floor(), y.detach().floor()
    x_share, y_share = x - left, y - top

    values = torch.cat([features * weight, weight], dim=1).permute(0, 2, 3, 1).reshape(-1, channels + 1)
    image = torch.arange(batch, device=flow.device).view(-1, 1, 1) * (height * width)
    result = values.new_zeros(batch * height * width, channels + 1)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = left.long() + right, top.long() + down
        inside = lands & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        share = (x_share if right else 1 - x_share) * (y_share if down else 1 - y_share)
        share = torch.where(inside, share, torch.zeros_like(share))
        target = image + row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        result = result.index_add(0, target.reshape(-1), values * share.reshape(-1, 1))
    result = result.view(batch, height, width, channels + 1).permute(0, 3, 1, 2)
    return result[:, :channels], result[:, channels:]


def softmax_weight(metric: Tensor) -> Tensor:
    """``exp(clamp(Z - max Z))`` of a metric Z (B, 1, H, W), the maximum of each image taken for a constant.

    What is not a number counts as the least. Between :data:`METRIC_RANGE` below the maximum and further down there is
    no difference, so no pixel's weight becomes 0.
    """
    finite = torch.nan_to_num(metric, nan=-1e30, posinf=1e30, neginf=-1e30)
    return (finite - finite.detach().amax(dim=(2, 3), keepdim=True)).clamp(min=-METRIC_RANGE).exp()
