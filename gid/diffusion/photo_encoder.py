"""The photo encoder: what the denoiser is told about the photo, and how far each pixel moves.

The paper feeds the photo through a ResNet to 16 channels at latent size (supplement 4.1). That is the ``paper`` preset.
The ``small`` preset starts from ImageNet features instead, which matter more than anything else when real clips are
few, and adds an *envelope head*: one pass from the photo to the amplitude envelope E(p) of its motion. Diffusion then
only has to supply the unit-energy volume (see :mod:`gid.motion.normalization`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.resnet import Downsample2D, ResnetBlock2D
from torch import Tensor, nn

from foundation.efficientnet import PYRAMID_CHANNELS, EfficientNetLite0

# log of the envelope, as a fraction of sqrt(width * height): what the head's zero and unit output mean.
LOG_ENVELOPE_FLOOR = -8.1
LOG_ENVELOPE_MEAN = -6.5
LOG_ENVELOPE_STD = 1.5
# The head cannot say less than the floor, and near it cannot tell motion from noise: up to here, pictures stand still.
STILL_ENVELOPE = 2 * math.exp(LOG_ENVELOPE_FLOOR)
# A mean of logs over heads that disagree is less than any of them: unseen pictures would move too little.
ENVELOPE_GAIN = 1.3


def envelope_from_log(log_envelope: Tensor) -> Tensor:
    """The head's log envelope -> amplitude envelope, a fraction of sqrt(width * height), exactly 0 where all is still.

    On left-out clips, taking twice the floor away lowers the median background leakage from 0.41 to 0.17 and the
    correlation of motion energy by 0.004.
    """
    return ENVELOPE_GAIN * (log_envelope.float().exp() - STILL_ENVELOPE).clamp_min(0)


@dataclass(frozen=True)
class PhotoEncoderConfig:
    """Sizes of the photo encoder.

    Attributes:
        backbone: ``efficientnet-lite0`` (stride 16 to the condition) or ``resnet`` (stride 4).
        base_channels: width of the ResNet, or of the envelope head's decoder.
        condition_channels: channels of the condition at latent size.
        envelope: whether there is an envelope head.
        dropout: of feature channels while the envelope head trains.
        envelope_strides: levels of the trunk that the envelope head reads, finest first, of 4, 8, 16 and 32.
        relative: share of each feature's mean over the picture that is taken away before the envelope head sees it.
        members: envelope heads, each trained on its own, whose log envelopes are averaged.
    """

    backbone: Literal["efficientnet-lite0", "resnet"] = "efficientnet-lite0"
    base_channels: int = 64
    condition_channels: int = 32
    envelope: bool = True
    dropout: float = 0.2
    envelope_strides: tuple[int, ...] = (4, 8, 16, 32)
    relative: float = 0.0
    members: int = 1

    @classmethod
    def preset(cls, name: Literal["paper", "small"]) -> PhotoEncoderConfig:
        """``paper``: ResNet to 16 channels; ``small``: pretrained features and an envelope head."""
        if name == "paper":
            return cls(backbone="resnet", base_channels=128, condition_channels=16, envelope=False, dropout=0.0)
        if name == "small":
            return cls()
        raise ValueError(f"preset {name!r} is unknown; choose 'paper' or 'small'")


@dataclass(frozen=True)
class PhotoFeatures:
    """What the encoder says of a batch of photos.

    Attributes:
        condition: (B, C, h, w) at latent size, for the denoiser.
        log_envelope: (B, 1, 4h, 4w) at motion size: log of the amplitude envelope as a fraction of
            sqrt(width * height); None without an envelope head.
    """

    condition: Tensor
    log_envelope: Tensor | None


class PhotoEncoder(ModelMixin, ConfigMixin):
    """Photo (B, 3, H, W) in [0, 1] -> :class:`PhotoFeatures`. Sides must be multiples of ``stride``."""

    @register_to_config
    def __init__(
        self,
        backbone: str = "efficientnet-lite0",
        base_channels: int = 64,
        condition_channels: int = 32,
        envelope: bool = True,
        dropout: float = 0.2,
        envelope_strides: tuple[int, ...] = (4, 8, 16, 32),
        relative: float = 0.0,
        members: int = 1,
    ) -> None:
        super().__init__()
        if backbone == "efficientnet-lite0":
            self.trunk: EfficientNetLite0 | _ResNetTrunk = EfficientNetLite0()
            self.condition: nn.Module = nn.Sequential(
                nn.Conv2d(sum(PYRAMID_CHANNELS[2:]) + int(envelope), 2 * condition_channels, 1),
                nn.SiLU(),
                nn.Conv2d(2 * condition_channels, condition_channels, 3, padding=1),
            )
        elif backbone == "resnet":
            if envelope:
                raise ValueError("the envelope head needs backbone='efficientnet-lite0'; set envelope=False")
            self.trunk = _ResNetTrunk(base_channels)
            self.condition = nn.Conv2d(base_channels, condition_channels, 3, padding=1)
        else:
            raise ValueError(f"backbone {backbone!r} is unknown; choose 'efficientnet-lite0' or 'resnet'")
        self.envelope_head: EnvelopeHead | EnvelopeEnsemble | None = None
        if envelope:
            heads = [EnvelopeHead(base_channels, dropout, tuple(envelope_strides), relative) for _ in range(members)]
            self.envelope_head = heads[0] if members == 1 else EnvelopeEnsemble(heads)

    @classmethod
    def from_preset(cls, config: PhotoEncoderConfig) -> PhotoEncoder:
        """Build from a :class:`PhotoEncoderConfig`."""
        fields: dict[str, Any] = asdict(config)
        return cls(**fields)

    @property
    def stride(self) -> int:
        """Photo sides must be multiples of this."""
        return 32 if isinstance(self.trunk, EfficientNetLite0) else 4

    @property
    def photo_scale(self) -> int:
        """Photo size over motion size: how much finer the encoder sees than the motion is sampled."""
        return 4 if isinstance(self.trunk, EfficientNetLite0) else 1

    def forward(self, photo: Tensor) -> PhotoFeatures:
        """Encode photos.

        Raises:
            ValueError: if a side is not a multiple of :attr:`stride`.
        """
        if photo.shape[-2] % self.stride or photo.shape[-1] % self.stride:
            size = f"{photo.shape[-1]}x{photo.shape[-2]}"
            raise ValueError(f"photo is {size}; both sides must be multiples of {self.stride}: resize it first")
        if not isinstance(self.trunk, EfficientNetLite0):
            return PhotoFeatures(self.condition(self.trunk(photo * 2 - 1)), None)
        return self.from_levels(self.trunk(photo))

    def levels_from(self, stride4: Tensor, stride8: Tensor) -> list[Tensor]:
        """The trunk's five levels from the early ones that training keeps; the first, which nothing reads, is empty.

        Raises:
            ValueError: if the backbone has no such levels.
        """
        if not isinstance(self.trunk, EfficientNetLite0):
            raise ValueError("early levels belong to backbone='efficientnet-lite0'; this encoder has a ResNet")
        return [stride4[:, :0], stride4, stride8, *self.trunk.late(stride8)]

    def envelope_from_early(self, stride4: Tensor, stride8: Tensor) -> Tensor:
        """:meth:`log_envelope` from the early levels that training keeps, no deeper than the envelope heads look.

        Raises:
            ValueError: if the backbone has no such levels, or there is no envelope head.
        """
        if not isinstance(self.trunk, EfficientNetLite0):
            raise ValueError("early levels belong to backbone='efficientnet-lite0'; this encoder has a ResNet")
        deeper = {4: 0, 8: 0, 16: 1, 32: 2}[max(self.config.envelope_strides)]
        late = self.trunk.late(stride8, deeper) if deeper else []
        return self.log_envelope([stride4[:, :0], stride4, stride8, *late])

    def log_envelope(self, levels: list[Tensor]) -> Tensor:
        """(B, 1, H/4, W/4) log envelope from the trunk's levels.

        Raises:
            ValueError: if there is no envelope head.
        """
        if self.envelope_head is None:
            raise ValueError("this encoder has no envelope head; build it with envelope=True")
        predicted: Tensor = self.envelope_head(levels)
        return predicted

    def from_levels(self, levels: list[Tensor]) -> PhotoFeatures:
        """Condition and envelope from the trunk's five levels."""
        log_envelope = None if self.envelope_head is None else self.log_envelope(levels)
        pooled = None if log_envelope is None else F.avg_pool2d(log_envelope.detach(), 4)
        condition = self.condition_from(F.avg_pool2d(levels[2], 2), levels[3], levels[4], pooled)
        return PhotoFeatures(condition, log_envelope)

    def condition_from(self, level8: Tensor, level16: Tensor, level32: Tensor, log_envelope: Tensor | None) -> Tensor:
        """The denoiser's condition at stride 16, told the envelope its volume will be multiplied with.

        Args:
            level8: (B, 40, h, w) trunk level at stride 8, averaged to stride 16.
            level16: (B, 112, h, w).
            level32: (B, 320, h/2, w/2).
            log_envelope: (B, 1, h, w) averaged to stride 16; None without an envelope head.
        """
        maps = [level8, level16, F.interpolate(level32, level16.shape[-2:], mode="bilinear")]
        if log_envelope is not None:
            maps.append((log_envelope - LOG_ENVELOPE_MEAN) / LOG_ENVELOPE_STD)
        return self.condition(torch.cat(maps, dim=1))


