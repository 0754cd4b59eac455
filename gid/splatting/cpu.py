"""The compiled CPU implementation of forward warping, with gradients."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_ROWS_PER_TASK = 80  # of the backward pass: the targets in their reach stay in the cache


@lru_cache(maxsize=1)
def kernels() -> ModuleType | None:
    """The compiled kernels, or None where numba cannot be imported (the torch reference then does the work)."""
    try:
        return importlib.import_module("gid.splatting.kernels")
    except ImportError as error:
        logger.warning("numba is not usable (%s): splatting falls back to plain torch, several times slower", error)
        return None


def _run(tasks: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    """Run independent tasks on as many threads as torch uses; the first error of any of them is raised here.

    Threads live for one call: starting them costs some 50 microseconds, and nothing is left over that a fork could
    break or that two callers would have to share.
    """
    pending = iter(tasks)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        while not errors:
            with lock:
                task = next(pending, None)
            if task is None:
                return
            try:
                task[0](*task[1])
            except BaseException as error:
                errors.append(error)

    helpers = [threading.Thread(target=work) for _ in range(min(torch.get_num_threads(), len(tasks)) - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]


class _WeightedSplat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        compiled = kernels()
        assert compiled is not None
        features, flow, weight = features.contiguous(), flow.contiguous(), weight.contiguous()
        ctx.save_for_backward(features, flow, weight)
        batch, channels, height, width = features.shape
        result = features.new_empty(batch, channels + 1, height, width)
        arrays = tuple(t.detach().numpy() for t in (features, flow, weight, result))
        threads = torch.get_num_threads()
        groups = -(-(channels + 1) // compiled.LANES)
        # A task takes several groups of channels, and bands of rows only where there are fewer groups than threads:
        # each band scans every source.
        parts = min(groups, -(-threads // batch))
        edges = [min(compiled.LANES * (groups * part // parts), channels + 1) for part in range(parts)] + [channels + 1]
        bands = -(-threads // (batch * parts))
        rows = [height * band // bands for band in range(bands + 1)]
        _run(
            [
                (compiled.splat_band, (*arrays, image, *channel_range, first, last))
                for image in range(batch)
                for channel_range in pairwise(edges)
                for first, last in pairwise(rows)
                if first < last
            ]
        )
        return result[:, :channels], result[:, channels:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, total_gradient: Tensor, mass_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        compiled = kernels()
        assert compiled is not None
        features, flow, weight = ctx.saved_tensors
        upstream = total_gradient.contiguous(), mass_gradient.contiguous()
        gradients = torch.empty_like(features), torch.empty_like(flow), torch.empty_like(weight)
        arrays = tuple(t.detach().numpy() for t in (features, flow, weight, *upstream, *gradients))
        height = features.shape[2]
        _run(
            [
                (compiled.gather_rows, (*arrays, image, first, min(first + _ROWS_PER_TASK, height)))
                for image in range(features.shape[0])
                for first in range(0, height, _ROWS_PER_TASK)
            ]
        )
        return gradients


def weighted_splat(features: Tensor, flow: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Same as :func:`gid.splatting.reference.weighted_splat`, for CPU tensors that are all float32 or all float64."""
    return _WeightedSplat.apply(features, flow, weight)
