"""The image tower of the `small` preset: a pretrained feature pyramid in place of a ViT's first layers.

A ViT learns what is in a picture from hundreds of millions of them. Where there are only composed scenes to train on,
EfficientNet-Lite0's ImageNet features (see `foundation.efficientnet`) know objects already; the fusing encoder does the
rest. Convolutional features as the tokens of a transformer are the "hybrid" of the ViT paper (Dosovitskiy et al. 2021,
section 3.1).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.efficientnet import PYRAMID_CHANNELS, EfficientNetLite0

STRIDE = 16
_FINE, _MIDDLE, _COARSE = PYRAMID_CHANNELS[2:]  # at strides 8, 16 and 32


class PyramidTower(nn.Module):
    """Pixels -> a class token and one token for each 16x16 patch, from the levels at strides 8, 16 and 32.

    The layers up to stride 8 stay as they were pretrained, and so do all running statistics: batches here are too small
    to measure them again.
    """

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.trunk = EfficientNetLite0()
        self.project = nn.Linear(4 * _FINE + _MIDDLE + _COARSE, width)
        self.summarise = nn.Linear(_COARSE, width)
        self.positions = nn.Parameter(torch.zeros(1, grid * grid, width))
        self.norm = nn.LayerNorm(width)
        early = [self.trunk.stem, *self.trunk.blocks[: self.trunk.early_blocks]]
        for module in early:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """(B,3,S,S) in [0, 1] -> (B,1+g·g,width), the class token first."""
        return self.tokens(images, self.positions)

    def part(self, images: Tensor, corner: tuple[int, int]) -> Tensor:
        """The tokens of smaller pictures that lie at `corner` (row, column) of the grid."""
        grid, side = math.isqrt(self.positions.shape[1]), images.shape[-1] // STRIDE
        row, column = corner
        window = self.positions.unflatten(1, (grid, grid))[:, row : row + side, column : column + side]
        return self.tokens(images, window.flatten(1, 2))

    def tokens(self, images: Tensor, positions: Tensor) -> Tensor:
        """(B,3,H,W) in [0, 1] and the positions (1,N,width) of its patches -> (B,1+N,width)."""
        # The early layers are not trained; who wants the gradient of the pixels gets it through them all the same.
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            fine = self.trunk.early(images)[-1]
        middle, coarse = self.trunk.late(fine)
        levels = [
            F.pixel_unshuffle(fine, 2),
            middle,
            F.interpolate(coarse, size=middle.shape[-2:], mode="bilinear", align_corners=False),
        ]
        tokens = self.project(torch.cat(levels, dim=1).flatten(2).transpose(1, 2)) + positions
        summary = self.summarise(coarse.mean(dim=(2, 3)))[:, None]
        return self.norm(torch.cat([summary, tokens], dim=1))

    def train(self, mode: bool = True) -> "PyramidTower":
        """As for any module, but the trunk's batch statistics stay as they are."""
        super().train(mode)
        self.trunk.eval()
        return self
