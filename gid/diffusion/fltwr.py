"""The model of fltwr/generative-image-dynamics, trained on 818 videos of real plants, as a pipeline of this project.

It is a plain latent diffusion model of single frequency slices: diffusers' `UNet2DModel` between the latents of a
`VQModel` (factor 4, 3 channels) that was trained on faces and is used as it is. Each of the four maps of a slice is
encoded alone, repeated to three channels, so a slice has 12 latent channels and the photo joins with 3. There is no
attention across frequencies, no envelope and no square root in the normalization: coefficients are divided by one
standard deviation a frequency and by 2.82.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DModel, VQModel
from torch import Tensor

from gid.diffusion.guidance import loop_energy
from gid.diffusion.sampling import GIDOutput, PhotoLike, Settings, fresh_solver, sample, sides_near
from gid.rendering.renderer import Renderer

SOURCE = "fltwr/generative-image-dynamics unet_v1.pth"
LICENSE = "none stated"
NOTICE = (
    "The weights of fltwr/generative-image-dynamics state no licence: all rights are their author's. Ask before you "
    "publish them or what they make."
)
AUTOENCODER = "CompVis/ldm-celebahq-256/vqvae"

# Standard deviation of the coefficients of each frequency 0..15 in that model's training set: numpy.fft.fft, unscaled,
# of 149 displacements in pixels at 256x160.
DEVIATIONS = (
    34.356,
    13.7245,
    8.8032,
    7.2625,
    5.9417,
    5.3296,
    5.2004,
    4.9449,
    4.5922,
    4.5227,
    3.8699,
    3.4854,
    3.2841,
    2.8914,
    2.4530,
    2.3229,
)
GAIN = 2.82
MAPS = 4  # re_x, re_y, im_x, im_y
LATENTS = 3  # of the autoencoder
FACTOR = 4  # of the autoencoder
_DECODED_AT_ONCE = 8  # maps; all 64 of a volume would take gigabytes


@dataclass(frozen=True)
class FltwrLayout:
    """Sizes of the U-Net; the defaults are those of `unet_v1.pth`, which are the library's.

    Attributes:
        block_out_channels: width at each of its four resolutions.
        layers_per_block: residual blocks at each of them.
        norm_num_groups: groups of its normalizations.
    """

    block_out_channels: tuple[int, int, int, int] = (224, 448, 672, 896)
    layers_per_block: int = 2
    norm_num_groups: int = 32

    def build(self) -> UNet2DModel:
        """The U-Net with weights as the current default device makes them."""
        return UNet2DModel(
            in_channels=(MAPS + 1) * LATENTS,
            out_channels=MAPS * LATENTS,
            class_embed_type="timestep",
            block_out_channels=self.block_out_channels,
            layers_per_block=self.layers_per_block,
            norm_num_groups=self.norm_num_groups,
        )


class FltwrPipeline(DiffusionPipeline):
    """One photo in, the spectral volume of its motion out, by that model; called as the project's own is."""

    model_cpu_offload_seq = "denoiser->autoencoder"

    def __init__(
        self,
        autoencoder: VQModel,
        denoiser: UNet2DModel,
        renderer: Renderer,
        scheduler: SchedulerMixin,
        scales: list[float] | tuple[float, ...] = DEVIATIONS,
        gain: float = GAIN,
        drift_floor: float | None = 0.05,
        motion_area: int = 256 * 160,
        num_frames: int = 149,
        fps: float = 30.0,
        name: str = "fltwr-unet-v1",
        weights_source: str = SOURCE,
        weights_license: str = LICENSE,
        notice: str = NOTICE,
        autoencoder_source: str = AUTOENCODER,
    ) -> None:
        """Put the parts together.

        Args:
            autoencoder: maps, repeated to three channels, to latents and back; photos too.
            denoiser: predicts the noise of 12 latent channels, given 3 of the photo.
            renderer: this project's; that model's own is not supported.
            scheduler: the noise schedule the denoiser was trained with.
            scales: standard deviation of each frequency.
            gain: what coefficients were divided by beside it.
            drift_floor: leave the median magnitude of each map above this (normalized units) out of it, as that model's
                own viewer does: it is the drift of the background. None leaves maps as they are sampled.
            motion_area: cells of a volume, near which its sides are chosen by the photo's aspect; trained at 256x160.
            num_frames: T of the volumes, 149.
            fps: frames a second of the volumes.
            name: what a motion file says of the model.
            weights_source: where the denoiser comes from.
            weights_license: its licence.
            notice: one sentence to be shown beside results.
            autoencoder_source: where the autoencoder comes from.
        """
        super().__init__()
        self.register_modules(autoencoder=autoencoder, denoiser=denoiser, renderer=renderer, scheduler=scheduler)
        self.register_to_config(
            scales=tuple(scales),
            gain=gain,
            drift_floor=drift_floor,
            motion_area=motion_area,
            num_frames=num_frames,
            fps=fps,
            name=name,
            weights_source=weights_source,
            weights_license=weights_license,
            notice=notice,
            autoencoder_source=autoencoder_source,
        )

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
        """Sample the motion of photos: arguments as of :meth:`gid.diffusion.pipeline.GIDPipeline.__call__`.

        The model was trained without guidance, so ``guidance_scale`` stays 1; it does not know what holds still, so
        ``hold_still`` changes nothing.

        Raises:
            ValueError: for options out of range, photos that cannot be read, or numbers of photos and seeds that do
                not go together.
        """
        settings = Settings(steps, guidance_scale, solver, loop_guidance, loop_recurrence, hold_still)
        return sample(self, photo, seed, settings, callback)

    @property
    def notice(self) -> str:
        """One sentence that has to be shown beside what these weights make."""
        return str(self.config.notice)

    def use_cuda_graphs(self, enabled: bool = True) -> None:
        """Changes nothing: diffusers' U-Net runs as it is."""

    def motion_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the volume for a photo: near the photo's aspect, in sides the U-Net can halve."""
        multiple = FACTOR * 2 ** (len(self.denoiser.config.block_out_channels) - 1)
        return sides_near(self.config.motion_area, width / height, multiple)

    def _condition(
        self, pixels: Tensor, columns: int, rows: int, hold_still: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        photo = F.interpolate(pixels[None].to(self.device).float(), (rows, columns), mode="bilinear", antialias=True)
        return self.autoencoder.encode(photo.clamp(0, 1) * 2 - 1).latents.float(), None

    def _latent_shape(self, columns: int, rows: int) -> tuple[int, int, int]:
        return MAPS * LATENTS, rows // FACTOR, columns // FACTOR

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        # bfloat16 would send latents to other entries of the codebook.
        return contextlib.nullcontext()

    def _predict(self, latents: Tensor, time: Tensor, index: Tensor, condition: Tensor, scale: float) -> Tensor:
        """The noise in latents (N, 12, h, w) of frequencies ``index`` (N,)."""
        if scale != 1:
            raise ValueError(f"guidance scale is {scale:g}; these weights were trained without guidance, so leave it 1")
        given = torch.cat([latents, condition.expand(len(latents), -1, -1, -1)], 1)
        return self.denoiser(given, time.to(latents.device), class_labels=index).sample.float()

    def _guided(
        self,
        predicted: Tensor,
        latents: Tensor,
        time: Tensor,
        scheduler: Any,
        decode: Callable[[Tensor], Tensor],
        weight: float,
    ) -> Tensor:
        """eps + u sigma grad L_g (equation 5); the gradient is that of the estimated volume, d x0 / d x_t = 1 / alpha.

        Near pure noise the estimate means nothing yet: no guidance there.
        """
        alpha = float(scheduler.alphas_cumprod[int(time)]) ** 0.5
        sigma = (1 - alpha**2) ** 0.5
        if alpha < 0.1:
            return predicted
        with torch.enable_grad():
            clean = ((latents - sigma * predicted) / alpha).detach().requires_grad_()
            energy = loop_energy(decode(clean).float(), self.config.num_frames).sum()
            (gradient,) = torch.autograd.grad(energy, clean)
        return predicted + weight * sigma * gradient / alpha

    def _decode(self, latents: Tensor, volumes: int, envelope: Tensor | None, photo: Tensor | None = None) -> Tensor:
        """Latents (B*K, 12, h, w) -> coefficients (B, K, 4, 4h, 4w) in fractions of sqrt(width * height)."""
        coefficients = self.coefficients(self.decode_maps(latents).unflatten(0, (volumes, -1)))
        return coefficients / math.sqrt(coefficients.shape[-1] * coefficients.shape[-2])

    def decode_maps(self, latents: Tensor) -> Tensor:
        """Latents (N, 12, h, w) -> normalized maps (N, 4, 4h, 4w), re_x, re_y, im_x, im_y."""
        each = latents.unflatten(1, (MAPS, LATENTS)).flatten(0, 1)
        maps = [self.autoencoder.decode(part).sample.mean(1) for part in each.split(_DECODED_AT_ONCE)]
        return torch.cat(maps).unflatten(0, (-1, MAPS))

    def coefficients(self, maps: Tensor) -> Tensor:
        """Normalized maps (B, K, 4, H, W) -> x_re, x_im, y_re, y_im in pixels, as a forward-normalized transform.

        That model transforms frames 1..149 and knows no frame 0; its frame 1 stands for the photo here, from which it
        differs by one frame's motion.
        """
        if self.config.drift_floor is not None:
            median = maps.abs().flatten(-2).median(-1).values[..., None, None]
            shrunk = (maps.abs() - (median - self.config.drift_floor).clamp_min(0)).clamp_min(0)
            maps = maps.sign() * shrunk
        deviation = torch.tensor(self.config.scales, device=maps.device)[:, None, None, None] * self.config.gain
        return (maps * deviation)[..., [0, 2, 1, 3], :, :] / self.config.num_frames

    def _solver(self, name: str, steps: int) -> Any:
        """A fresh scheduler; unlike this project's, this model was sampled with estimates clipped to [-1, 1]."""
        return fresh_solver(self.scheduler, name, steps)
