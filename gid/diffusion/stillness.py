"""Does this photo show something that moves at all? A cup, a guitar and a castle do not, whatever their texture.

The envelope head has seen little that stands still, so red china moves like petals. ImageNet's features know better:
one logistic regression on their mean over the picture tells photographs of plants, flowers, cloth and candles from
photographs of things and buildings. Its odds scale the envelope of the whole picture; where in it things move stays
the envelope's to say (a map of the same regression lowered correlation on training clips, so there is none).

The trunk's own late batch statistics followed the training pictures; the classifier needs ImageNet's, kept here.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from foundation.efficientnet import PYRAMID_CHANNELS, STAGES, EfficientNetLite0, InvertedResidual

LEVEL_CHANNELS = PYRAMID_CHANNELS[-1]
STRIDE = 32


class Stillness(ModelMixin, ConfigMixin):
    """Photo -> how much of its envelope to keep, 1 for what moves, ``least`` for what surely stands still.

    Its weights are 320 numbers and a bias; the features are those of a photo encoder's trunk.
    """

    @register_to_config
    def __init__(self, threshold: float = -1.0, least: float = 0.15) -> None:
        """Build it; without training it lets everything move.

        Args:
            threshold: score (log odds of "moves") under which a picture counts as still.
            least: the smallest factor: who animates a thing all the same still sees something.

        Raises:
            ValueError: if ``least`` is not from 0 to 1.
        """
        super().__init__()
        if not 0 <= least <= 1:
            raise ValueError(f"least is {least}; use 0 (nothing moves) to 1 (no picture is held still)")
        self.weight = nn.Parameter(torch.zeros(LEVEL_CHANNELS))
        self.bias = nn.Parameter(torch.zeros(()))
        channels = sum(late_norm_channels())
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, trunk: EfficientNetLite0, photo: Tensor) -> Tensor:
        """Factors (B,) from ``least`` to 1 for photos (B, 3, H, W) in [0, 1], sides multiples of 32."""
        return self.factor(self.score(self.features(trunk, photo)))

    def factor(self, score: Tensor) -> Tensor:
        """min(1, exp(score - threshold)), at least ``least``: the odds, so that doubt costs little."""
        factor: Tensor = (score - self.config.threshold).clamp_max(0).exp().clamp_min(self.config.least)
        return factor

    def score(self, features: Tensor) -> Tensor:
        """(B, 320) features -> (B,) log odds that the picture moves."""
        # A sum of products, not a matrix product, which autocast would round to bfloat16.
        return (features.float() * self.weight.float()).sum(-1) + self.bias.float()

    @torch.no_grad()
    def features(self, trunk: EfficientNetLite0, photo: Tensor) -> Tensor:
        """(B, 320) means over the picture of the trunk's last level, averaged over the photo and half of it.

        At half its size the trunk sees things whole that are larger than its window, and the other way round.
        """
        height, width = (max(STRIDE, round(side / 2 / STRIDE) * STRIDE) for side in photo.shape[-2:])
        half = F.interpolate(photo, (height, width), mode="bilinear", antialias=True)
        # bfloat16 would move the score by a tenth; this is the cheap part of the pipeline.
        with torch.autocast(photo.device.type, enabled=False):
            levels = [self.last_level(trunk, picture.float()) for picture in (photo, half)]
        return torch.stack([level.mean((2, 3)) for level in levels]).mean(0)

    def last_level(self, trunk: EfficientNetLite0, photo: Tensor) -> Tensor:
        """The trunk's level at stride 32 with the statistics kept here in its late blocks; the trunk stays as it is."""
        x = trunk.early(photo)[-1]
        mean, variance = cast("Tensor", self.mean), cast("Tensor", self.variance)
        sizes = late_norm_channels()
        statistics = iter(zip(mean.split(sizes), variance.split(sizes), strict=True))

        def convolved(part: nn.Module, x: Tensor) -> Tensor:
            convolution, norm = cast("nn.Sequential", part)
            norm = cast("nn.BatchNorm2d", norm)
            means, variances = next(statistics)
            return F.batch_norm(convolution(x), means, variances, norm.weight, norm.bias, False, 0.0, norm.eps)

        for module in trunk.blocks[trunk.early_blocks :]:
            block = cast("InvertedResidual", module)
            hidden = x if block.expand is None else F.relu6(convolved(block.expand, x))
            out = convolved(block.project, F.relu6(convolved(block.depthwise, hidden)))
            x = x + out if block.residual else out
        return x

    @torch.no_grad()
    def keep_statistics(self, trunk: EfficientNetLite0) -> None:
        """Take the late blocks' batch statistics of a trunk, ImageNet's if it is the pretrained one."""
        means, variances = [], []
        for module in trunk.blocks[trunk.early_blocks :]:
            for norm in module.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    means.append(cast("Tensor", norm.running_mean))
                    variances.append(cast("Tensor", norm.running_var))
        cast("Tensor", self.mean).copy_(torch.cat(means))
        cast("Tensor", self.variance).copy_(torch.cat(variances))


def late_norm_channels() -> list[int]:
    """Channels of each batch norm in the trunk's late blocks (past stride 8), in order."""
    found, channels, stage_of_stride_8 = [], 0, 3
    for index, (_, _, expansion, outputs, repeats) in enumerate(STAGES):
        for _ in range(repeats):
            if index >= stage_of_stride_8:
                found += [channels * expansion, channels * expansion, outputs]
            channels = outputs
    return found
