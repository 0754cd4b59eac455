"""The loop that turns noise into motion, and what else the pipelines for one photo share.

A pipeline keeps its networks and says how they are asked (`Sampled`); the loop, the options and the pairing of photos
and seeds are here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from foundation.pictures import load_photo
from foundation.trace import stage
from gid.motion.normalization import from_isotropic
from gid.motion.spectrum import SpectralVolume

MAX_STEPS = 1000
MAX_GUIDANCE = 20.0

PhotoLike = Tensor | Image.Image | np.ndarray | str | Path


@dataclass
class GIDOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        volumes: one spectral volume for each photo and seed, in order.
    """

    volumes: list[SpectralVolume]


@dataclass(frozen=True)
class Settings:
    """How to sample; see :meth:`gid.diffusion.pipeline.GIDPipeline.__call__`. Raises ValueError out of range."""

    steps: int = 10
    guidance_scale: float = 1.0
    solver: str = "dpm"
    loop_guidance: float = 0.0
    loop_recurrence: int = 2
    hold_still: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"{self.steps} steps asked for; use 1 to {MAX_STEPS}")
        if not 1 <= self.guidance_scale <= MAX_GUIDANCE:
            raise ValueError(
                f"guidance scale is {self.guidance_scale}; use 1 (the photo as learned) to {MAX_GUIDANCE:g}"
            )
        if self.solver not in ("dpm", "ddim"):
            raise ValueError(f"solver {self.solver!r} is unknown; use 'dpm' or 'ddim'")
        if not (math.isfinite(self.loop_guidance) and self.loop_guidance >= 0):
            raise ValueError(
                f"loop guidance is {self.loop_guidance}; use 0 (off) or a positive number, 200 in the paper"
            )
        if self.loop_guidance > 0 and self.solver != "ddim":
            raise ValueError("loop guidance repeats steps, which the multistep solver cannot; use solver='ddim'")
        if self.loop_recurrence < 1:
            raise ValueError(f"loop recurrence is {self.loop_recurrence}; use 1 or more")


