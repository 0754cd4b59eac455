"""From forward motion to a sharp image: project the motion onto the target grid, then look the photo up through it.

Splatting colours blurs them (every pixel is smeared over four). So it is the *displacement* that is splatted, with
softmax weights from how much each pixel moves (paper, section 5: more motion = nearer), and the photo is sampled
backward along the result. Where a target pixel receives two layers, an object's edge passing over what is behind it,
both are sampled and composed by the share of the pixel the nearer one covers: averaging the two motions instead would
stretch the picture like rubber between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gid.rendering.splatting import splat_sums

# The metric levels off here, so that exp(+-metric) keeps float32's full precision and slow layers keep their order
# however fast the fastest one is.
METRIC_LIMIT = 40.0
# Pixels beyond each edge whose motion is followed.
LARGEST_MARGIN = 48
# Pixels landing on each pixel, from which on a place counts as covered.
_DENSE = 0.55


def smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    """0 below ``low``, 1 above ``high``, 3u^2 - 2u^3 between."""
    u = ((x - low) / (high - low)).clamp(0, 1)
    return u * u * (3 - 2 * u)


def splatting_metric(importance: Tensor, scale: float) -> Tensor:
    """Softmax splatting's metric in [0, 40): ``scale`` times the importance (pixels), levelling off as it grows."""
    return METRIC_LIMIT * (1 - (importance * (-scale / METRIC_LIMIT)).exp())


@dataclass(frozen=True)
class Projection:
    """Motion seen from the target grid; every map is (B, ., H, W) float32.

    Attributes:
        near: (B, 2, ...) pixels, displacement of the nearest layer that arrives; 0 where nothing does.
        far: (B, 2, ...) pixels, the same for the farthest layer.
        near_share: (B, 1, ...) in [0, 1], how much of the pixel the nearest layer covers; 1 where there is one layer.
        landed: (B, 1, ...) in [0, 1], share of the pixel on which something landed.
        covered: (B, 1, ...) in [0, 1], the same but 1 where the picture is merely stretched; 0 in a hole.
        importance: (B, 1, ...) pixels, importance of the nearest layer.
        still: (B, 1, ...) bool, the pixel does not move and nothing that moves arrives.
    """

    near: Tensor
    far: Tensor
    near_share: Tensor
    landed: Tensor
    covered: Tensor
    importance: Tensor
    still: Tensor


def project(flow: Tensor, importance: Tensor, metric_scale: float = 3.0) -> Projection:
    """Project forward motion onto the target grid.

    Motion is taken to go on beyond the picture's edges as it is at them, so what moves inwards draws in what
    :func:`look_up` mirrors there, and no holes open along the edges.

    Args:
        flow: (B, 2, H, W) pixels; exactly 0 where the photo stands still.
        importance: (B, 1, H, W) pixels, mean length of each pixel's displacement over time (paper, section 5).
        metric_scale: splatting metric a pixel of importance.
    """
    margin = math.ceil(min(_edge_inflow(flow), LARGEST_MARGIN))
    flow = F.pad(flow, [margin] * 4, mode="replicate")
    importance = F.pad(importance, [margin] * 4, mode="replicate")
    metric = splatting_metric(importance, metric_scale)
    moving = (flow != 0).any(1, keepdim=True)

    layer = torch.cat([flow, importance], 1)
    near_total, near_mass = splat_sums(layer, flow, (metric - METRIC_LIMIT).exp())
    far_total, far_mass = splat_sums(layer, flow, (-metric).exp())
    both, mass = splat_sums(torch.cat([importance, moving.float()], 1), flow, torch.ones_like(importance))
    near, far = _divide(near_total, near_mass), _divide(far_total, far_mass)
    landed = mass.clamp(max=1)
    density = landed
    if bool((mass < _DENSE).any()):
        # Where the picture is stretched, fewer than one pixel lands on each; what lies between is interpolated. Where
        # it is torn, single pixels that landed in the gap would stay as speckles: there the neighbourhood decides.
        density = _blur(landed)
        sparse = mass < 0.5
        near = torch.where(sparse, _divide(_blur(near_total), _blur(near_mass)), near)
        far = torch.where(sparse, near, far)

    # The nearest layer's covered area a solves  sum of importance = a * near + (mass - a) * far.
    spread = near[:, 2:] - far[:, 2:]
    area = (both[:, :1] - mass * far[:, 2:]) / spread.clamp(min=1e-3)
    two_layers = smoothstep(0.3, 1.0, spread)
    height, width = flow.shape[2:]
    inner = (..., slice(margin, height - margin), slice(margin, width - margin))
    return Projection(
        near=near[:, :2][inner],
        far=far[:, :2][inner],
        near_share=(1 - two_layers * (1 - area.clamp(0, 1)))[inner],
        landed=landed[inner],
        covered=smoothstep(0.3, _DENSE, density)[inner],
        importance=near[:, 2:][inner],
        still=(~moving & (both[:, 1:] == 0))[inner],
    )


