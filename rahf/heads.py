"""Heatmap and score heads on the fused image tokens, laid out as in the public checkpoint."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Root-mean-square norm over channels: x · rsqrt(mean_c x² + 1e-8) · scale, without a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8) * self.scale


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


class HeatmapHead(nn.Module):
    """Feature map -> heatmap: a convolutional stem, then stages that each double the side.

    `stem` and `stages` are the channels after each convolution and each stage.
    """

    def __init__(self, channels: int, stem: Sequence[int], stages: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in stem:
            layers += [_conv3(channels, width), nn.ReLU(), ChannelNorm(width)]
            channels = width
        self.conv_layers = nn.Sequential(*layers)
        self.deconv_layers = nn.ModuleList()
        self.conv_layers2 = nn.ModuleList()
        for width in stages:
            grow = nn.ConvTranspose2d(channels, width, kernel_size=3, stride=2, padding=1, output_padding=1)
            self.deconv_layers.append(nn.Sequential(grow, ChannelNorm(width), nn.ReLU()))
            residual = [_conv3(width, width), ChannelNorm(width), nn.ReLU(), _conv3(width, width), ChannelNorm(width)]
            self.conv_layers2.append(nn.Sequential(*residual))
            channels = width
        self.last_conv1 = _conv3(channels, channels)
        self.last_conv2 = _conv3(channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,g,g) -> (B, g·2^stages, g·2^stages) in (0, 1); 1 is certainly wrong there."""
        x = self.conv_layers(features)
        for grow, residual in zip(self.deconv_layers, self.conv_layers2, strict=True):
            x = grow(x)
            x = torch.relu(residual(x) + x)
        x = torch.relu(self.last_conv1(x))
        return torch.sigmoid(self.last_conv2(x)).squeeze(1)


class ScoreHead(nn.Module):
    """Feature map -> one score: convolutions at the token grid, then a small perceptron over all positions."""

    def __init__(self, width: int, grid: int, channels: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for outputs in channels:
            layers += [_conv3(width, outputs), ChannelNorm(outputs), nn.ReLU()]
            width = outputs
        self.conv_layers = nn.Sequential(*layers)
        inputs = width * grid * grid
        linear: list[nn.Module] = []
        for outputs in hidden:
            linear += [nn.Linear(inputs, outputs), nn.ReLU()]
            inputs = outputs
        self.linear_layers = nn.Sequential(*linear, nn.Linear(inputs, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B,C,g,g) -> (B,) in (0, 1); higher is better."""
        x = self.conv_layers(features).flatten(1)
        return torch.sigmoid(self.linear_layers(x)).squeeze(1)
