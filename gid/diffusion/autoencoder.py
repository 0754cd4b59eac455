"""The motion autoencoder: each frequency slice of a spectral volume to and from a 4-channel latent (supplement 4.1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn


@dataclass(frozen=True)
class MotionAutoencoderConfig:
    """Sizes of the autoencoder; two halvings, so latents are a quarter of the motion's size.

    Attributes:
        block_out_channels: width at each resolution.
        layers_per_block: residual layers at each resolution.
        latent_channels: channels of the latent.
        norm_num_groups: groups of the group norms.
        mid_block_add_attention: self-attention at the lowest resolution.
        residual: the latent is the slice's block mean plus what the encoder adds, the reconstruction is the latent
            interpolated plus what the decoder adds. Motion is smooth inside objects, so the networks only have their
            edges to learn, which takes minutes instead of hours. Needs 4 latent channels.
    """

    block_out_channels: tuple[int, ...] = (16, 32, 64)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 8
    mid_block_add_attention: bool = False
    residual: bool = True

    @classmethod
    def preset(cls, name: Literal["paper", "small"]) -> MotionAutoencoderConfig:
        """``paper``: base 128 x (1, 2, 4), 55.3M parameters; ``small``: base 16, for two cores.

        Raises:
            ValueError: for another name.
        """
        if name == "paper":
            return cls((128, 256, 512), 2, 4, 32, True, residual=False)
        if name == "small":
            return cls()
        raise ValueError(f"preset {name!r} is unknown; choose 'paper' or 'small'")


class MotionAutoencoder(ModelMixin, ConfigMixin):
    """``diffusers.AutoencoderKL`` on frequency slices (N, 4, H, W) of normalized coefficients, x_re x_im y_re y_im.

    The diffusion latents are whitened with ``latents_mean`` and ``latents_std`` of the configuration.
    """

    downsampling = 4

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (16, 32, 64),
        layers_per_block: int = 1,
        latent_channels: int = 4,
        norm_num_groups: int = 8,
        mid_block_add_attention: bool = False,
        residual: bool = True,
        latents_mean: tuple[float, ...] = (0.0,) * 4,
        latents_std: tuple[float, ...] = (1.0,) * 4,
    ) -> None:
        super().__init__()
        if len(block_out_channels) != 3:
            raise ValueError(f"{len(block_out_channels)} widths given; two halvings take 3")
        if residual and latent_channels != 4:
            raise ValueError(f"{latent_channels} latent channels given; a residual autoencoder needs 4, as slices have")
        self.vae = AutoencoderKL(
            in_channels=4,
            out_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            norm_num_groups=norm_num_groups,
            mid_block_add_attention=mid_block_add_attention,
        )
        if residual:
            for layer in (self.vae.encoder.conv_out, self.vae.decoder.conv_out):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
            # A near-certain posterior to begin with: unit variance would drown the block means in noise.
            nn.init.constant_(self.vae.quant_conv.bias[latent_channels:], -8.0)

    @classmethod
    def from_preset(cls, config: MotionAutoencoderConfig) -> MotionAutoencoder:
        """Build from a :class:`MotionAutoencoderConfig`."""
        fields: dict[str, Any] = asdict(config)
        return cls(**fields)

    def posterior(self, slices: Tensor) -> DiagonalGaussianDistribution:
        """Slices (N, 4, H, W), sides multiples of 4 -> the distribution of their latents (N, C, H/4, W/4)."""
        distribution = self.vae.encode(slices).latent_dist
        if not self.config.residual:
            return distribution
        mean = distribution.mean + F.avg_pool2d(slices, self.downsampling).to(distribution.mean.dtype)
        return DiagonalGaussianDistribution(torch.cat([mean, distribution.logvar], dim=1))

    def reconstruct(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w), not whitened -> slices (N, 4, 4h, 4w)."""
        slices = self.vae.decode(latents).sample
        if not self.config.residual:
            return slices
        return slices + F.interpolate(latents, scale_factor=self.downsampling, mode="bilinear").to(slices.dtype)

    def encode_slices(self, slices: Tensor) -> Tensor:
        """Normalized slices (N, 4, H, W), sides multiples of 4 -> whitened latents (N, 4, H/4, W/4)."""
        latents = self.posterior(slices).mode()
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def decode_slices(self, latents: Tensor) -> Tensor:
        """Whitened latents (N, 4, h, w) -> normalized slices (N, 4, 4h, 4w)."""
        mean, std = self._statistics(latents)
        return self.reconstruct(latents * std + mean)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.config.latents_mean, device=like.device, dtype=like.dtype)
        std = torch.tensor(self.config.latents_std, device=like.device, dtype=like.dtype)
        return mean[:, None, None], std[:, None, None]
