"""Compiled loops of forward warping for the CPU. Importing this module imports numba; `cpu.py` does so on first use.

The loops are single-threaded and release the GIL; `cpu.py` deals them out to threads. That avoids numba's own thread
pool, which ends the process when two Python threads call it at once (as a web server does).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

logger = logging.getLogger(__name__)
Array = np.ndarray[Any, Any]

# Channels handled together: one 256-bit register of float32 (LLVM splits it where registers are shorter).
LANES = 8

# Fused multiply-add only: the loops rely on NaN comparisons, which the other fast-math flags break.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy", "boundscheck": False}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile lazily, kept on disk where that is possible (a read-only installation may have no place for it)."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except (RuntimeError, OSError) as error:
        logger.debug("no cache folder for compiled kernels (%s); compiling for this process only", error)
        return numba.njit(**_OPTIONS)(function)


@intrinsic
def _vector_add_scaled(typing_context, total, at, values, start, scale):  # type: ignore[no-untyped-def]
    """``total[at : at + LANES] += scale * values[start : start + LANES]`` as vector instructions.

    Numba leaves short inner loops scalar (it cannot rule out that the arrays overlap); this is four times faster.
    """
    signature = types.void(total, at, values, start, scale)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        total_type, _, values_type, _, _ = signature.args
        element = context.get_value_type(total_type.dtype)
        vector = ir.VectorType(element, LANES)
        size = context.get_abi_sizeof(element)

        def address(array_type, array, index):  # type: ignore[no-untyped-def]
            data = context.make_array(array_type)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        target = address(total_type, arguments[0], arguments[1])
        source = address(values_type, arguments[2], arguments[3])
        scales = ir.Constant(vector, ir.Undefined)
        for lane in range(LANES):
            scales = builder.insert_element(scales, arguments[4], ir.Constant(ir.IntType(32), lane))
        product = builder.fmul(builder.load(source, align=size), scales, flags=["contract"])
        builder.store(builder.fadd(builder.load(target, align=size), product, flags=["contract"]), target, align=size)
        return context.get_dummy_value()

    return signature, generate


# The decorator supplies the typing context, which a type checker cannot see.
_add_scaled: Any = _vector_add_scaled


@_compiled
def _land(flow: Array, image: int, y: int, first: int, last: int, corner: Array, right: Array, low: Array) -> bool:
    """Where source row ``y`` lands: index of the upper left pixel in a band with a one-pixel border, and shares.

    Sources that touch none of the rows ``first`` to ``last - 1`` get corner -1. True if any touches.
    """
    real = flow.dtype.type
    height, width = flow.shape[2], flow.shape[3]
    top_limit = max(real(first - 1), real(-1))
    low_limit = min(real(last), real(height))
    highest = np.int32(-1)
    for x in range(width):
        target_x = real(x) + flow[image, 0, y, x]
        target_y = real(y) + flow[image, 1, y, x]
        # NaN compares false, so this also drops flows that are not finite.
        lands = (target_x > real(-1)) & (target_x < real(width)) & (target_y > top_limit) & (target_y < low_limit)
        target_x = target_x if lands else real(0)
        target_y = target_y if lands else real(first)
        left = np.floor(target_x)
        top = np.floor(target_y)
        right[x] = target_x - left
        low[x] = target_y - top
        place = np.int32((np.int32(top) - np.int32(first - 1)) * np.int32(width + 2) + np.int32(left) + np.int32(1))
        place = place if lands else np.int32(-1)
        corner[x] = place
        highest = max(highest, place)
    return bool(highest >= 0)


@_compiled
def splat_band(
    features: Array, flow: Array, weight: Array, result: Array, image: int, channel: int, first: int, last: int
) -> None:
    """Fill ``result[image, channel : channel + LANES, first : last]``; channel C of the result sums the weight alone.

    features (B, C, H, W), flow (B, 2, H, W) pixels, weight (B, 1, H, W), result (B, C + 1, H, W). Each call scans
    all sources and keeps what lands in its rows, so calls share no memory they write to, and the order of the
    additions, hence the result to the last bit, does not depend on how the work is dealt out.
    """
    real = features.dtype.type
    channels, height, width = features.shape[1], features.shape[2], features.shape[3]
    pitch = (width + 2) * LANES
    total = np.zeros((last - first + 2) * pitch, dtype=features.dtype)
    packed = np.ones(width * LANES, dtype=features.dtype)
    corner = np.empty(width, dtype=np.int32)
    right = np.empty(width, dtype=features.dtype)
    low = np.empty(width, dtype=features.dtype)
    for y in range(height):
        if not _land(flow, image, y, first, last, corner, right, low):
            continue
        for lane in range(min(LANES, channels - channel)):
            for x in range(width):
                packed[x * LANES + lane] = features[image, channel + lane, y, x]
        for x in range(width):
            if corner[x] < 0:
                continue
            at = np.int64(corner[x]) * LANES
            upper = (real(1) - low[x]) * weight[image, 0, y, x]
            lower = low[x] * weight[image, 0, y, x]
            source = x * LANES
            _add_scaled(total, at, packed, source, (real(1) - right[x]) * upper)
            _add_scaled(total, at + LANES, packed, source, right[x] * upper)
            _add_scaled(total, at + pitch, packed, source, (real(1) - right[x]) * lower)
            _add_scaled(total, at + pitch + LANES, packed, source, right[x] * lower)
    for y in range(first, last):
        for lane in range(min(LANES, channels + 1 - channel)):
            start = (y - first + 1) * pitch + LANES + lane
            for x in range(width):
                result[image, channel + lane, y, x] = total[start + x * LANES]


@_compiled
def gather_rows(
    features: Array,
    flow: Array,
    weight: Array,
    upstream: Array,
    features_gradient: Array,
    flow_gradient: Array,
    weight_gradient: Array,
    image: int,
    first: int,
    last: int,
) -> None:
    """Gradients of the splat for source rows ``first`` to ``last - 1`` of one image.

    upstream (B, C + 1, H + 2, W + 2) is the gradient of the result with a border of zeros; the three gradients have
    the shapes of their inputs and arrive zeroed. Sources only read targets, so rows are independent of each other.
    """
    channels, height, width = features.shape[1], features.shape[2], features.shape[3]
    corner = np.empty(width, dtype=np.int32)
    right = np.empty(width, dtype=features.dtype)
    low = np.empty(width, dtype=features.dtype)
    ones = np.ones(width, dtype=features.dtype)
    unused = np.empty(width, dtype=features.dtype)
    pitch = width + 2
    for y in range(first, last):
        if not _land(flow, image, y, 0, height, corner, right, low):
            continue
        mass = weight[image, 0, y]
        slope_x, slope_y = flow_gradient[image, 0, y], flow_gradient[image, 1, y]
        slope_mass = weight_gradient[image, 0, y]
        for c in range(channels + 1):
            value = features[image, c, y] if c < channels else ones
            slope_value = features_gradient[image, c, y] if c < channels else unused
            plane = upstream[image, c].reshape(-1)
            for x in range(width):
                if corner[x] < 0:
                    continue
                at = np.int64(corner[x])
                upper_step = plane[at + 1] - plane[at]
                lower_step = plane[at + pitch + 1] - plane[at + pitch]
                upper = plane[at] + right[x] * upper_step
                down_step = plane[at + pitch] + right[x] * lower_step - upper
                gathered = upper + low[x] * down_step
                scaled = mass[x] * value[x]
                slope_value[x] = mass[x] * gathered
                slope_mass[x] += value[x] * gathered
                slope_x[x] += scaled * (upper_step + low[x] * (lower_step - upper_step))
                slope_y[x] += scaled * down_step
