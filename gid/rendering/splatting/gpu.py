"""Whether the Triton implementation can be used, without importing triton before it is needed."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def kernels() -> ModuleType | None:
    """The Triton kernels, or None where triton cannot be imported (the torch reference then does the work)."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        return importlib.import_module("gid.rendering.splatting.triton_kernels")
    except (ImportError, RuntimeError) as error:
        logger.warning("triton is not usable (%s): splatting falls back to plain torch, several times slower", error)
        return None


def usable(features: Tensor, dtype: torch.dtype) -> bool:
    """Whether ``auto`` takes Triton: CUDA tensors, sums in float32 (not float64), and triton installed."""
    return features.is_cuda and dtype == torch.float32 and kernels() is not None


def weighted_splat(features: Tensor) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The Triton function for these features.

    Raises:
        ValueError: if triton is missing, or the tensors are where it cannot reach them.
    """
    compiled = kernels()
    if compiled is None:
        raise ValueError("implementation='triton' needs the triton package; install it or use 'auto'.")
    if not (features.is_cuda or compiled.INTERPRETED):
        raise ValueError(f"implementation='triton' needs CUDA tensors, got {features.device}; use 'auto' or 'torch'.")
    return compiled.weighted_splat
