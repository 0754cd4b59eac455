"""Compiled loops of forward warping for the CPU. Importing this module imports numba; `cpu.py` does so on first use.

The loops are single-threaded and release the GIL; `cpu.py` deals them out to threads. That avoids numba's own thread
pool, which ends the process when two Python threads call it at once (as a web server does).

Channels are taken in groups of LANES that lie side by side in working memory, so that a source spreads to its four
targets by vector instructions; blocks of LANES x LANES values are transposed in registers on the way in and out.
"""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np

from gid.rendering.splatting.vectors import LANES, compiled, gather_lanes, spread_to_four, sum_lanes, transpose_block

Array = np.ndarray[Any, Any]


# ln 2 in two parts, the first of so few bits that small multiples of it are exact; and 1 / k! for the series of e^x.
_LOG2_HIGH = np.float32(0.693359375)
_LOG2_LOW = np.float32(np.log(2) - 0.693359375)
_INVERSE_LOG2 = np.float32(1 / np.log(2))
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / factorial(k)) for k in range(2, 8))
_ONE, _HALF = np.float32(1), np.float32(0.5)


@compiled
def exponentials(values: Array, top: float, least: float, result: Array) -> None:
    """``exp(max(values - top, least))`` of flat float32 arrays to 3e-7, for values up to top and least above -80.

    With e^x = 2^n e^r and |r| at most ln 2 / 2, a series of degree 7 does; written so that it becomes vectors.
    """
    powers = np.empty(values.shape[0], np.int32)
    scale = powers.view(np.float32)
    low, base = np.float32(least), np.float32(top)
    for x in range(values.shape[0]):
        t = values[x] - base
        t = t if t > low else low
        n = np.floor(t * _INVERSE_LOG2 + _HALF)
        r = t - n * _LOG2_HIGH
        r = r - n * _LOG2_LOW
        series = _C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7)))
        result[x] = _ONE + r * (_ONE + r * (_C2 + r * series))
        powers[x] = (np.int32(n) + np.int32(127)) << np.int32(23)  # the bits of 2^n
    for x in range(values.shape[0]):
        result[x] *= scale[x]


@compiled
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


@compiled
def _interleave(
    planes: Array, start: int, pitch: int, count: int, width: int, filling: float, target: Array, at: int
) -> None:
    """``target[at + x * LANES + c] = planes[start + c * pitch + x]`` for c < ``count``, and ``filling`` beyond."""
    # Blocks need one plane to read from; without any, all is filling.
    whole = width - width % LANES if count > 0 else 0
    for x in range(0, whole, LANES):
        transpose_block(planes, start + x, pitch, count, filling, target, at + x * LANES, LANES, LANES)
    for x in range(whole, width):
        for c in range(LANES):
            target[at + x * LANES + c] = planes[start + c * pitch + x] if c < count else filling


@compiled
def _separate(source: Array, at: int, width: int, planes: Array, start: int, pitch: int, count: int) -> None:
    """The reverse of `_interleave`; planes beyond ``count`` are left alone."""
    real = source.dtype.type
    whole = width - width % LANES
    for x in range(0, whole, LANES):
        transpose_block(source, at + x * LANES, LANES, LANES, real(0), planes, start + x, pitch, count)
    for c in range(count):
        for x in range(whole, width):
            planes[start + c * pitch + x] = source[at + x * LANES + c]


@compiled
def _add_sums(sums: Array, start: int, width: int, target: Array, at: int, more: bool) -> None:
    """``target[at + x]`` = sum over LANES from ``sums[start + x * 3 * LANES]`` on, added to it if ``more``."""
    whole = width - width % LANES
    for x in range(0, whole, LANES):
        sum_lanes(sums, start + x * 3 * LANES, 3 * LANES, target, at + x, more)
    for x in range(whole, width):
        total = target[at + x] if more else sums.dtype.type(0)
        for lane in range(LANES):
            total += sums[start + x * 3 * LANES + lane]
        target[at + x] = total


@compiled
def _divisors(mass: Array, divisor: Array, kept: Array) -> None:
    """``x / divisor * kept`` is x / mass, and 0 where the mass is 0; without branches, so that loops stay vectors."""
    real = mass.dtype.type
    for x in range(mass.shape[0]):
        covered = mass[x] != real(0)
        divisor[x] = mass[x] if covered else real(1)
        kept[x] = real(1) if covered else real(0)