def _edge_inflow(flow: Tensor) -> float:
    """How far anything moves inwards across an edge of the picture, in pixels."""
    inwards = (flow[:, 0, :, 0], -flow[:, 0, :, -1], flow[:, 1, 0], -flow[:, 1, -1])
    return max(0.0, *(float(part.nan_to_num(0, 0, 0).max()) for part in inwards))


def _blur(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _divide(total: Tensor, mass: Tensor) -> Tensor:
    empty = mass == 0
    return torch.where(empty, torch.zeros_like(total), total / torch.where(empty, torch.ones_like(mass), mass))


def look_up(photo: Tensor, flow: Tensor) -> Tensor:
    """Sample the photo at ``p - flow(p)``: bicubic, mirrored at the edges, clamped to [0, 1].

    Args:
        photo: (B, 3, H, W) in [0, 1].
        flow: (B, 2, h, w) pixels on a grid of the photo's size.
    """
    height, width = flow.shape[2:]
    xs = torch.arange(width, device=flow.device, dtype=torch.float32)
    ys = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None]
    x = (xs - flow[:, 0]) * (2 / max(width - 1, 1)) - 1
    y = (ys - flow[:, 1]) * (2 / max(height - 1, 1)) - 1
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(photo, grid, mode="bicubic", padding_mode="reflection", align_corners=True).clamp(0, 1)


def look_up_at(photo: Tensor, flow: Tensor, where: Tensor) -> Tensor:
    """:func:`look_up` for one photo at some pixels only.

    Args:
        photo: (1, 3, H, W) in [0, 1].
        flow: (1, 2, H, W) pixels.
        where: (n, 2) rows and columns.

    Returns:
        (3, n) colours.
    """
    height, width = flow.shape[2:]
    row, column = where.unbind(1)
    x = (column - flow[0, 0, row, column]) * (2 / max(width - 1, 1)) - 1
    y = (row - flow[0, 1, row, column]) * (2 / max(height - 1, 1)) - 1
    grid = torch.stack([x, y], dim=-1)[None, None]
    return F.grid_sample(photo, grid, mode="bicubic", padding_mode="reflection", align_corners=True)[0, :, 0].clamp(
        0, 1
    )


def fill(image: Tensor, known: Tensor, levels: int = 5) -> Tensor:
    """Continue an image into what is not known, from coarse to fine (pull and push).

    Args:
        image: (B, 3, H, W).
        known: (B, 1, H, W), 0 or more; weights of the pixels to continue from.
        levels: halvings; holes up to 2^levels pixels wide get filled.

    Returns:
        (B, 3, H, W): a smooth image that leans on the heaviest neighbours. Known pixels are smoothed as well.
    """
    totals, weights = [image * known], [known]
    for _ in range(levels):
        if min(totals[-1].shape[2:]) < 2:
            break
        totals.append(F.avg_pool2d(totals[-1], 2, ceil_mode=True, count_include_pad=False))
        weights.append(F.avg_pool2d(weights[-1], 2, ceil_mode=True, count_include_pad=False))
    total, weight = totals[-1], weights[-1]
    for finer_total, finer_weight in zip(totals[-2::-1], weights[-2::-1], strict=True):
        size = finer_total.shape[2:]
        total = F.interpolate(total, size, mode="bilinear", align_corners=False)
        weight = F.interpolate(weight, size, mode="bilinear", align_corners=False)
        # A faint share of the coarser level: decisive in holes, invisible elsewhere.
        total, weight = finer_total + 0.02 * total, finer_weight + 0.02 * weight
    return total / weight.clamp(min=1e-12)
