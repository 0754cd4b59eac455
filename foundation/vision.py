"""A vision transformer as DINOv2 has it, forward only, with the names of transformers' ``Dinov2Model``.

transformers' own class computes the same (a test compares them), but importing it takes two seconds of processor time:
torch's compiler, generation and losses come with it. Whoever starts a command or the page would wait for those.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the transformer.

    Attributes:
        hidden_size: channels of a token.
        num_hidden_layers: blocks.
        num_attention_heads: divides the channels.
        patch_size: side of a patch, pixels.
        image_size: side of the square pictures that positions were learned on.
        mlp_ratio: width of the hidden layer over the channels.
        layer_norm_eps: added to variances.
    """

    hidden_size: int = 384
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    patch_size: int = 14
    image_size: int = 518
    mlp_ratio: int = 4
    layer_norm_eps: float = 1e-6


class VisionTransformer(nn.Module):
    """Normalized pictures to the tokens of its blocks."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        layers = nn.ModuleList(_Block(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, pixels: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """Tokens after some blocks, before the final norm; nothing after the last of these is computed.

        Args:
            pixels: (B, 3, H, W) normalized, sides multiples of the patch's.
            layers: blocks, from 0.

        Returns:
            By block (B, 1 + patches, C), the class token first.
        """
        state = self.embeddings(pixels)
        kept = {}
        for index, block in enumerate(self.encoder["layer"][: max(layers) + 1]):  # type: ignore[index]
            state = block(state)
            if index in layers:
                kept[index] = state
        return kept


class _Embeddings(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + (config.image_size // patch) ** 2, width))
        projection = nn.Conv2d(3, width, patch, stride=patch)
        self.patch_embeddings = nn.Sequential(OrderedDict(projection=projection))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embeddings(pixels)
        rows, columns = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self._positions(rows, columns)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """(1, 1 + rows * columns, C): the learned square of positions, bicubically at another grid."""
        own, square = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        side = math.isqrt(square.shape[1])
        if (rows, columns) == (side, side):
            return self.position_embeddings
        planes = square.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        # In float32: in half precision the resampling would shift the positions.
        planes = F.interpolate(planes.float(), (rows, columns), mode="bicubic").to(square.dtype)
        return torch.cat([own, planes.flatten(2).transpose(1, 2)], dim=1)


class _Block(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, config.layer_norm_eps)
        self.attention = _Attention(width, config.num_attention_heads)
        self.layer_scale1 = _Scale(width)
        self.norm2 = nn.LayerNorm(width, config.layer_norm_eps)
        inner = width * config.mlp_ratio
        fc1, fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.mlp = nn.Sequential(OrderedDict(fc1=fc1, activation=nn.GELU(), fc2=fc2))
        self.layer_scale2 = _Scale(width)

    def forward(self, state: Tensor) -> Tensor:
        state = state + self.layer_scale1(self.attention(self.norm1(state)))
        scaled: Tensor = state + self.layer_scale2(self.mlp(self.norm2(state)))
        return scaled


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, state: Tensor) -> Tensor:
        query, key, value = (
            project(state).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        joined: Tensor = self.o_proj(seen.transpose(1, 2).flatten(2))
        return joined


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, state: Tensor) -> Tensor:
        return state * self.lambda1
