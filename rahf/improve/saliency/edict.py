"""Deterministic sampling that can be undone exactly, and its gradient in memory that does not grow with the steps.

EDICT (Wallace et al., "Exact Diffusion Inversion via Coupled Transformations", CVPR 2023): two latents take DDIM's step
in turn, each with the noise that the network sees in the other, and are then mixed; every part can be solved for what
went in. The gradient of a loss on the last latents with respect to the first ones (DOODL, Wallace et al. 2023) needs no
kept states therefore: going back, each step first recovers the latents before it.

The latents are held in float64, as in the paper: undoing a step divides by the mixing several times, and 50 steps in
float32 lose three digits. The network runs in whatever format it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Latents (B,c,h,w) in float64 and the index of the step -> the noise in them, in the network's own format.
Noise = Callable[[Tensor, int], Tensor]
MIXING = 0.93  # the paper's p, for 50 steps: nearer to 1 the two drift apart, far below it the inverse loses digits


@dataclass(frozen=True)
class Coefficients:
    """One step of DDIM as `scale * latents + shift * noise`, by the index of the step."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.scale)


def coefficients(alphas: Tensor) -> Coefficients:
    """From the cumulative products (n+1,) of a schedule, rising: `alphas[i]` before step i, the last of the picture.

    Raises:
        ValueError: fewer than two, or one that is not in (0, 1].
    """
    products = alphas.double().cpu()
    if products.ndim != 1 or len(products) < 2 or not bool(((products > 0) & (products <= 1)).all()):
        raise ValueError(f"the cumulative products are {products.tolist()}; at least two in (0, 1] are needed")
    before, after = products[:-1], products[1:]
    scale = (after / before).sqrt()
    shift = (1 - after).sqrt() - scale * (1 - before).sqrt()
    return Coefficients(tuple(scale.tolist()), tuple(shift.tolist()))


@torch.no_grad()
def sample(
    pair: tuple[Tensor, Tensor], noise: Noise, steps: Coefficients, mixing: float = MIXING
) -> tuple[Tensor, Tensor]:
    """Two coupled latents (B,c,h,w) of pure noise to those of a picture, in float64.

    Raises:
        ValueError: a mixing that is not in [0.5, 1].
    """
    check_mixing(mixing)
    first, second = _held(pair[0]), _held(pair[1])
    for index in range(len(steps)):
        first, second = _turned(index, *_forward(*_turned(index, first, second), noise, steps, index, mixing))
    return first, second


@torch.no_grad()
def invert(
    pair: tuple[Tensor, Tensor], noise: Noise, steps: Coefficients, mixing: float = MIXING
) -> tuple[Tensor, Tensor]:
    """:func:`sample` undone: the coupled latents of a picture to the noise that they come from, in float64.

    Raises:
        ValueError: a mixing that is not in [0.5, 1].
    """
    check_mixing(mixing)
    first, second = _held(pair[0]), _held(pair[1])
    for index in reversed(range(len(steps))):
        lead, follow = _turned(index, first, second)
        lead_half, follow_half = _unmixed(lead, follow, mixing)
        scale, shift = steps.scale[index], steps.shift[index]
        follow = (follow_half - shift * noise(lead_half, index).to(lead_half)) / scale
        lead = (lead_half - shift * noise(follow, index).to(follow)) / scale
        first, second = _turned(index, lead, follow)
    return first, second


def differentiable_sample(latents: Tensor, noise: Noise, steps: Coefficients, mixing: float = MIXING) -> Tensor:
    """The first of the two latents of a picture, both of which start as `latents`; differentiable in these.

    What the network is told beside its latents gets no gradient. The memory of the backward pass is that of one call of
    the network, however many steps there are; it calls the network twice a step, once more than sampling costs.

    Raises:
        ValueError: a mixing that is not in [0.5, 1].
    """
    check_mixing(mixing)
    result: Tensor = _InvertibleSampling.apply(latents, noise, steps, mixing)
    return result


