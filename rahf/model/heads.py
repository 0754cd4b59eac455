"""Heatmap and score heads on the fused image tokens, laid out as in the public checkpoint.

Without gradients, on a processor, they run channels-last and in place: there the norms, which only move memory, would
otherwise cost as much as a good part of the convolutions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EPSILON = 1e-8
# Values that an in-place norm works on at once: 4 MB, which the cache that cores share holds. With smaller pieces the
# threads would wait for each other more often than they work.
CHUNK = 2**20


class ChannelNorm(nn.Module):
    """Root-mean-square norm over channels: x · rsqrt(mean_c x² + 1e-8) · scale, without a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON) * self.scale

    def normalise_(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """The same in place, with a residual added and negative values cut behind it, in one pass over the memory.

        x, residual: (B,C,H,W) channels-last. Works in float32 inside whatever their type, so that a half type is
        rounded once.
        """
        channels = x.shape[1]
        rows = x.permute(0, 2, 3, 1).view(-1, channels)
        added = residual.permute(0, 2, 3, 1).view(-1, channels) if residual is not None else None
        scale, step = self.scale.view(1, -1).float(), max(CHUNK // channels, 1)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            work = part.float()  # the part itself if it is float32 already
            length = torch.linalg.vector_norm(work, dim=1, keepdim=True)
            work.mul_(torch.rsqrt(length.square_().div_(channels).add_(EPSILON))).mul_(scale)
            if added is not None:
                work.add_(added[start : start + step])
            if relu:
                work.relu_()
            if work is not part:
                part.copy_(work)
        return x


def _lean(x: Tensor) -> bool:
    """Whether to run in place: no gradient is wanted, and the tensor is in a processor's memory."""
    return not torch.is_grad_enabled() and x.device.type == "cpu"


def _run(layers: nn.Module, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """`layers` in place; with a residual, which is added behind the last one, and cut off below 0.

    The first layer is a convolution, so that the caller's `x` stays as it is.
    """
    steps = list(layers.children())
    for place, step in enumerate(steps):
        behind = steps[place + 1] if place + 1 < len(steps) else None
        if isinstance(step, ChannelNorm):
            last = behind is None and residual is not None
            x = step.normalise_(x, residual if last else None, relu=last or isinstance(behind, nn.ReLU))
        elif not isinstance(step, nn.ReLU):
            x = step(x).contiguous(memory_format=torch.channels_last)
        elif not isinstance(steps[place - 1], ChannelNorm):  # else it is done already
            x = x.relu_()
    return x


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
        if _lean(features):
            return self._forward_lean(features)
        x = self.conv_layers(features)
        for grow, residual in zip(self.deconv_layers, self.conv_layers2, strict=True):
            x = grow(x)
            x = torch.relu(residual(x) + x)
        x = torch.relu(self.last_conv1(x))
        return torch.sigmoid(self.last_conv2(x)).squeeze(1)

    def _forward_lean(self, features: Tensor) -> Tensor:
        x = _run(self.conv_layers, features.contiguous(memory_format=torch.channels_last))
        for grow, residual in zip(self.deconv_layers, self.conv_layers2, strict=True):
            x = _run(grow, x)
            x = _run(residual, x, residual=x)
        x = self.last_conv1(x).relu_()
        return self.last_conv2(x).sigmoid_().squeeze(1)


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
        if _lean(features):
            x = _run(self.conv_layers, features.contiguous(memory_format=torch.channels_last)).flatten(1)
        else:
            x = self.conv_layers(features).flatten(1)
        return torch.sigmoid(self.linear_layers(x)).squeeze(1)
