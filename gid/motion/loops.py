"""When in time a video's frames lie: plain continuation, and loops that close by construction.

Everything works on the *time basis*: a complex matrix b (N, K) with which a volume's displacement at output frame n is
``2 Re sum_k S_k b[n, k]`` over its moving bands k >= 1. It is small, so all choices about time are made on it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gid.motion.spectrum import SpectralVolume


def plain_basis(frequencies: Tensor, num_frames: int, fps: float, speed: float) -> Tensor:
    """Time basis of the motion as it is: frame n shows the moment ``n * speed / fps`` seconds.

    Args:
        frequencies: (K,) Hz.

    Returns:
        (num_frames, K) complex128; the constant band is 0.
    """
    seconds = torch.arange(num_frames, dtype=torch.float64) * (speed / fps)
    angle = 2 * math.pi * seconds[:, None] * frequencies.double()[None, :]
    return torch.polar(torch.ones_like(angle), angle) * (frequencies > 0)


def loop_cycles(frequencies: Tensor, num_frames: int, fps: float, speed: float) -> tuple[Tensor, Tensor]:
    """Whole numbers of cycles each band makes in one loop, and the gain that keeps its velocity.

    A loop of N frames holds ``D = N * speed / fps`` seconds of motion, so only multiples of 1/D Hz close. Each band
    moves to the nearest one that is not zero. Where that is faster than the band itself, its amplitude shrinks by the
    same ratio: things move as fast as before, only less far.

    Args:
        frequencies: (K,) Hz.

    Returns:
        ``cycles`` (K,) float64 whole numbers and ``gain`` (K,) in [0, 1]; both 0 for the constant band.
    """
    wanted = frequencies.double() * (num_frames * speed / fps)
    moves = frequencies > 0
    cycles = torch.where(moves, wanted.round().clamp(min=1), torch.zeros_like(wanted))
    gain = torch.where(moves, (wanted / cycles.clamp(min=1)).clamp(max=1), torch.zeros_like(wanted))
    return cycles, gain


def loop_basis(frequencies: Tensor, num_frames: int, fps: float, speed: float) -> Tensor:
    """Time basis of a loop: frame ``num_frames`` would be frame 0 again, to rounding. Same shape as `plain_basis`."""
    cycles, gain = loop_cycles(frequencies, num_frames, fps, speed)
    frames = torch.arange(num_frames, dtype=torch.float64)
    angle = 2 * math.pi * frames[:, None] * cycles[None, :] / num_frames
    return torch.polar(gain.expand_as(angle).contiguous(), angle)


def evaluate(basis: Tensor, coefficients: Tensor) -> Tensor:
    """Displacement ``2 Re sum_k S_k b[n, k]``.

    Args:
        basis: (N, K) complex.
        coefficients: (K, ...) complex.

    Returns:
        (N, ...) float32.
    """
    basis = basis.to(device=coefficients.device, dtype=torch.complex64)
    # As one real product: Re(S b) = Re S Re b - Im S Im b.
    rows = torch.cat([2 * basis.real, -2 * basis.imag], dim=1)
    parts = torch.cat([coefficients.real, coefficients.imag], dim=0)
    return (rows @ parts.flatten(1)).unflatten(1, coefficients.shape[1:])


def loop_start(basis: Tensor, volume: SpectralVolume, allowed: float = 0.85, samples: int = 2048) -> int:
    """The frame of a loop that the photo should show.

    A loop has no seam, but the photo shows one of its moments, and that one is seen longest in a still preview and
    compared across the wrap. Among the frames whose step from the frame before is at most ``allowed`` times the median
    step (the calmest frame, if there is none), the one nearest to all others is taken: displacements from the photo
    stay smallest, and with them what has to be invented behind moving things.

    Args:
        basis: (N, K) of the loop.
        volume: the motion.
        allowed: largest step, as a share of the median.
        samples: number of places of the volume to look at.

    Returns:
        index of the frame to start from, in [0, N).
    """
    places = volume.coefficients.flatten(2)
    stride = max(1, places.shape[-1] // samples)
    motion = evaluate(basis, places[..., ::stride])  # N 2 P
    step = (motion - motion.roll(1, 0)).square().sum(1).sqrt().mean(1)
    # sum over m of |F_m - F_n|^2 = N |F_n|^2 - 2 F_n . sum F + const
    spread = motion.square().sum((1, 2)) - 2 * (motion * motion.mean(0)).sum((1, 2))
    calm = step <= allowed * step.median()
    if not bool(calm.any()):
        return int(step.argmin())
    return int(torch.where(calm, spread, torch.full_like(spread, math.inf)).argmin())


def time_basis(volume: SpectralVolume, num_frames: int, fps: float, speed: float, loop: bool) -> Tensor:
    """Pinned time basis of a video: row 0 is 0, so that frame 0 is the photo itself.

    Returns:
        (num_frames, K) complex128, for `evaluate` with ``volume.coefficients``.
    """
    if not loop:
        basis = plain_basis(volume.frequencies, num_frames, fps, speed)
        return basis - basis[:1]
    basis = loop_basis(volume.frequencies, num_frames, fps, speed)
    basis = basis.roll(-loop_start(basis, volume), 0)
    return basis - basis[:1]
