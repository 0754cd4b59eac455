"""Forward warping on CUDA GPUs in Triton, with gradients. Importing this module imports triton.

One program takes a block of source pixels and a block of channels: it reads the flow once, and its atomic additions go
to the four targets of every source, in float32 whatever the type of the features. Sizes and strides are arguments at
run time, so no new shape compiles anything (the number of channels chooses between blocks of 1, 2, 4 and 8). The
backward pass only gathers, one program for all channels of a block of sources, and is deterministic.

With ``TRITON_INTERPRET=1`` set before triton is imported, the same code runs on the CPU, slowly, for tests.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Set before triton is imported, TRITON_INTERPRET=1 runs the kernels on the CPU.
INTERPRETED = bool(triton.knobs.runtime.interpret)

_BLOCK = 128  # source pixels a program
_CHANNELS = 8  # at most, of one program

# Never specialised on their values (triton would otherwise compile anew for 1 and for multiples of 16).
_SIZES = [
    "batch", "channels", "height", "width",
    "features_b", "features_c", "features_y", "features_x",
    "flow_b", "flow_c", "flow_y", "flow_x",
    "weight_b", "weight_y", "weight_x",
    "result_b", "result_c", "result_y", "result_x",
]  # fmt: skip


@triton.jit
def _sources(
    flow,
    batch,
    height,
    width,
    flow_b,
    flow_c,
    flow_y,
    flow_x,
    weight,
    weight_b,
    weight_y,
    weight_x,
    block: tl.constexpr,
):
    """Place, validity, upper left target, shares and weight of a block of sources."""
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    known = index < batch.to(tl.int64) * height * width
    x = index % width
    y = (index // width) % height
    image = index // (height.to(tl.int64) * width)
    place = flow + image * flow_b + y * flow_y + x * flow_x
    to_x = x.to(tl.float32) + tl.load(place, mask=known, other=0).to(tl.float32)
    to_y = y.to(tl.float32) + tl.load(place + flow_c, mask=known, other=0).to(tl.float32)
    # NaN compares false, so this also drops flows that are not finite.
    lands = known & (to_x > -1) & (to_x < width) & (to_y > -1) & (to_y < height)
    to_x, to_y = tl.where(lands, to_x, 0.0), tl.where(lands, to_y, 0.0)
    left, top = tl.floor(to_x), tl.floor(to_y)
    mass = tl.load(weight + image * weight_b + y * weight_y + x * weight_x, mask=known, other=0).to(tl.float32)
    return image, y, x, lands, left.to(tl.int32), top.to(tl.int32), to_x - left, to_y - top, mass


@triton.jit(do_not_specialize=_SIZES)
def _splat(
    features, flow, weight, result,
    batch, channels, height, width,
    features_b, features_c, features_y, features_x,
    flow_b, flow_c, flow_y, flow_x,
    weight_b, weight_y, weight_x,
    result_b, result_c, result_y, result_x,
    block: tl.constexpr, lanes: tl.constexpr,
):  # fmt: skip
    """result (B, C + 1, H, W), zeroed, gets the sums of weight * features, and of the weight as channel C."""
    image, y, x, lands, left, top, right_share, low_share, mass = _sources(
        flow, batch, height, width, flow_b, flow_c, flow_y, flow_x, weight, weight_b, weight_y, weight_x, block
    )
    first = tl.program_id(1) * lanes + tl.zeros([block], tl.int64)
    for lane in range(lanes):
        channel = first + lane
        source = features + image * features_b + channel * features_c + y * features_y + x * features_x
        value = tl.load(source, mask=lands & (channel < channels), other=0).to(tl.float32)
        value = tl.where(channel == channels, 1.0, value) * mass
        target = result + image * result_b + channel * result_c
        for corner in tl.static_range(4):
            column, row = left + (corner % 2), top + (corner // 2)
            share = right_share if corner % 2 else 1 - right_share
            share = share * (low_share if corner // 2 else 1 - low_share)
            # A share of 0 adds nothing: still pixels write once instead of four times.
            inside = lands & (column >= 0) & (column < width) & (row >= 0) & (row < height) & (share != 0)
            tl.atomic_add(
                target + row * result_y + column * result_x,
                value * share,
                mask=inside & (channel <= channels),
                sem="relaxed",
            )


@triton.jit
def _corner(upstream, column, row, height, width, result_y, result_x, mask):
    inside = mask & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return tl.load(upstream + row * result_y + column * result_x, mask=inside, other=0).to(tl.float32)


@triton.jit(do_not_specialize=_SIZES)
def _gather(
    features, flow, weight, upstream, features_gradient, flow_gradient, weight_gradient,
    batch, channels, height, width,
    features_b, features_c, features_y, features_x,
    flow_b, flow_c, flow_y, flow_x,
    weight_b, weight_y, weight_x,
    result_b, result_c, result_y, result_x,
    block: tl.constexpr,
):  # fmt: skip
    """Gradients from upstream (B, C + 1, H, W); the three gradients are contiguous, (B, ., H, W) float32."""
    image, y, x, lands, left, top, right, low, mass = _sources(
        flow, batch, height, width, flow_b, flow_c, flow_y, flow_x, weight, weight_b, weight_y, weight_x, block
    )
    known = image < batch
    slope_x, slope_y = tl.zeros([block], tl.float32), tl.zeros([block], tl.float32)
    slope_mass = tl.zeros([block], tl.float32)
    plane = height.to(tl.int64) * width
    pixel = y * width + x
    for number in range(channels + 1):
        channel = number + tl.zeros([block], tl.int64)
        source = features + image * features_b + channel * features_c + y * features_y + x * features_x
        value = tl.load(source, mask=lands & (channel < channels), other=0).to(tl.float32)
        value = tl.where(channel == channels, 1.0, value)
        given = upstream + image * result_b + channel * result_c
        a = _corner(given, left, top, height, width, result_y, result_x, lands)
        b = _corner(given, left + 1, top, height, width, result_y, result_x, lands)
        c = _corner(given, left, top + 1, height, width, result_y, result_x, lands)
        d = _corner(given, left + 1, top + 1, height, width, result_y, result_x, lands)
        upper, lower = a + right * (b - a), c + right * (d - c)
        gathered = upper + low * (lower - upper)
        slope_mass += value * gathered
        slope_x += value * ((b - a) + low * ((d - c) - (b - a)))
        slope_y += value * (lower - upper)
        target = features_gradient + (image * channels + channel) * plane + pixel
        tl.store(target, mass * gathered, mask=known & (channel < channels))
    tl.store(weight_gradient + image * plane + pixel, tl.where(lands, slope_mass, 0.0), mask=known)
    tl.store(flow_gradient + image * 2 * plane + pixel, tl.where(lands, mass * slope_x, 0.0), mask=known)
    tl.store(flow_gradient + (image * 2 + 1) * plane + pixel, tl.where(lands, mass * slope_y, 0.0), mask=known)


def _strides(features: Tensor, flow: Tensor, weight: Tensor, result: Tensor) -> tuple[int, ...]:
    weight_strides = weight.stride()
    return (*features.stride(), *flow.stride(), weight_strides[0], *weight_strides[2:], *result.stride())


class _WeightedSplat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features, flow, weight)
        batch, channels, height, width = features.shape
        result = torch.zeros(batch, channels + 1, height, width, dtype=torch.float32, device=features.device)
        block = min(_CHANNELS, triton.next_power_of_2(channels + 1))
        grid = (triton.cdiv(batch * height * width, _BLOCK), triton.cdiv(channels + 1, block))
        _splat[grid](
            features, flow, weight, result, batch, channels, height, width,
            *_strides(features, flow, weight, result), block=_BLOCK, lanes=block,
        )  # fmt: skip
        return result[:, :channels], result[:, channels:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, total_gradient: Tensor, mass_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, flow, weight = ctx.saved_tensors
        batch, channels, height, width = features.shape
        upstream = torch.cat([total_gradient, mass_gradient], 1).float()
        gradients = [torch.empty(t.shape, dtype=torch.float32, device=t.device) for t in (features, flow, weight)]
        grid = (triton.cdiv(batch * height * width, _BLOCK),)
        _gather[grid](
            features, flow, weight, upstream, *gradients, batch, channels, height, width,
            *_strides(features, flow, weight, upstream), block=_BLOCK,
        )  # fmt: skip
        return gradients[0].to(features.dtype), gradients[1].to(flow.dtype), gradients[2].to(weight.dtype)


def weighted_splat(features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Same as :func:`gid.rendering.splatting.reference.weighted_splat`: any strides, any floating type up to float32.

    The sums are float32, and their order, hence their last bits, changes from run to run.
    """
    return _WeightedSplat.apply(features, flow, weight)
