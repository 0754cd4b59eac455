"""Compiled loops of forward warping for the CPU. Importing this module imports numba; `cpu.py` does so on first use.

One kernel, `spread_row`, splats for everybody: for the public functions (`splat_band`, with `gather_rows` for their
gradients) and for the frames that `gid.rendering.cpu` draws.

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
def land(
    u: Array, v: Array, x: int, y: int, window: tuple[int, int, int, int], corner: Array, right: Array, low: Array
) -> bool:
    """Where a row of sources lands: source i stands at (x + i, y) and moves by (u[i], v[i]).

    window is the map on which they land: left, top, columns and rows in pixels. corner[i] becomes the index in it of
    the upper left of the four pixels that source i touches, -1 where not all four are inside; right[i] and low[i] are
    the bilinear shares of the others. True if any source lands.
    """
    real = u.dtype.type
    left, top, columns, rows = window
    left_limit, right_limit = real(left), real(left + columns - 1)
    top_limit, low_limit = real(top), real(top + rows - 1)
    highest = np.int32(-1)
    for i in range(u.shape[0]):
        target_x = real(x + i) + u[i]
        target_y = real(y) + v[i]
        # NaN compares false, so this also drops flows that are not finite.
        lands = (target_x > left_limit) & (target_x < right_limit) & (target_y > top_limit) & (target_y < low_limit)
        target_x = target_x if lands else left_limit
        target_y = target_y if lands else top_limit
        column, row = np.floor(target_x), np.floor(target_y)
        right[i] = target_x - column
        low[i] = target_y - row
        index = (np.int32(row) - np.int32(top)) * np.int32(columns) + np.int32(column) - np.int32(left)
        index = index if lands else np.int32(-1)
        corner[i] = index
        highest = max(highest, index)
    return bool(highest >= 0)


@compiled
def spread_row(
    values: Array, corner: Array, right: Array, low: Array, weight: Array, columns: int, total: Array
) -> None:
    """Add LANES weighted values of each source to the four pixels it lands on, by bilinear shares (see `land`).

    The one kernel of forward warping: `splat_band` and the frames of `gid.rendering.cpu` call it. values is flat, LANES
    a source; total is flat, LANES a pixel of a map with ``columns`` pixels a row.
    """
    real = values.dtype.type
    for i in range(corner.shape[0]):
        if corner[i] < 0:
            continue
        upper, lower = (real(1) - low[i]) * weight[i], low[i] * weight[i]
        left = real(1) - right[i]
        shares = (left * upper, right[i] * upper, left * lower, right[i] * lower)
        spread_to_four(total, np.int64(corner[i]) * LANES, columns * LANES, values, i * LANES, shares)


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
    sources: tuple[Array, Array, Array],
    result: Array,
    average: bool,
    image: int,
    band_channels: tuple[int, int],
    band_rows: tuple[int, int],
) -> None:
    """Fill some channels and rows of ``result[image]``, whose channel C sums the weight alone.

    sources are features (B, C, H, W), flow (B, 2, H, W) pixels and weight (B, 1, H, W); result is (B, C + 1, H, W), all
    contiguous; the first of the channels is a multiple of LANES. With ``average`` the sums of the features are divided
    by channel C, which this call or an earlier one fills. Each call scans all sources and keeps what lands in its rows,
    so calls share no memory they write to, and the order of the additions, hence the result to the last bit, does not
    depend on how the work is dealt out.
    """
    features, flow, weight = sources
    first, last = band_rows
    real = features.dtype.type
    channels, height, width = features.shape[1], features.shape[2], features.shape[3]
    window = (-1, first - 1, width + 2, last - first + 2)
    total = np.empty((last - first + 2) * (width + 2) * LANES, dtype=features.dtype)
    packed = np.empty(width * LANES, dtype=features.dtype)
    corner = np.empty(width, dtype=np.int32)
    right, low = np.empty(width, dtype=features.dtype), np.empty(width, dtype=features.dtype)
    source, target = features.reshape(-1), result.reshape(-1)
    for channel in range(band_channels[0], band_channels[1], LANES):
        count = min(LANES, channels - channel)
        total.fill(real(0))
        for y in range(height):
            if land(flow[image, 0, y], flow[image, 1, y], 0, y, window, corner, right, low):
                start = ((image * channels + channel) * height + y) * width
                _interleave(source, start, height * width, count, width, real(1), packed, 0)
                spread_row(packed, corner, right, low, weight[image, 0, y], width + 2, total)
        for y in range(first, last):
            start = ((image * (channels + 1) + channel) * height + y) * width
            count = min(LANES, band_channels[1] - channel)
            _separate(total, ((y - first + 1) * (width + 2) + 1) * LANES, width, target, start, height * width, count)
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
def _upstream_rows(
    upstream: tuple[Array, Array],
    result: Array,
    average: bool,
    image: int,
    channel: int,
    top: int,
    window: Array,
    mass_slopes: Array,
) -> None:
    """Interleave up to LANES channels of the gradients of the sums into ``window``, whose first row of targets is top.

    Rows of targets are counted with the border, and the mass follows the last channel.
    """
    values, masses = upstream
    real = values.dtype.type
    channels, height, width = values.shape[1], values.shape[2], values.shape[3]
    count = min(LANES, channels - channel)
    scaled = np.empty((LANES + 2, width), dtype=values.dtype)
    given, planes = values.reshape(-1), scaled.reshape(-1)
    pitch = (width + 2) * LANES
    for row in range(max(top, 1), min(top + window.shape[0] // pitch, height + 1)):
        at = (row - top) * pitch + LANES
        mass_slope = mass_slopes[row - top] if average else masses[image, 0, row - 1]
        if average:
            _through_average(values, result, image, channel, count, row - 1, scaled, mass_slope)
            _interleave(planes, 0, width, count, width, real(0), window, at)
        else:
            start = ((image * channels + channel) * height + row - 1) * width
            _interleave(given, start, height * width, count, width, real(0), window, at)
        if count < LANES:
            for x in range(width):
                window[at + x * LANES + count] = mass_slope[x]


@compiled
def _gather_row(
    corner: Array, right: Array, low: Array, weight: Array, start: int, window: Array, packed: Array, sums: Array
) -> None:
    """`gather_lanes` for a row of sources; ``start`` is the index of the window's first pixel, counted as corners."""
    real = packed.dtype.type
    width = corner.shape[0]
    for x in range(width):
        index = np.int64(corner[x])
        if index < 0:
            for lane in range(LANES):
                packed[x * LANES + lane] = real(0)
            for lane in range(3 * LANES):
                sums[x * 3 * LANES + lane] = real(0)
            continue
        shares = (right[x], low[x], weight[x])
        at = (index - start) * LANES
        gather_lanes(window, at, (width + 2) * LANES, packed, x * LANES, sums, x * 3 * LANES, shares)


