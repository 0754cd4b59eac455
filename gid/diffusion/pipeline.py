"""Photo to spectral volume: the latent diffusion of the paper (section 4) as a diffusers pipeline."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import Tensor

from foundation.graphs import Replayed
from gid.diffusion.autoencoder import MotionAutoencoder
from gid.diffusion.denoiser import SpectralDenoiser
from gid.diffusion.guidance import guide, loop_energy
from gid.diffusion.loading import fitting, load_parts, resolve_device, resolve_weights
from gid.diffusion.motion_map import MotionMap, see
from gid.diffusion.photo_encoder import LOG_ENVELOPE_FLOOR, PhotoEncoder, envelope_from_log
from gid.diffusion.precision import autocast
from gid.diffusion.sampling import GIDOutput, PhotoLike, Settings, fresh_solver, sample, sides_near
from gid.diffusion.stillness import Stillness
from gid.motion.coherence import cohere
from gid.motion.normalization import EnvelopeNormalization, FrequencyAdaptiveNormalization
from gid.rendering.renderer import Renderer

# The denoiser halves its latents twice more, so motion sides are multiples of 16.
MOTION_MULTIPLE = 16


class GIDPipeline(DiffusionPipeline):
    """One photo in, the spectral volume of its motion out."""

    model_cpu_offload_seq = "photo_encoder->denoiser->autoencoder"
    _optional_components: ClassVar[list[str]] = ["photo_encoder", "stillness", "motion_map"]

    def __init__(
        self,
        autoencoder: MotionAutoencoder,
        denoiser: SpectralDenoiser,
        photo_encoder: PhotoEncoder | None,
        renderer: Renderer,
        scheduler: SchedulerMixin,
        stillness: Stillness | None = None,
        motion_map: MotionMap | None = None,
        scales: list[float] | tuple[float, ...] = (1.0,) * 16,
        envelope: bool = True,
        coherence: float = 16.0,
        motion_area: int = 112 * 64,
        num_frames: int = 150,
        fps: float = 30.0,
        name: str = "",
    ) -> None:
        """Put the parts together.

        Args:
            autoencoder: slices to latents and back.
            denoiser: predicts velocity for noisy latents.
            photo_encoder: the condition, and the envelope if it has that head. None where the denoiser looks through
                the shared encoder and a motion map says where things move.
            renderer: draws frames; not used to sample motion, kept with the weights it was trained beside.
            scheduler: the noise schedule the denoiser was trained with.
            stillness: holds pictures of things that do not move still; None lets all move. Needs an encoder with an
                envelope head on a pretrained trunk.
            motion_map: says where a photo moves and how far, in place of the envelope head of the photo encoder.
            scales: K scales of the frequency-adaptive normalization.
            envelope: whether volumes were divided by their envelope.
            coherence: how strongly motion is made to hold together within objects (`gid.motion.coherence`), 0
                for not at all. Belongs to volumes with an envelope, which says what moves.
            motion_area: cells of a volume, near which its sides are chosen by the photo's aspect.
            num_frames: T of the volumes.
            fps: frames a second of the volumes.
            name: what a motion file says of the model.
        """
        super().__init__()
        if photo_encoder is None and (motion_map is None or denoiser.photo_condition is None):
            raise ValueError("without a photo encoder a motion map is needed, and a denoiser that reads its tokens")
        self.register_modules(
            autoencoder=autoencoder,
            denoiser=denoiser,
            photo_encoder=photo_encoder,
            renderer=renderer,
            scheduler=scheduler,
            stillness=stillness,
            motion_map=motion_map,
        )
        self.register_to_config(
            scales=tuple(scales),
            envelope=envelope,
            coherence=coherence,
            motion_area=motion_area,
            num_frames=num_frames,
            fps=fps,
            name=name,
        )
        self._replayed: Replayed | None = None

    def use_cuda_graphs(self, enabled: bool = True) -> None:
        """Record the denoiser as a CUDA graph, and replay it: for many photos of one aspect on a CUDA GPU.

        Elsewhere it changes nothing. Call it again after the denoiser was moved or its weights replaced.
        """
        self._replayed = Replayed(self.denoiser) if enabled else None

    # -- sampling -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        photo: PhotoLike | Sequence[PhotoLike],
        seed: int | Sequence[int] = 0,
        steps: int = 10,
        guidance_scale: float = 1.0,
        solver: str = "dpm",
        loop_guidance: float = 0.0,
        loop_recurrence: int = 2,
        hold_still: bool = True,
        callback: Callable[[int, int], None] | None = None,
    ) -> GIDOutput:
        """Sample the motion of photos.

        Args:
            photo: one photo or several: tensor (3, H, W) in [0, 1], PIL image, array or path; any size and aspect.
            seed: one seed or several. One photo with several seeds gives as many volumes; several photos take one seed
                each, or share one.
            steps: denoising steps, 1 to 1000.
            guidance_scale: 1 + w of the paper's equation 5, as diffusers counts it: 1 leaves the conditional
                prediction as it is, 2.75 is the paper's.
            solver: ``dpm`` (DPM-Solver++ of second order, for few steps) or ``ddim``.
            loop_guidance: u of equation 5; 0 is off, 200 is the paper's. Needs ``solver="ddim"``.
            loop_recurrence: how often each step is repeated under loop guidance.
            hold_still: let pictures of things that do not move hardly move, if the weights know such things.
            callback: called with (steps done, steps in all).

        Returns:
            The volumes, on the CPU.

        Raises:
            ValueError: for options out of range, photos that cannot be read, or numbers of photos and seeds that do
                not go together.
        """
        settings = Settings(steps, guidance_scale, solver, loop_guidance, loop_recurrence, hold_still)
        return sample(self, photo, seed, settings, callback)

    @property
    def notice(self) -> str:
        """One sentence that has to be shown beside what these weights make; empty for the project's own."""
        return str(self.config.get("notice", ""))

    def motion_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the volume for a photo: near the photo's aspect, sides multiples of 16."""
        return sides_near(self.config.motion_area, width / height, MOTION_MULTIPLE)

    def _condition(
        self, pixels: Tensor, columns: int, rows: int, hold_still: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """What the denoiser is shown of a photo (3, H, W), (1, C, rows / 4, columns / 4), and its envelope or None.

        The denoiser is told the envelope as its head sees it: it learned phases beside that, not beside what is held
        still afterwards.
        """
        if self.motion_map is not None and self.denoiser.photo_condition is not None:
            features = see(pixels, self.device)
            envelope = self.motion_map.envelope(pixels.to(self.device), (rows, columns), hold_still=False)
            log_envelope = F.avg_pool2d(envelope.clamp_min(math.exp(LOG_ENVELOPE_FLOOR)).log(), 4)
            condition = self.denoiser.photo_condition(features.stacked(), log_envelope)
            if hold_still:
                envelope = envelope * self.motion_map.kept(features.summary)[..., None, None]
                envelope = envelope * self._held_still(self._encoder_photo(pixels, columns, rows))
            return condition.float(), envelope
        photo = self._encoder_photo(pixels, columns, rows)
        seen = self.photo_encoder(photo)
        if seen.log_envelope is None:
            return seen.condition.float(), None
        envelope = envelope_from_log(seen.log_envelope)
        return seen.condition.float(), envelope * self._held_still(photo) if hold_still else envelope

    def _encoder_photo(self, pixels: Tensor, columns: int, rows: int) -> Tensor:
        """The photo (1, 3, h, w) as the photo encoder takes it."""
        scale = self.photo_encoder.photo_scale if self.photo_encoder is not None else 1
        size = (rows * scale, columns * scale)
        photo = F.interpolate(pixels[None].to(self.device).float(), size, mode="bilinear", antialias=True)
        return photo.clamp(0, 1)

    def _held_still(self, photo: Tensor) -> Tensor | float:
        """How much of its motion a photo keeps by the stillness beside the photo encoder; 1 without one."""
        if self.stillness is None or self.photo_encoder is None:
            return 1.0
        return self.stillness(self.photo_encoder.trunk, photo)[:, None, None, None]

    def _latent_shape(self, columns: int, rows: int) -> tuple[int, int, int]:
        """(C, h, w) of the latents of one frequency slice."""
        return self.autoencoder.config.latent_channels, rows // 4, columns // 4

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """The arithmetic of a call."""
        return autocast(self.device)

    def _predict(self, latents: Tensor, time: Tensor, index: Tensor, condition: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance, eps = (1 + w) eps(c) - w eps(null); it is linear, so the same for velocity."""
        weight = scale - 1
        times = time.to(latents.device).expand(len(latents))
        given = condition.expand(len(latents), -1, -1, -1)
        denoise = self.denoiser if self._replayed is None else self._replayed
        predicted = denoise(latents, times, index, given).float()
        if weight == 0:
            return predicted
        null = self.denoiser.null_condition.float().expand_as(given)
        return (1 + weight) * predicted - weight * denoise(latents, times, index, null).float()

    def _guided(
        self,
        predicted: Tensor,
        latents: Tensor,
        time: Tensor,
        scheduler: Any,
        decode: Callable[[Tensor], Tensor],
        weight: float,
    ) -> Tensor:
        """The paper's motion self-guidance, its gradient taken through the decoder at the estimate of the volume."""
        alpha = float(scheduler.alphas_cumprod[int(time)]) ** 0.5
        sigma = (1 - alpha**2) ** 0.5
        with torch.enable_grad():
            clean = (alpha * latents - sigma * predicted).detach().requires_grad_()
            energy = loop_energy(decode(clean).float(), self.config.num_frames).sum()
            (gradient,) = torch.autograd.grad(energy, clean)
        return guide(predicted, gradient * alpha, alpha, sigma, weight)

    def _decode(self, latents: Tensor, volumes: int, envelope: Tensor | None, photo: Tensor | None = None) -> Tensor:
        """Whitened latents (B*K, 4, h, w) -> coefficients (B, K, 4, 4h, 4w) in fractions of sqrt(width * height).

        With the photo (3, H, W), motion is made to hold together within its objects; no gradients flow then.
        """
        slices = self.autoencoder.decode_slices(latents).float()
        normalization = FrequencyAdaptiveNormalization(tuple(self.config.scales))
        unit = normalization.denormalize(slices.unflatten(0, (volumes, -1)))
        if not self.config.envelope:
            return unit
        if envelope is None:
            raise ValueError("these weights divide by the envelope, but their photo encoder has no envelope head")
        if photo is not None:
            unit = cohere(unit, envelope[0, 0], photo, self.config.coherence)
        return EnvelopeNormalization().denormalize(unit, envelope.expand(volumes, -1, -1, -1))

    def _solver(self, name: str, steps: int) -> Any:
        """A fresh scheduler: its state belongs to one call, not to the pipeline."""
        return fresh_solver(self.scheduler, name, steps, clip_sample=False)


def load_pipeline(weights: str | Path | None = None, device: str | torch.device = "auto") -> GIDPipeline:
    """Load a pipeline: embedded weights, a folder or the Hub (see :func:`gid.diffusion.loading.resolve_weights`).

    Converted weights of others come as the pipeline beside ours that is called alike, `FltwrPipeline`.

    Raises:
        ValueError: if the weights or the device are not there, or the weights do not fit the code.
    """
    folder = resolve_weights(weights, headers=False)
    target = resolve_device(device)
    kind = _pipeline_class(folder)
    parts = load_parts(folder, kind)
    with fitting(folder):
        pipeline = kind.from_pretrained(str(folder), **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(target)


def _pipeline_class(folder: Path) -> Any:
    """Which pipeline a folder of weights is for, by the name in its model_index.json."""
    try:
        name = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'model_index.json'} is damaged ({error}); fetch the weights again") from error
    if name == "GIDPipeline":
        return GIDPipeline
    if name == "FltwrPipeline":
        from gid.diffusion.fltwr import FltwrPipeline

        return FltwrPipeline
    raise ValueError(f"weights in {folder} are for a {name!r}; this version knows GIDPipeline and FltwrPipeline")