@compiled
def _divide(values: Array, divisor: Array, kept: Array) -> None:
    # Not `_divide_into` with values as its own target: overlapping arrays would send it down its slow path.
    for x in range(values.shape[0]):
        values[x] = values[x] / divisor[x] * kept[x]


@compiled
def _divide_into(values: Array, divisor: Array, kept: Array, out: Array) -> None:
    for x in range(values.shape[0]):
        out[x] = values[x] / divisor[x] * kept[x]


@compiled
def _subtract_product(target: Array, a: Array, b: Array) -> None:
    for x in range(target.shape[0]):
        target[x] -= a[x] * b[x]


@compiled
def splat_band(
    features: Array,
    flow: Array,
    weight: Array,
    result: Array,
    average: bool,
    image: int,
    channels_first: int,
    channels_last: int,
    first: int,
    last: int,
) -> None:
    """Fill ``result[image, channels_first:channels_last, first:last]``; channel C of the result sums the weight alone.

    features (B, C, H, W), flow (B, 2, H, W) pixels, weight (B, 1, H, W), result (B, C + 1, H, W), all contiguous;
    channels_first is a multiple of LANES. With ``average`` the sums of the features are divided by channel C, which
    this call or an earlier one fills. Each call scans all sources and keeps what lands in its rows, so calls share no
    memory they write to, and the order of the additions, hence the result to the last bit, does not depend on how the
    work is dealt out.
    """
    real = features.dtype.type
    channels, height, width = features.shape[1], features.shape[2], features.shape[3]
    pitch = (width + 2) * LANES
    total = np.empty((last - first + 2) * pitch, dtype=features.dtype)
    packed = np.empty(width * LANES, dtype=features.dtype)
    corner = np.empty(width, dtype=np.int32)
    right = np.empty(width, dtype=features.dtype)
    low = np.empty(width, dtype=features.dtype)
    source, target = features.reshape(-1), result.reshape(-1)
    for channel in range(channels_first, channels_last, LANES):
        count = min(LANES, channels - channel)
        total.fill(real(0))
        for y in range(height):
            if not _land(flow, image, y, first, last, corner, right, low):
                continue
            start = ((image * channels + channel) * height + y) * width
            _interleave(source, start, height * width, count, width, real(1), packed, 0)
            for x in range(width):
                if corner[x] < 0:
                    continue
                mass = weight[image, 0, y, x]
                upper, lower = (real(1) - low[x]) * mass, low[x] * mass
                left = real(1) - right[x]
                shares = (left * upper, right[x] * upper, left * lower, right[x] * lower)
                spread_to_four(total, np.int64(corner[x]) * LANES, pitch, packed, x * LANES, shares)
        for y in range(first, last):
            start = ((image * (channels + 1) + channel) * height + y) * width
            count = min(LANES, channels_last - channel)
            _separate(total, (y - first + 1) * pitch + LANES, width, target, start, height * width, count)
            if average:
                _divisors(result[image, channels, y], right, low)
                for c in range(channel, channel + min(count, channels - channel)):
                    _divide(result[image, c, y], right, low)


@compiled
def _through_average(
    slope: Array, result: Array, image: int, first: int, count: int, y: int, scaled: Array, mass_slope: Array
) -> None:
    """Gradients of the sums from those of the averages, for one row of targets and ``count`` channels.

    ``scaled[c]`` becomes ``slope / mass``, and its products with the averages are taken from ``mass_slope``; both are
    0 in holes, which are constant. The last two rows of ``scaled`` are for working.
    """
    divisor, kept = scaled[LANES], scaled[LANES + 1]
    _divisors(result[image, result.shape[1] - 1, y], divisor, kept)
    for c in range(count):
        _divide_into(slope[image, first + c, y], divisor, kept, scaled[c])
        _subtract_product(mass_slope, scaled[c], result[image, first + c, y])


