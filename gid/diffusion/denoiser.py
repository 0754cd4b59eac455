"""The denoiser: a 2D U-Net on frequency slices, coordinated across frequencies (paper, section 4.2).

A single-slice U-Net is told its frequency by an embedding added to the time embedding. *Frequency attention* follows
each residual layer: at every position the K slices of one photo look at one another. It enters as an identity, so the
single-slice model can be trained first, then frozen while only the attention is fine-tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

# Three blocks of the shared encoder (`foundation.features.LAYERS`), 384 channels each.
TOKEN_CHANNELS = 1152
# The condition's scale of the log envelope: a fiftieth of the largest motion and less count as still.
ENVELOPE_DEPTH = -4.0


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of the denoiser.

    Attributes:
        num_bands: K, the frequency slices of a volume.
        latent_channels: channels of a slice's latent.
        condition_channels: channels of the photo's condition, concatenated with the latent.
        block_out_channels: width at each resolution.
        layers_per_block: residual layers at each resolution.
        attention_head_dim: width of an attention head, in space and across frequencies.
        norm_num_groups: groups of the group norms.
        spatial_attention: per resolution, whether there is self-attention in space.
        frequency_attention: whether there is attention across the bands.
        token_channels: channels of the shared encoder's tokens that the condition is made of; 0 if the photo encoder
            makes the condition.
    """

    num_bands: int = 16
    latent_channels: int = 4
    condition_channels: int = 32
    block_out_channels: tuple[int, ...] = (64, 96, 128)
    layers_per_block: int = 1
    attention_head_dim: int = 32
    norm_num_groups: int = 16
    spatial_attention: tuple[bool, ...] = (False, True, True)
    frequency_attention: bool = True
    token_channels: int = 0

    @classmethod
    def preset(cls, name: Literal["paper", "small"]) -> DenoiserConfig:
        """``paper``: base 128 x (1, 4, 8) and a 16-channel condition; ``small``: for two cores.

        Raises:
            ValueError: for another name.
        """
        if name == "paper":
            return cls(
                condition_channels=16,
                block_out_channels=(128, 512, 1024),
                layers_per_block=2,
                norm_num_groups=32,
                spatial_attention=(False, True, True),
            )
        if name == "small":
            return cls(token_channels=TOKEN_CHANNELS)
        raise ValueError(f"preset {name!r} is unknown; choose 'paper' or 'small'")


