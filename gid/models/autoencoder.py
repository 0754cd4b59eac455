"""The motion autoencoder: each frequency slice of a spectral volume to and from a 4-channel latent (supplement 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import AutoencoderKL, ModelMixin
from torch import Tensor


@dataclass(frozen=True)
class MotionAutoencoderConfig:
    """Sizes of the autoencoder; two halvings, so latents are a quarter of the motion's size.

    Attributes:
        block_out_channels: width at each resolution.
        layers_per_block: residual layers at each resolution.
        latent_channels: channels of the latent.
        norm_num_groups: groups of the group norms.
        mid_block_add_attention: self-attention at the lowest resolution.
    """

    block_out_channels: tuple[int, ...] = (16, 32, 64)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 8
    mid_block_add_attention: bool = False

    @classmethod
    def preset(cls, name: Literal["paper", "small"]) -> MotionAutoencoderConfig:
        """``paper``: base 128 x (1, 2, 4), 55.3M parameters; ``small``: base 16, for two cores."""
        if name == "paper":
            return cls((128, 256, 512), 2, 4, 32, True)
        if name == "small":
            return cls()
        raise ValueError(f"preset {name!r} is unknown; choose 'paper' or 'small'")


class MotionAutoencoder(AutoencoderKL, ModelMixin):
    """``diffusers.AutoencoderKL`` on frequency slices (N, 4, H, W) of normalized coefficients, x_re x_im y_re y_im.

    The diffusion latents are whitened with ``latents_mean`` and ``latents_std`` of the configuration. ModelMixin is a
    base already; it is named because a diffusers pipeline looks for it in the module of each of its parts.
    """

    downsampling = 4

    @classmethod
    def from_preset(cls, config: MotionAutoencoderConfig) -> MotionAutoencoder:
        """Build from a :class:`MotionAutoencoderConfig`."""
        depth = len(config.block_out_channels)
        return cls(
            in_channels=4,
            out_channels=4,
            down_block_types=("DownEncoderBlock2D",) * depth,
            up_block_types=("UpDecoderBlock2D",) * depth,
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_num_groups,
            mid_block_add_attention=config.mid_block_add_attention,
            latents_mean=(0.0,) * config.latent_channels,
            latents_std=(1.0,) * config.latent_channels,
        )

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.config.latents_mean, device=like.device, dtype=like.dtype)
        std = torch.tensor(self.config.latents_std, device=like.device, dtype=like.dtype)
        return mean[:, None, None], std[:, None, None]

    def encode_slices(self, slices: Tensor) -> Tensor:
        """Normalized slices (N, 4, H, W), sides multiples of 4 -> whitened latents (N, 4, H/4, W/4)."""
        latents = self.encode(slices).latent_dist.mode()
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def decode_slices(self, latents: Tensor) -> Tensor:
        """Whitened latents (N, 4, h, w) -> normalized slices (N, 4, 4h, 4w)."""
        mean, std = self._statistics(latents)
        return self.decode(latents * std + mean).sample