@compiled
def _times_weight(
    weight: Array, least: float, flow_gradient: Array, weight_gradient: Array, image: int, y: int
) -> None:
    """The factor of the weight in the gradient of the flow, and in that of the weight's exponent (``least`` > 0)."""
    mass = weight[image, 0, y]
    for axis in range(2):
        slope = flow_gradient[image, axis, y]
        for x in range(mass.shape[0]):
            slope[x] *= mass[x]
    if least > 0:
        slope = weight_gradient[image, 0, y]
        for x in range(mass.shape[0]):
            slope[x] *= mass[x] if mass[x] > least else mass.dtype.type(0)


@compiled
def gather_rows(
    sources: tuple[Array, Array, Array],
    result: Array,
    average: bool,
    least: float,
    upstream: tuple[Array, Array],
    gradients: tuple[Array, Array, Array],
    image: int,
    rows: tuple[int, int],
) -> None:
    """Gradients of the splat for some source rows of one image; sources as in `splat_band`.

    upstream (B, C, H, W) and (B, 1, H, W) are the gradients of the sums and of the mass, or with ``average`` the first
    is the gradient of the averages in ``result`` (B, C + 1, H, W) and the second is not read; the three gradients have
    the shapes of the sources. With ``least`` above 0 the weight is an exponential held at ``least`` from below, and its
    gradient is that of its exponent. All are contiguous. Sources only read targets, so rows are independent.
    """
    features, flow, weight = sources
    features_gradient, flow_gradient, weight_gradient = gradients
    first, count = rows[0], rows[1] - rows[0]
    channels, height, width = features.shape[1], features.shape[2], features.shape[3]
    corner = np.empty((count, width), dtype=np.int32)
    right, low = np.empty((count, width), dtype=features.dtype), np.empty((count, width), dtype=features.dtype)
    lowest, highest = np.int32(2**31 - 1), np.int32(-1)
    for y in range(count):
        u, v, whole = flow[image, 0, first + y], flow[image, 1, first + y], (-1, -1, width + 2, height + 2)
        if land(u, v, 0, first + y, whole, corner[y], right[y], low[y]):
            for x in range(width):
                if corner[y, x] >= 0:
                    lowest, highest = min(lowest, corner[y, x]), max(highest, corner[y, x])
    # Rows of targets in reach, counted with the border; the lower right corner lies one row below the upper left.
    top, bottom = (lowest // (width + 2), highest // (width + 2) + 2) if highest >= 0 else (0, 0)
    window = np.zeros((bottom - top) * (width + 2) * LANES, dtype=features.dtype)
    mass_slopes = np.zeros((bottom - top if average else 0, width), dtype=features.dtype)
    packed, sums = np.empty(width * LANES, dtype=features.dtype), np.empty(width * 3 * LANES, dtype=features.dtype)
    source, slopes = features.reshape(-1), features_gradient.reshape(-1)
    slope_flow, slope_mass = flow_gradient.reshape(-1), weight_gradient.reshape(-1)
    for channel in range(0, channels + 1, LANES):
        given = min(LANES, channels - channel)
        _upstream_rows(upstream, result, average, image, channel, top, window, mass_slopes)
        for y in range(count):
            start = ((image * channels + channel) * height + first + y) * width
            _interleave(source, start, height * width, given, width, features.dtype.type(1), packed, 0)
            index = np.int64(top) * (width + 2)
            _gather_row(corner[y], right[y], low[y], weight[image, 0, first + y], index, window, packed, sums)
            _separate(packed, 0, width, slopes, start, height * width, given)
            at = first + y
            _add_sums(sums, 0, width, slope_mass, (image * height + at) * width, channel > 0)
            _add_sums(sums, LANES, width, slope_flow, (2 * image * height + at) * width, channel > 0)
            _add_sums(sums, 2 * LANES, width, slope_flow, ((2 * image + 1) * height + at) * width, channel > 0)
    for y in range(first, rows[1]):
        _times_weight(weight, least, flow_gradient, weight_gradient, image, y)