class PhotoCondition(nn.Module):
    """What the denoiser is told of a photo: tokens of the shared encoder, and where motion is expected.

    The envelope enters relative to its largest value, so that the strength of a motion does not change its shape.
    """

    def __init__(self, token_channels: int, condition_channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.layers = nn.Sequential(
            nn.Conv2d(token_channels + 1, 3 * condition_channels, 1),
            nn.SiLU(),
            nn.Conv2d(3 * condition_channels, condition_channels, 3, padding=1),
        )

    def forward(self, tokens: Tensor, log_envelope: Tensor) -> Tensor:
        """Tokens (B, C, rows, columns) and log envelope (B, 1, h, w) at latent size -> condition (B, D, h, w)."""
        tokens = F.layer_norm(tokens.movedim(1, -1), tokens.shape[1:2]).movedim(-1, 1)
        if tokens.shape[-2:] != log_envelope.shape[-2:]:
            tokens = F.interpolate(tokens, log_envelope.shape[-2:], mode="bilinear", antialias=True)
        relative = log_envelope - log_envelope.amax(dim=(1, 2, 3), keepdim=True)
        relative = relative.clamp_min(ENVELOPE_DEPTH) * (2 / -ENVELOPE_DEPTH) + 1  # [-1, 1]
        return self.layers(torch.cat([self.dropout(tokens), relative], dim=1))


class FrequencyAttention(nn.Module):
    """Residual self-attention among the K slices of each photo, at every position on its own."""

    def __init__(self, channels: int, num_bands: int, head_dim: int) -> None:
        super().__init__()
        self.num_bands = num_bands
        self.heads = max(1, channels // head_dim)
        self.norm = nn.LayerNorm(channels)
        self.position = nn.Parameter(torch.randn(num_bands, channels) * 0.02)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)  # an identity until it is trained
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B*K, C, H, W), the K slices of a photo side by side -> the same shape."""
        count, channels, height, width = x.shape
        tokens = x.unflatten(0, (-1, self.num_bands)).permute(0, 3, 4, 1, 2)  # B H W K C
        tokens = (self.norm(tokens) + self.position).flatten(0, 2)
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        mixed = self.out(mixed.transpose(1, 2).flatten(2))
        mixed = mixed.unflatten(0, (-1, height, width)).permute(0, 3, 4, 1, 2).reshape(count, channels, height, width)
        return x + mixed


class _Coordinated(nn.Module):
    """A spatial residual layer of the U-Net, followed by frequency attention."""

    def __init__(self, spatial: nn.Module, attention: FrequencyAttention) -> None:
        super().__init__()
        self.spatial = spatial
        self.attention = attention
        self.coordinate = True

    def forward(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        hidden_states = self.spatial(hidden_states, temb)
        return self.attention(hidden_states) if self.coordinate else hidden_states


class SpectralDenoiser(ModelMixin, ConfigMixin):
    """Noisy latents of frequency slices, a time and the photo's condition -> the scheduler's prediction.

    The prediction is what the pipeline's scheduler says (noise, v or x0).
    """

    @register_to_config
    def __init__(
        self,
        num_bands: int = 16,
        latent_channels: int = 4,
        condition_channels: int = 32,
        block_out_channels: tuple[int, ...] = (64, 96, 128),
        layers_per_block: int = 1,
        attention_head_dim: int = 32,
        norm_num_groups: int = 16,
        spatial_attention: tuple[bool, ...] = (False, True, True),
        frequency_attention: bool = True,
        token_channels: int = 0,
    ) -> None:
        super().__init__()
        self.photo_condition = PhotoCondition(token_channels, condition_channels) if token_channels else None
        self.unet = UNet2DModel(
            in_channels=latent_channels + condition_channels,
            out_channels=latent_channels,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in spatial_attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(spatial_attention)),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            attention_head_dim=attention_head_dim,
            norm_num_groups=norm_num_groups,
            num_class_embeds=num_bands,
        )
        # The null condition of classifier-free guidance, learned while the photo is dropped in training.
        self.null_condition = nn.Parameter(torch.zeros(condition_channels, 1, 1))
        if frequency_attention:
            blocks = [*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks]
            for block in blocks:
                for i, layer in enumerate(block.resnets):
                    attention = FrequencyAttention(layer.out_channels, num_bands, attention_head_dim)
                    block.resnets[i] = _Coordinated(layer, attention)

    @classmethod
    def from_preset(cls, config: DenoiserConfig) -> SpectralDenoiser:
        """Build from a :class:`DenoiserConfig`."""
        fields: dict[str, Any] = asdict(config)
        return cls(**fields)

    def coordinate(self, enabled: bool) -> None:
        """Switch frequency attention on or off: off, slices are denoised independently (the paper's ablation)."""
        for module in self.modules():
            if isinstance(module, _Coordinated):
                module.coordinate = enabled

    def attention_parameters(self) -> Iterator[nn.Parameter]:
        """The weights of frequency attention: what the second stage trains."""
        for module in self.modules():
            if isinstance(module, FrequencyAttention):
                yield from module.parameters()

    def forward(self, latents: Tensor, timestep: Tensor, bands: Tensor, condition: Tensor) -> Tensor:
        """Predict for a batch of slices.

        Args:
            latents: (N, C, h, w) noisy latents; for frequency attention N = B*K with the K slices of a photo in order.
            timestep: (N,) steps of the scheduler.
            bands: (N,) frequency index of every slice.
            condition: (N, D, h, w) photo condition of every slice.
        """
        x = torch.cat([latents, condition.to(latents.dtype)], dim=1)
        return self.unet(x, timestep, class_labels=bands, return_dict=False)[0]