class Sampled(Protocol):
    """What sampling asks of a pipeline; B volumes of K frequencies are B*K latents."""

    @property
    def config(self) -> Any:
        """Settings of the weights: scales (K of them), num_frames, fps, name."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""

    def motion_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the volume for a photo."""

    def _condition(
        self, pixels: Tensor, columns: int, rows: int, hold_still: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """What the denoiser is shown of a photo (3, H, W), and the envelope of its motion or None."""

    def _latent_shape(self, columns: int, rows: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of one frequency slice."""

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """The arithmetic of a call."""

    def _predict(self, latents: Tensor, time: Tensor, index: Tensor, condition: Tensor, scale: float) -> Tensor:
        """What the scheduler wants to know of latents (B*K, C, h, w) of frequencies ``index`` (B*K,)."""

    def _guided(
        self,
        predicted: Tensor,
        latents: Tensor,
        time: Tensor,
        scheduler: Any,
        decode: Callable[[Tensor], Tensor],
        weight: float,
    ) -> Tensor:
        """The prediction, led towards a loop."""

    def _decode(self, latents: Tensor, volumes: int, envelope: Tensor | None, photo: Tensor | None = None) -> Tensor:
        """Latents -> coefficients (B, K, 4, h, w) in fractions of sqrt(width * height)."""

    def _solver(self, name: str, steps: int) -> Any:
        """A fresh scheduler."""


def sample(
    pipeline: Sampled,
    photo: Any,
    seed: int | Sequence[int],
    settings: Settings,
    callback: Callable[[int, int], None] | None = None,
) -> GIDOutput:
    """Sample the motion of photos; see :meth:`gid.diffusion.pipeline.GIDPipeline.__call__`.

    Raises:
        ValueError: photos that cannot be read, or numbers of photos and seeds that do not go together.
    """
    jobs = _pair_up(photo, seed)
    total, done = settings.steps * len(jobs), 0
    volumes: list[SpectralVolume] = []

    def step_done() -> None:
        nonlocal done
        done += 1
        if callback is not None:
            callback(done, total)

    for image, seeds in jobs:
        pixels = image if isinstance(image, Tensor) else load_photo(image)
        _check_photo(pixels)
        with pipeline._precision():
            volumes += _sample_photo(pipeline, pixels, seeds, settings, step_done)
    return GIDOutput(volumes=volumes)


def _sample_photo(
    pipeline: Sampled, pixels: Tensor, seeds: list[int], settings: Settings, step_done: Callable[[], None]
) -> list[SpectralVolume]:
    """One volume for each seed, of one photo (3, H, W)."""
    scheduler = pipeline._solver(settings.solver, settings.steps)
    height, width = pixels.shape[-2:]
    columns, rows = pipeline.motion_size(width, height)
    with stage("where it moves"):
        condition, envelope = pipeline._condition(pixels, columns, rows, settings.hold_still)
    bands = len(pipeline.config.scales)
    shape = (bands, *pipeline._latent_shape(columns, rows))
    latents = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
    latents = latents.to(pipeline.device) * scheduler.init_noise_sigma
    index = torch.arange(bands, device=pipeline.device).repeat(len(seeds))
    recurrence = torch.Generator().manual_seed(seeds[0])

    def decode(clean: Tensor) -> Tensor:
        return pipeline._decode(clean, len(seeds), envelope)

    guiding = settings.loop_guidance > 0
    repeats = settings.loop_recurrence if guiding else 1
    for position, time in enumerate(scheduler.timesteps):
        for repeat in range(repeats):
            with stage("denoise"):
                predicted = pipeline._predict(latents, time, index, condition, settings.guidance_scale)
            if guiding:
                predicted = pipeline._guided(predicted, latents, time, scheduler, decode, settings.loop_guidance)
            previous = scheduler.step(predicted, time, latents).prev_sample
            if repeat + 1 < repeats:
                latents = _renoise(previous, scheduler, position, recurrence)
        latents = previous
        step_done()
    with stage("decode motion"):
        final = pipeline._decode(latents.float(), len(seeds), envelope, pixels)
    return [
        SpectralVolume.from_real(
            volume,
            fps=pipeline.config.fps,
            num_frames=pipeline.config.num_frames,
            image_size=(width, height),
            model=pipeline.config.name,
            seed=s,
        )
        for volume, s in zip(from_isotropic(final.float(), columns, rows).cpu(), seeds, strict=True)
    ]


def fresh_solver(scheduler: Any, name: str, steps: int, **changes: Any) -> Any:
    """A scheduler of its own for one call, ``dpm`` or ``ddim``, of the noise schedule of ``scheduler``.

    ``changes`` replace settings of ``ddim``.
    """
    config = dict(scheduler.config)
    if name == "ddim":
        fresh: Any = DDIMScheduler.from_config(config, timestep_spacing="trailing", **changes)
    else:
        fresh = DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing"
        )
    fresh.set_timesteps(steps)
    return fresh


def sides_near(area: int, aspect: float, multiple: int) -> tuple[int, int]:
    """(columns, rows), multiples of ``multiple``, of about ``area`` cells and about ``aspect`` (width / height)."""
    ideal = math.sqrt(area * aspect)
    columns, rows = max(1, round(ideal / multiple)), max(1, round(ideal / aspect / multiple))
    return columns * multiple, rows * multiple


def _renoise(previous: Tensor, scheduler: Any, position: int, generator: torch.Generator) -> Tensor:
    """Diffuse x_{t-1} back to x_t: the self-recurrence of guidance."""
    times = scheduler.timesteps
    now = scheduler.alphas_cumprod[int(times[position])]
    before = scheduler.alphas_cumprod[int(times[position + 1])] if position + 1 < len(times) else torch.tensor(1.0)
    ratio = (now / before).to(previous.device)
    noise = torch.randn(previous.shape, generator=generator).to(previous.device)
    return ratio.sqrt() * previous + (1 - ratio).sqrt() * noise


def _pair_up(photo: Any, seed: int | Sequence[int]) -> list[tuple[Any, list[int]]]:
    photos = list(photo) if isinstance(photo, list | tuple) else [photo]
    seeds = [seed] if isinstance(seed, int) else [int(s) for s in seed]
    if not photos or not seeds:
        raise ValueError(f"{len(photos)} photos and {len(seeds)} seeds given; at least one of each is needed")
    if len(photos) == 1:
        return [(photos[0], seeds)]
    if len(seeds) == 1:
        seeds = seeds * len(photos)
    if len(seeds) != len(photos):
        raise ValueError(f"{len(photos)} photos and {len(seeds)} seeds given; give one seed, or one for each photo")
    return [(image, [s]) for image, s in zip(photos, seeds, strict=True)]


def _check_photo(pixels: Tensor) -> None:
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ValueError(f"photo has shape {tuple(pixels.shape)}; it must be (3, H, W)")
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError("photo holds NaN or infinity; load it again")
