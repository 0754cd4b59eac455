"""The public splatting functions: arguments, the four modes, and the choice of an implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from gid.rendering.splatting import cpu, gpu, reference

Mode = Literal["sum", "average", "linear", "softmax"]
Implementation = Literal["auto", "torch", "numba", "triton"]


def splat(
    features: Tensor,
    flow: Tensor,
    metric: Tensor | None = None,
    mode: Mode = "softmax",
    implementation: Implementation = "auto",
) -> Tensor:
    """Move each pixel's features along its flow ("forward warping"), summing by bilinear shares where several land.

    With ``S`` the bilinear sum (see :func:`gid.rendering.splatting.reference.weighted_splat`), F the features and Z the
    metric (Niklaus and Liu 2020, equations 3 to 8):

    - ``sum``: ``S(F)``; conserves mass, holes are 0.
    - ``average``: ``S(F) / S(1)``.
    - ``linear``: ``S(Z F) / S(Z)``, for Z >= 0.
    - ``softmax``: ``S(exp(Z) F) / S(exp(Z))``; the larger metric wins. The metric is shifted by its maximum over each
      image, and what then lies below -50 is raised to it, so no metric overflows or makes a pixel vanish.

    Gradients flow into features, flow and metric. Sums and coordinates are float32 (float64 if any argument is),
    whatever the feature type. Sources whose flow is not finite, or leads off the image, land nowhere.

    Args:
        features: (B, C, H, W) float.
        flow: (B, 2, H, W) pixels, x right and y down.
        metric: (B, 1, H, W); required by ``linear`` and ``softmax``, not used by the other two.
        mode: see above.
        implementation: ``torch`` runs everywhere; ``numba`` is compiled for the CPU, ``triton`` for CUDA GPUs (its
            sums are float32 and their last bits vary from run to run); ``auto`` takes whichever of them fits the
            tensors and is installed, else torch.

    Returns:
        (B, C, H, W) of the type of ``features``; 0 where nothing lands.

    Raises:
        ValueError: a shape, a mode or an implementation that does not fit.
    """
    _check(features, flow, metric, mode, implementation)
    dtype = torch.float64 if torch.float64 in (features.dtype, flow.dtype) else torch.float32
    moved, path = features.to(dtype), flow.to(dtype)
    splat_kernel = _implementation(implementation, features, dtype)
    if splat_kernel is cpu.weighted_splat and mode == "softmax" and metric is not None:
        return cpu.softmax_splat(moved, path, metric.to(dtype)).to(features.dtype)
    weight = _weight(moved, metric, mode)
    if splat_kernel is cpu.weighted_splat and mode != "sum":
        return cpu.average_splat(moved, path, weight).to(features.dtype)
    total, mass = splat_kernel(moved, path, weight)
    if mode != "sum":
        # Linear weights may be arbitrarily small or negative; only a true zero is a hole.
        empty = mass == 0
        total = torch.where(empty, torch.zeros_like(total), total / torch.where(empty, torch.ones_like(mass), mass))
    return total.to(features.dtype)


def splat_sums(
    features: Tensor, flow: Tensor, weight: Tensor, implementation: Implementation = "auto"
) -> tuple[Tensor, Tensor]:
    """The sums behind every mode: ``S(W F)`` (B, C, H, W) and ``S(W)`` (B, 1, H, W) for any weight (B, 1, H, W).

    For callers that need both, or weights of their own. float32, gradients as in :func:`splat`.

    Raises:
        ValueError: a shape or an implementation that does not fit.
    """
    _check(features, flow, weight, "sum", implementation)
    splat_kernel = _implementation(implementation, features, torch.float32)
    return splat_kernel(features.float(), flow.float(), weight.float())


def coverage(flow: Tensor, implementation: Implementation = "auto") -> Tensor:
    """How many pixels land on each pixel, ``S(1)``: 1 where nothing happens, 0 in a hole, above 1 where motion gathers.

    Args:
        flow: (B, 2, H, W) pixels.

    Returns:
        (B, 1, H, W), 0 or more.
    """
    return splat(torch.ones_like(flow[:, :1]), flow, mode="sum", implementation=implementation)


def _weight(features: Tensor, metric: Tensor | None, mode: Mode) -> Tensor:
    if mode in ("sum", "average") or metric is None:
        return features.new_ones(features.shape[0], 1, *features.shape[2:])
    if mode == "linear":
        return torch.nan_to_num(metric.to(features.dtype), nan=-1e30, posinf=1e30, neginf=-1e30)
    return reference.softmax_weight(metric.to(features.dtype))


def _implementation(
    name: Implementation, features: Tensor, dtype: torch.dtype
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    on_cpu = features.device.type == "cpu"
    if name == "numba":
        if not on_cpu:
            raise ValueError(f"implementation='numba' needs CPU tensors, got {features.device}; use 'auto' or 'torch'.")
        if cpu.kernels() is None:
            raise ValueError("implementation='numba' needs the numba package; install it or use 'auto'.")
        return cpu.weighted_splat
    if name == "triton":
        return gpu.weighted_splat(features)
    if name == "auto" and on_cpu and cpu.kernels() is not None:
        return cpu.weighted_splat
    if name == "auto" and gpu.usable(features, dtype):
        return gpu.weighted_splat(features)
    return reference.weighted_splat


def _check(features: Tensor, flow: Tensor, metric: Tensor | None, mode: str, implementation: str) -> None:
    if mode not in get_args(Mode):
        raise ValueError(f"mode={mode!r} is unknown; choose one of {', '.join(get_args(Mode))}.")
    if implementation not in get_args(Implementation):
        raise ValueError(f"implementation={implementation!r} is unknown; choose one of auto, torch, numba, triton.")
    if features.ndim != 4 or not features.is_floating_point():
        raise ValueError(f"features must be floating point (B, C, H, W), got {features.dtype} {tuple(features.shape)}.")
    batch, _, height, width = features.shape
    if tuple(flow.shape) != (batch, 2, height, width):
        raise ValueError(f"flow must be {(batch, 2, height, width)} for these features, got {tuple(flow.shape)}.")
    if metric is None:
        if mode in ("linear", "softmax"):
            raise ValueError(f"mode={mode!r} needs a metric (B, 1, H, W); pass one or use mode='average'.")
    elif tuple(metric.shape) != (batch, 1, height, width):
        raise ValueError(f"metric must be {(batch, 1, height, width)} for these features, got {tuple(metric.shape)}.")
