"""The released RAHF model as its description reads, in plain float32 torch: the peer that rahf's speed is held against.

ViT and T5 are transformers' own, as in the release; the heads are written line by line. Every output is computed: two
heatmaps, four scores, and the teacher-forced words. It borrows the weights of a `RAHF` of the same layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rahf.model.config import HEATMAPS, SCORES
from rahf.model.rahf import RAHF


class PlainNorm(nn.Module):
    """x · rsqrt(mean over channels of x² + 1e-8) · scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8) * self.scale


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class PlainHeatmapHead(nn.Module):
    """Two convolutions, four upsampling stages with a residual block each, two convolutions, sigmoid."""

    def __init__(self, channels: int, stem: tuple[int, ...], stages: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in stem:
            layers += [conv(channels, width), nn.ReLU(), PlainNorm(width)]
            channels = width
        self.conv_layers = nn.Sequential(*layers)
        self.deconv_layers, self.conv_layers2 = nn.ModuleList(), nn.ModuleList()
        for width in stages:
            grow = nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1)
            self.deconv_layers.append(nn.Sequential(grow, PlainNorm(width), nn.ReLU()))
            block = [conv(width, width), PlainNorm(width), nn.ReLU(), conv(width, width), PlainNorm(width)]
            self.conv_layers2.append(nn.Sequential(*block))
            channels = width
        self.last_conv1, self.last_conv2 = conv(channels, channels), conv(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_layers(x)
        for grow, block in zip(self.deconv_layers, self.conv_layers2, strict=True):
            x = grow(x)
            x = torch.relu(block(x) + x)
        return torch.sigmoid(self.last_conv2(torch.relu(self.last_conv1(x))))[:, 0]


class PlainScoreHead(nn.Module):
    """Convolutions at the token grid, a perceptron over all positions, sigmoid."""

    def __init__(self, channels: int, grid: int, widths: tuple[int, ...], hidden: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [conv(channels, width), PlainNorm(width), nn.ReLU()]
            channels = width
        self.conv_layers = nn.Sequential(*layers)
        inputs, linear = channels * grid**2, []
        for width in hidden:
            linear += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        self.linear_layers = nn.Sequential(*linear, nn.Linear(inputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.linear_layers(self.conv_layers(x).flatten(1)))[:, 0]


class PlainRAHF(nn.Module):
    """The multi-head variant around the towers and the weights of `model`."""

    def __init__(self, model: RAHF) -> None:
        super().__init__()
        config = model.config
        self.vit, self.t5, self.projection = model.vit, model.t5, model.visual_token_projection
        self.grid, self.width = config.grid, config.text_width
        with torch.device("meta"):
            self.heatmaps = nn.ModuleDict(
                {name: PlainHeatmapHead(self.width, config.heatmap_stem, config.heatmap_stages) for name in HEATMAPS}
            )
            self.scores = nn.ModuleDict(
                {
                    name: PlainScoreHead(self.width, self.grid, config.score_channels, config.score_hidden)
                    for name in SCORES
                }
            )
        self.heatmaps.load_state_dict(_detached(model.heatmap_predictor), assign=True)
        self.scores.load_state_dict(_detached(model.score_predictor), assign=True)

    @torch.no_grad()
    def forward(self, image: Tensor, ids: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """image (B,3,S,S) in [0, 1]; ids (B,L) without padding; targets (B,T)."""
        visual = self.projection(self.vit(pixel_values=(image - 0.5) / 0.5).last_hidden_state)
        tokens = torch.cat([visual, self.t5.shared(ids)], dim=1)
        hidden = self.t5.encoder(inputs_embeds=tokens).last_hidden_state
        count = self.grid**2 + 1
        features = hidden[:, 1:count].transpose(1, 2).reshape(len(image), self.width, self.grid, self.grid)
        found = {name: head(features) for name, head in [*self.heatmaps.items(), *self.scores.items()]}
        shifted = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
        written = self.t5.decoder(input_ids=shifted, encoder_hidden_states=hidden[:, count:], use_cache=False)
        found["words"] = self.t5.lm_head(written.last_hidden_state * self.width**-0.5)
        return found


def _detached(module: nn.Module) -> Mapping[str, Any]:
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}