def check_mixing(mixing: float) -> None:
    """Raises ValueError for a mixing at which the inverse would lose its digits."""
    if not 0.5 <= mixing <= 1:
        raise ValueError(f"mixing is {mixing:g}; it must be from 0.5 to 1: {MIXING:g} is a good start")


class _InvertibleSampling(torch.autograd.Function):
    """Forward without a graph; backward recovers the latents before each step and takes one step's gradient."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, noise: Noise, steps: Coefficients, mixing: float) -> Tensor:
        first, second = sample((latents, latents), noise, steps, mixing)
        ctx.save_for_backward(first, second)
        ctx.noise, ctx.steps, ctx.mixing = noise, steps, mixing
        return first.to(latents)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        first, second = ctx.saved_tensors
        first_slope = gradients[0].to(first)
        second_slope = torch.zeros_like(first_slope)
        for index in reversed(range(len(ctx.steps))):
            states = _turned(index, first, second)
            slopes = _turned(index, first_slope, second_slope)
            states, slopes = _step_back(states, slopes, ctx.noise, ctx.steps, index, ctx.mixing)
            first, second = _turned(index, *states)
            first_slope, second_slope = _turned(index, *slopes)
        return (first_slope + second_slope).to(gradients[0]), None, None, None


def _held(latents: Tensor) -> Tensor:
    """Latents in float64, or in float32 on devices that know no more."""
    return latents.to(torch.float32 if latents.device.type == "mps" else torch.float64)


def _turned(index: int, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The two take turns in who goes first; its own inverse."""
    return (second, first) if index % 2 else (first, second)


def _forward(
    lead: Tensor, follow: Tensor, noise: Noise, steps: Coefficients, index: int, mixing: float
) -> tuple[Tensor, Tensor]:
    """One step of both (the paper's equation 14)."""
    scale, shift = steps.scale[index], steps.shift[index]
    lead_half = scale * lead + shift * noise(follow, index).to(lead)
    follow_half = scale * follow + shift * noise(lead_half, index).to(follow)
    lead = mixing * lead_half + (1 - mixing) * follow_half
    return lead, mixing * follow_half + (1 - mixing) * lead


def _unmixed(lead: Tensor, follow: Tensor, mixing: float) -> tuple[Tensor, Tensor]:
    """The two before they were mixed (equation 15)."""
    follow_half = (follow - (1 - mixing) * lead) / mixing
    return (lead - (1 - mixing) * follow_half) / mixing, follow_half


def _step_back(
    states: tuple[Tensor, Tensor],
    slopes: tuple[Tensor, Tensor],
    noise: Noise,
    steps: Coefficients,
    index: int,
    mixing: float,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """States before a step, and the loss's slopes there, from those after it: the chain rule through `_forward`."""
    scale, shift = steps.scale[index], steps.shift[index]
    lead_half, follow_half = _unmixed(*states, mixing)
    lead_slope = slopes[0] + (1 - mixing) * slopes[1]
    follow_half_slope = mixing * slopes[1] + (1 - mixing) * lead_slope
    lead_half_slope = mixing * lead_slope

    seen, pulled = _noise_and_slope(noise, lead_half, index, shift * follow_half_slope)
    follow = (follow_half - shift * seen) / scale
    lead_half_slope = lead_half_slope + pulled
    seen, pulled = _noise_and_slope(noise, follow, index, shift * lead_half_slope)
    lead = (lead_half - shift * seen) / scale
    return (lead, follow), (scale * lead_half_slope, scale * follow_half_slope + pulled)


def _noise_and_slope(noise: Noise, latents: Tensor, index: int, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The noise in latents, and the slope (that of the noise given) with respect to them; the graph is let go."""
    with torch.enable_grad():
        entry = latents.detach().requires_grad_(True)
        seen = noise(entry, index)
        (pulled,) = torch.autograd.grad(seen, entry, slope.to(seen))
    return seen.detach().to(latents), pulled