@compiled
def gather_rows(
    features: Array,
    flow: Array,
    weight: Array,
    result: Array,
    average: bool,
    least: float,
    upstream: Array,
    mass_upstream: Array,
    features_gradient: Array,
    flow_gradient: Array,
    weight_gradient: Array,
    image: int,
    first: int,
    last: int,
) -> None:
    """Gradients of the splat for source rows ``first`` to ``last - 1`` of one image.

    upstream (B, C, H, W) and mass_upstream (B, 1, H, W) are the gradients of the sums, or with ``average`` upstream is
    the gradient of the averages in ``result`` (B, C + 1, H, W) and mass_upstream is not read; the three gradients have
    the shapes of their inputs. With ``least`` above 0 the weight is an exponential held at ``least`` from below, and
    weight_gradient that of its exponent. All are contiguous. Sources only read targets, so rows are independent.
    """
    real = features.dtype.type
    channels, height, width = features.shape[1], features.shape[2], features.shape[3]
    rows = last - first
    corner = np.empty((rows, width), dtype=np.int32)
    right, low = np.empty((rows, width), dtype=features.dtype), np.empty((rows, width), dtype=features.dtype)
    lowest, highest = np.int32(2**31 - 1), np.int32(-1)
    for y in range(rows):
        if _land(flow, image, first + y, 0, height, corner[y], right[y], low[y]):
            for x in range(width):
                if corner[y, x] >= 0:
                    lowest, highest = min(lowest, corner[y, x]), max(highest, corner[y, x])
    pitch = (width + 2) * LANES
    # Rows of targets in reach, counted with the border; the lower right corner lies one row below the upper left.
    top, bottom = (lowest // (width + 2), highest // (width + 2) + 2) if highest >= 0 else (0, 0)
    window = np.zeros((bottom - top) * pitch, dtype=features.dtype)
    mass_slopes = np.zeros((bottom - top if average else 0, width), dtype=features.dtype)
    scaled = np.empty((LANES + 2, width), dtype=features.dtype)
    packed = np.empty(width * LANES, dtype=features.dtype)
    sums = np.empty(width * 3 * LANES, dtype=features.dtype)
    source, slopes, planes = features.reshape(-1), features_gradient.reshape(-1), scaled.reshape(-1)
    given, slope_flow, slope_mass = upstream.reshape(-1), flow_gradient.reshape(-1), weight_gradient.reshape(-1)
    plane = height * width
    for channel in range(0, channels + 1, LANES):
        count = min(LANES, channels - channel)
        for row in range(max(top, 1), min(bottom, height + 1)):
            at = (row - top) * pitch + LANES
            mass_slope = mass_slopes[row - top] if average else mass_upstream[image, 0, row - 1]
            if average:
                _through_average(upstream, result, image, channel, count, row - 1, scaled, mass_slope)
                _interleave(planes, 0, width, count, width, real(0), window, at)
            else:
                start = ((image * channels + channel) * height + row - 1) * width
                _interleave(given, start, plane, count, width, real(0), window, at)
            if count < LANES:  # the mass follows the last channel
                for x in range(width):
                    window[at + x * LANES + count] = mass_slope[x]
        for y in range(rows):
            start = ((image * channels + channel) * height + first + y) * width
            _interleave(source, start, plane, count, width, real(1), packed, 0)
            for x in range(width):
                place = np.int64(corner[y, x])
                if place < 0:
                    for lane in range(LANES):
                        packed[x * LANES + lane] = real(0)
                    for lane in range(3 * LANES):
                        sums[x * 3 * LANES + lane] = real(0)
                    continue
                shares = (right[y, x], low[y, x], weight[image, 0, first + y, x])
                at = (place - np.int64(top) * (width + 2)) * LANES
                gather_lanes(window, at, pitch, packed, x * LANES, sums, x * 3 * LANES, shares)
            _separate(packed, 0, width, slopes, start, plane, count)
            at_mass = (image * height + first + y) * width
            at_x, at_y = (2 * image * height + first + y) * width, ((2 * image + 1) * height + first + y) * width
            _add_sums(sums, 0, width, slope_mass, at_mass, channel > 0)
            _add_sums(sums, LANES, width, slope_flow, at_x, channel > 0)
            _add_sums(sums, 2 * LANES, width, slope_flow, at_y, channel > 0)
    for y in range(first, last):
        mass = weight[image, 0, y]
        for axis in range(2):
            row_slope = flow_gradient[image, axis, y]
            for x in range(width):
                row_slope[x] *= mass[x]
        if least > 0:
            row_slope = weight_gradient[image, 0, y]
            for x in range(width):
                row_slope[x] *= mass[x] if mass[x] > least else real(0)
