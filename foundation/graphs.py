"""CUDA graphs: a network's kernels recorded once and replayed, where launching them takes longer than running them."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_Recording = tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]


class Replayed:
    """A function of tensors that records a CUDA graph for each set of shapes and types, and replays it from then on.

    Inputs elsewhere than on a CUDA GPU, or calls that need gradients, go to the function itself; so do all calls after
    a recording has failed. A recording takes three warming calls, so it pays only for a function that is called often
    with equal shapes.

    Args:
        function: tensors in, one tensor out; nothing in it may depend on the values of its inputs but by computing.
        limit: recordings kept; the one used longest ago goes first.
    """

    def __init__(self, function: Callable[..., Tensor], limit: int = 4) -> None:
        self.function = function
        self.limit = limit
        self._recordings: OrderedDict[tuple[object, ...], _Recording] = OrderedDict()
        self._failed = False
        self._lock = threading.Lock()  # two callers would share the recorded inputs

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's result, as a tensor of its own."""
        if torch.is_grad_enabled() or not all(tensor.is_cuda for tensor in inputs):
            return self.function(*inputs)
        autocast = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        key = (autocast, *((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs))
        with self._lock:
            if self._failed:
                return self.function(*inputs)
            if key not in self._recordings:
                try:
                    self._recordings[key] = self._record(inputs)
                except torch.cuda.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    logger.warning("cannot be recorded as a CUDA graph, called each time instead: %s", error)
                    self._failed = True
                    return self.function(*inputs)
            self._recordings.move_to_end(key)
            while len(self._recordings) > self.limit:
                self._recordings.popitem(last=False)
            graph, places, result = self._recordings[key]
            for target, tensor in zip(places, inputs, strict=True):
                target.copy_(tensor)
            graph.replay()
            return result.clone()

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        places = [tensor.clone() for tensor in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        # Autocast's cache of converted weights is freed when it ends; a graph must not read from it.
        with torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False):
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.function(*places)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = self.function(*places)
        return graph, places, result
