"""The compiled CPU implementation of forward warping, with gradients."""

from __future__ import annotations

import _thread
import importlib
import logging
import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gid.rendering.splatting.reference import METRIC_RANGE, softmax_weight

logger = logging.getLogger(__name__)

# Pixels times groups of channels that a thread should have to do: some 0.2 ms, several times what starting it costs.
_WORK_PER_THREAD = 40_000
_ROWS_PER_TASK = 80  # of the backward pass: the targets in their reach stay in the cache


@lru_cache(maxsize=1)
def kernels() -> ModuleType | None:
    """The compiled kernels, or None where numba cannot be imported (the torch reference then does the work)."""
    try:
        return importlib.import_module("gid.rendering.splatting.kernels")
    except ImportError as error:
        logger.warning("numba is not usable (%s): splatting falls back to plain torch, several times slower", error)
        return None


def _threads(features: Tensor, lanes: int) -> int:
    """How many threads to use: as torch does, but no more than have enough to do."""
    batch, channels, height, width = features.shape
    work = batch * height * width * -(-(channels + 1) // lanes)
    return max(1, min(torch.get_num_threads(), work // _WORK_PER_THREAD))


def _run(tasks: list[tuple[Callable[..., None], tuple[Any, ...]]], threads: int) -> None:
    """Run independent tasks on ``threads`` threads; the first error of any of them is raised here.

    Threads live for one call: starting them costs some 50 microseconds, and nothing is left over that a fork could
    break or that two callers would have to share. The caller's thread does whatever the others have not begun, and
    waits only for what they have: on a busy machine they may come late.
    """
    queue = list(reversed(tasks))
    running = 0
    lock, idle = threading.Lock(), threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        nonlocal running
        while True:
            with lock:
                if errors or not queue:
                    return
                function, arguments = queue.pop()
                running += 1
            try:
                function(*arguments)
            except BaseException as error:
                errors.append(error)
            with lock:
                running -= 1
                if running == 0 and (errors or not queue):
                    idle.set()

    for _ in range(min(threads, len(tasks)) - 1):
        _thread.start_new_thread(work, ())  # `threading` would wait until it runs
    work()
    idle.wait()
    if errors:
        raise errors[0]


def _sums(features: Tensor, flow: Tensor, weight: Tensor, average: bool) -> Tensor:
    """(B, C + 1, H, W): sums of the weighted features, or their averages, and in the last channel of the weight."""
    compiled = kernels()
    assert compiled is not None
    batch, channels, height, width = features.shape
    result = _new((batch, channels + 1, height, width), features)
    arrays = tuple(t.detach().numpy() for t in (features, flow, weight, result))
    threads = _threads(features, compiled.LANES)

    def fill(first: int, last: int, average: bool) -> None:
        # A task takes several groups of channels, and bands of rows only where there are fewer groups than threads:
        # each band scans every source.
        groups = -(-(last - first) // compiled.LANES)
        parts = min(groups, -(-threads // batch))
        edges = [min(first + compiled.LANES * (groups * part // parts), last) for part in range(parts)] + [last]
        bands = -(-threads // (batch * parts))
        rows = [height * band // bands for band in range(bands + 1)]
        _run(
            [
                (compiled.splat_band, (arrays[:3], arrays[3], average, image, channel_range, band))
                for image in range(batch)
                for channel_range in pairwise(edges)
                for band in pairwise(rows)
                if band[0] < band[1]
            ],
            threads,
        )

    # Averages need the last channel first: its group goes ahead of the others.
    ahead = channels // compiled.LANES * compiled.LANES if average else 0
    fill(ahead, channels + 1, average)
    if ahead:
        fill(0, ahead, average)
    return result


def _gradients(
    inputs: tuple[Tensor, Tensor, Tensor],
    result: Tensor,
    upstream: tuple[Tensor, Tensor],
    average: bool,
    least: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of features, flow and weight (its exponent if ``least`` is above 0); see the kernel `gather_rows`."""
    compiled = kernels()
    assert compiled is not None
    features, flow, weight = inputs
    gradients = _new(features.shape, features), torch.empty_like(flow), torch.empty_like(weight)
    *sources, averages = (t.detach().numpy() for t in (features, flow, weight, result))
    slopes = tuple(t.detach().numpy() for t in upstream)
    results = tuple(t.numpy() for t in gradients)
    batch, height = features.shape[0], features.shape[2]
    threads = _threads(features, compiled.LANES)
    step = max(1, min(_ROWS_PER_TASK, -(-batch * height // threads)))
    _run(
        [
            (compiled.gather_rows, (tuple(sources), averages, average, least, slopes, results, image, rows))
            for image in range(batch)
            for rows in pairwise([*range(0, height, step), height])
        ],
        threads,
    )
    return gradients


def _new(shape: Sequence[int], like: Tensor) -> Tensor:
    """An empty tensor from numpy, which asks the system for large pages: touching 40 MB is then 4 times as quick."""
    return torch.from_numpy(np.empty(tuple(shape), like.detach().numpy().dtype))


class _WeightedSplat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        inputs = features.contiguous(), flow.contiguous(), weight.contiguous()
        ctx.save_for_backward(*inputs)
        result = _sums(*inputs, average=False)
        return result[:, :-1], result[:, -1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, total_gradient: Tensor, mass_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs = ctx.saved_tensors
        upstream = total_gradient.contiguous(), mass_gradient.contiguous()
        return _gradients(inputs, inputs[0], upstream, average=False)


class _AverageSplat(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, flow: Tensor, given: Tensor, weight_of: Callable[[Tensor], Tensor], least: float
    ) -> Tensor:
        inputs = features.contiguous(), flow.contiguous(), weight_of(given).contiguous()
        result = _sums(*inputs, average=True)
        ctx.save_for_backward(*inputs, result)
        ctx.least = least
        return result[:, :-1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, result = ctx.saved_tensors
        gradient = gradient.contiguous()
        return *_gradients(tuple(inputs), result, (gradient, gradient), True, ctx.least), None, None


def weighted_splat(features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`gid.rendering.splatting.reference.weighted_splat`, for CPU tensors, all float32 or all float64."""
    return _WeightedSplat.apply(features, flow, weight)


def average_splat(features: Tensor, flow: Tensor, weight: Tensor) -> Tensor:
    """``total / mass`` of :func:`weighted_splat`, 0 where the mass is 0, without a map in between."""
    return _AverageSplat.apply(features, flow, weight, torch.Tensor.detach, 0.0)


def _softmax_weight(metric: Tensor) -> Tensor:
    """:func:`gid.rendering.splatting.reference.softmax_weight` in one pass where nothing stands in the way."""
    compiled = kernels()
    assert compiled is not None
    values = metric.detach().contiguous().flatten(1).numpy()
    tops = values.max(1)
    if metric.dtype != torch.float32 or not np.isfinite(tops).all():  # NaN counts as the largest here
        return softmax_weight(metric)
    weight = torch.empty(metric.shape)
    for row, top, target in zip(values, tops, weight.flatten(1).numpy(), strict=True):
        compiled.exponentials(row, top, -METRIC_RANGE, target)
    return weight


def softmax_splat(features: Tensor, flow: Tensor, metric: Tensor) -> Tensor:
    """Average weighted by :func:`gid.rendering.splatting.reference.softmax_weight` of a metric (B, 1, H, W)."""
    least = math.exp(-METRIC_RANGE) * (1 + 1e-5)  # a weight that is held there may be off by its last bit
    return _AverageSplat.apply(features, flow, metric, _softmax_weight, least)