class EnvelopeHead(nn.Module):
    """Feature pyramid -> log of the amplitude envelope at stride 4, from coarse to fine."""

    def __init__(self, channels: int, dropout: float, strides: tuple[int, ...], relative: float) -> None:
        super().__init__()
        if not strides or list(strides) != sorted(set(strides)) or not set(strides) <= {4, 8, 16, 32}:
            raise ValueError(f"envelope_strides are {strides}; give some of 4, 8, 16, 32 in this order")
        self.levels = [stride.bit_length() - 2 for stride in strides]
        self.stride = strides[0]
        self.relative = relative
        self.laterals = nn.ModuleList(nn.Conv2d(PYRAMID_CHANNELS[level], channels, 1) for level in self.levels)
        self.dropout = nn.Dropout2d(dropout)
        self.mix = nn.ModuleList(_Mix(channels) for _ in self.levels)
        self.out = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Five levels -> (B, 1, H/4, W/4), at least LOG_ENVELOPE_FLOOR."""
        x: Tensor | None = None
        for i in reversed(range(len(self.levels))):
            features = levels[self.levels[i]]
            if self.relative:
                features = features - self.relative * features.mean((2, 3), keepdim=True)
            fine = self.laterals[i](self.dropout(features))
            x = self.mix[i](fine if x is None else fine + F.interpolate(x, fine.shape[-2:], mode="bilinear"))
        log_envelope = self.out(x) * LOG_ENVELOPE_STD + LOG_ENVELOPE_MEAN
        if self.stride > 4:
            log_envelope = F.interpolate(log_envelope, scale_factor=self.stride / 4, mode="bilinear")
        return log_envelope.clamp_min(LOG_ENVELOPE_FLOOR)


class EnvelopeEnsemble(nn.Module):
    """The mean of several heads' log envelopes: what only one of them believes hardly counts."""

    def __init__(self, heads: list[EnvelopeHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Five levels -> (B, 1, H/4, W/4)."""
        return torch.stack([head(levels) for head in self.heads]).mean(0)


class _Mix(nn.Module):
    """Residual: norm, depthwise 5x5 (a wide look for few weights), pointwise, SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.silu(self.depthwise(self.norm(x))))


class _ResNetTrunk(nn.Module):
    """Two halvings of residual blocks: photo in [-1, 1] to ``channels`` maps at a quarter of its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1)]
        for level in range(3):
            layers += [ResnetBlock2D(in_channels=channels, temb_channels=None) for _ in range(2)]
            if level < 2:
                layers.append(Downsample2D(channels, use_conv=True))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, None) if isinstance(layer, ResnetBlock2D) else layer(x)
        return x
