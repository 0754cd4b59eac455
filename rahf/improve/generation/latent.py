"""Stable Diffusion and SDXL, with or without inpainting channels, sampled here by DDIM so that every tool can reach in.

One sampler for all tools: with the same seed they begin with the same noise, and what differs is the tool's doing.
A U-Net with mask channels fills masks by itself; with one that has none, what is outside of the mask is put back
after every step, as noisy as the rest ("blending", Avrahami et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rahf.improve.generation.base import Adjust, Generator, Progress, Setting, Step
from rahf.improve.generation.conditioning import Conditioning, embed_prompt
from rahf.improve.generation.schedule import Prediction, Schedule, ddim, interpret, schedule_of
from rahf.improve.generation.windows import shrink_mask

# Latents after step `index` -> latents with what is known put back.
PutBack = Callable[[Tensor, int], Tensor]


class LatentGenerator(Generator):
    """A pipeline with a U-Net on latents, a text encoder and an autoencoder."""

    differentiable = True

    def __init__(self, pipeline: Any, name: str, license: str | None = None) -> None:
        """Take a pipeline of diffusers. Raises ValueError for one that is built otherwise (`is_latent`)."""
        if not is_latent(pipeline):
            raise ValueError(f"{type(pipeline).__name__} is no latent diffusion model of the known kinds")
        self.factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
        self.channels = int(pipeline.vae.config.latent_channels)
        self.fills = int(pipeline.unet.config.in_channels) == 2 * self.channels + 1
        side = int(pipeline.unet.config.sample_size) * self.factor
        super().__init__(pipeline, name, side, True, license)
        for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
            if getattr(pipeline, part, None) is not None:
                getattr(pipeline, part).requires_grad_(False).eval()
        self._products = ddim(pipeline.scheduler).alphas_cumprod.float()
        self._prediction = str(ddim(pipeline.scheduler).config.prediction_type)

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.pipeline.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the network; latents stay in float32."""
        return self.pipeline.unet.dtype

    def embed(self, prompt: str, negative: str = "", side: int | None = None) -> Conditioning:
        """What the network is told of a prompt; a U-Net that inpaints is told that everything is masked."""
        side = self._checked_side(side)
        with torch.no_grad():
            conditioning = embed_prompt(self.pipeline, prompt, negative, side)
            return conditioning.with_extra(self._blank(side)) if self.fills else conditioning

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Prediction:
        """Noise and picture seen in latents (B,c,h,w), differentiable in them; guided by the prompt above 1."""
        output = self._network(latents, timestep, conditioning, guidance)
        return interpret(output, latents, self._products[int(timestep)], self._prediction)

    def alphas(self, steps: int) -> tuple[Tensor, Tensor]:
        """Timesteps (n,) of DDIM, falling, and cumulative products (n+1,): of each of them, and of the picture."""
        schedule = self.schedule(steps)
        return schedule.timesteps, schedule.alphas

    def schedule(self, steps: int) -> Schedule:
        """The same with what the network gives, and how to go on by a step."""
        return schedule_of(self.pipeline.scheduler, steps, self.device)

    def encode(self, picture: Tensor) -> Tensor:
        """(B,3,H,W) in [0, 1] -> latents, the mean of what the autoencoder gives; differentiable."""
        vae = self.pipeline.vae
        latents = vae.encode((2 * picture - 1).to(vae.device, self._vae_dtype())).latent_dist.mode().float()
        shift, scale = self._latent_scale(latents)
        return (latents - shift) * scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> (B,3,H,W) in [0, 1]; differentiable."""
        shift, scale = self._latent_scale(latents)
        pixels = self.pipeline.vae.decode((latents / scale + shift).to(self._vae_dtype()), return_dict=False)[0]
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def initial(self, count: int, seed: int, side: int | None = None) -> Tensor:
        """The noise (count,c,h,w) that `generate` begins with; row i depends on `seed + i` alone."""
        size = self._checked_side(side) // self.factor
        # Drawn on the CPU, so that a seed means the same on every device.
        rows = [
            torch.randn(1, self.channels, size, size, generator=torch.Generator().manual_seed(seed + row))
            for row in range(count)
        ]
        return torch.cat(rows).to(self.device)

    def _draw(
        self, prompt: str, count: int, seed: int, setting: Setting, progress: Progress, adjust: Adjust | None
    ) -> Tensor:
        conditioning = self.embed(prompt, setting.negative, setting.side)
        latents = self.initial(count, seed, setting.side)
        return self._shown(self._sample(latents, conditioning, setting, progress, adjust))

    def _fill(
        self,
        picture: Tensor,
        mask: Tensor,
        prompt: str,
        count: int,
        seed: int,
        setting: Setting,
        progress: Progress,
        adjust: Adjust | None,
    ) -> Tensor:
        schedule, start = self.schedule(setting.steps), _start(setting)
        conditioning = embed_prompt(self.pipeline, prompt, setting.negative, picture.shape[-1])
        noise = self.initial(count, seed, picture.shape[-1])
        hidden = shrink_mask(mask, picture.shape[-1] // self.factor).to(noise)
        whole = self.encode(picture) if start or not self.fills else None
        put_back: PutBack | None = None
        if self.fills:
            grey = torch.where(mask, torch.full_like(picture, 0.5), picture)
            conditioning = conditioning.with_extra(torch.cat([hidden, self.encode(grey)], dim=1))
        elif whole is not None:
            known = whole

            def put_back(latents: Tensor, index: int) -> Tensor:
                return torch.where(hidden > 0.5, latents, schedule.add_noise(known, noise, index + 1))

        latents = noise if whole is None or not start else schedule.add_noise(whole, noise, start)
        return self._shown(self._sample(latents, conditioning, setting, progress, adjust, start, put_back))

    def _sample(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        setting: Setting,
        progress: Progress,
        adjust: Adjust | None,
        start: int = 0,
        put_back: PutBack | None = None,
    ) -> Tensor:
        """DDIM from step `start` on."""
        schedule = self.schedule(setting.steps)
        for index in range(start, setting.steps):

            def advance(before: Tensor, prediction: Prediction, index: int = index) -> Tensor:
                return schedule.advance(before, prediction, index)

            step = Step(
                self,
                latents,
                index,
                setting.steps,
                schedule.timesteps[index],
                schedule.alphas[index],
                schedule.alphas[index + 1],
                conditioning,
                setting.guidance,
                advance,
            )
            latents = adjust(step) if adjust is not None else step.advance(latents, step.predict(latents))
            if put_back is not None:
                latents = put_back(latents, index)
            progress((index + 1 - start) / (setting.steps - start), "drawing")
        return latents

    def _network(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float) -> Tensor:
        guided = guidance > 1
        count = len(latents)
        states, added = conditioning.states(count, guided)
        inputs = torch.cat([latents, latents]) if guided else latents
        if conditioning.extra is not None:
            extra = conditioning.extra.expand(len(inputs), -1, -1, -1)
            inputs = torch.cat([inputs, extra.to(inputs)], dim=1)
        output = self.pipeline.unet(
            inputs.to(self.dtype),
            timestep,
            encoder_hidden_states=states.to(self.dtype),
            added_cond_kwargs={name: value.to(self.dtype) for name, value in added.items()} or None,
            return_dict=False,
        )[0].float()
        if not guided:
            return output
        empty, text = output.chunk(2)
        return empty + guidance * (text - empty)

    def _blank(self, side: int) -> Tensor:
        """The mask of everything, and the latents of a picture of which nothing is known."""
        size = side // self.factor
        latents = self.encode(torch.full((1, 3, side, side), 0.5))
        return torch.cat([torch.ones(1, 1, size, size).to(latents), latents], dim=1)

    def _shown(self, latents: Tensor) -> Tensor:
        """Pictures, after the safety checker of a pipeline that has one."""
        pictures = self.decode(latents)
        if getattr(self.pipeline, "safety_checker", None) is None:
            return pictures
        # The pipeline hands it values in [-1, 1], and blackens what it refuses.
        refused = self.pipeline.run_safety_checker(2 * pictures - 1, pictures.device, self._vae_dtype())[1]
        return pictures * torch.tensor([not one for one in refused]).to(pictures).view(-1, 1, 1, 1)

    def _vae_dtype(self) -> torch.dtype:
        """The autoencoder's number format; in half precision that of SDXL overflows, and is taken up to 32 bits."""
        vae = self.pipeline.vae
        if vae.dtype == torch.float16 and vae.config.get("force_upcast", False):
            vae.to(torch.float32)
        return vae.dtype

    def _latent_scale(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and factor from the autoencoder's latents to the U-Net's."""
        config = self.pipeline.vae.config
        factor = latents.new_tensor(float(config.scaling_factor))
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        if mean is None or deviation is None:
            return latents.new_zeros(()), factor
        return latents.new_tensor(mean).view(1, -1, 1, 1), factor / latents.new_tensor(deviation).view(1, -1, 1, 1)

    def _checked_side(self, side: int | None) -> int:
        """The side of a picture. Raises ValueError for one that latents cannot have."""
        side = side or self.side
        if side % self.factor:
            raise ValueError(f"side is {side}; of {self.name} it must be a multiple of {self.factor} pixels")
        return side

    def _checked(self, prompt: str, count: int, seed: int, setting: Setting | None) -> Setting:
        setting = super()._checked(prompt, count, seed, setting)
        self._checked_side(setting.side)
        return setting


def _start(setting: Setting) -> int:
    """The step that filling a mask begins with. Raises ValueError if none is left."""
    left = min(int(setting.steps * setting.strength), setting.steps)
    if left < 1:
        raise ValueError(
            f"strength is {setting.strength:g}, of which nothing is left in {setting.steps} steps; give more of either"
        )
    return setting.steps - left


def is_latent(pipeline: Any) -> bool:
    """Whether `LatentGenerator` can use a pipeline: a U-Net with latents, and masked latents or none, plain text."""
    unet, vae = getattr(pipeline, "unet", None), getattr(pipeline, "vae", None)
    if unet is None or vae is None or type(vae).__name__ != "AutoencoderKL" or not hasattr(pipeline, "encode_prompt"):
        return False
    config, channels = unet.config, int(vae.config.latent_channels)
    plain = getattr(config, "time_cond_proj_dim", None) is None and not getattr(
        pipeline.config, "requires_aesthetics_score", False
    )
    kinds = (None, "text_time")
    known = getattr(config, "addition_embed_type", None) in kinds and config.in_channels in (channels, 2 * channels + 1)
    try:
        ddim(pipeline.scheduler)
    except ValueError:
        return False
    return plain and known and type(unet).__name__ == "UNet2DConditionModel"
