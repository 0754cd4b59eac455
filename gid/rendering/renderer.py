"""The renderer: a photo and the displacement of its pixels in, the displaced picture out (paper, section 5).

What moves is looked up sharply through the projected motion (`projection.py`). What no pixel covers, and the seams
between layers, are mended by a small network: features of the photo at several scales are softmax-splatted with the
resized and rescaled motion, and meet the picture in a decoder. Its correction counts only near such defects; **pixels
that do not move come out exactly as they went in**. Its last layer starts at zero, so an untrained renderer already
works: it fills holes smoothly from what lies behind.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from gid.rendering.projection import Projection, fill, look_up, look_up_at, project, smoothstep, splatting_metric
from gid.rendering.splatting import splat


@dataclass(frozen=True)
class RendererConfig:
    """Sizes of the renderer.

    Attributes:
        feature_channels: width of the photo's feature pyramid at 1/2, 1/4, ... of its size.
        feature_blocks: residual blocks at each of those sizes.
        stem_kernel: side of the first convolution.
        decoder_channels: width of the decoder at the same sizes.
        metric_scale: splatting metric a pixel of mean displacement; larger separates layers more strictly.
    """

    feature_channels: tuple[int, ...] = (16, 32, 48)
    feature_blocks: tuple[int, ...] = (1, 1, 1)
    stem_kernel: int = 5
    decoder_channels: tuple[int, ...] = (24, 32, 48)
    metric_scale: float = 3.0

    @classmethod
    def preset(cls, name: Literal["paper", "small"]) -> RendererConfig:
        """``paper``: a feature pyramid of ResNet-34's blocks and widths; ``small``: for two cores.

        Raises:
            ValueError: for another name.
        """
        if name == "paper":
            return cls(
                feature_channels=(64, 64, 128, 256, 512),
                feature_blocks=(0, 3, 4, 6, 3),
                stem_kernel=7,
                decoder_channels=(64, 64, 128, 256, 512),
            )
        if name == "small":
            return cls()
        raise ValueError(f"preset {name!r} is unknown; choose 'paper' or 'small'")


class _Residual(nn.Module):
    """ResNet's basic block: two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(8, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(8, outputs)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class FeaturePyramid(nn.Module):
    """Features of a photo at 1/2, 1/4, ... of its size."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        widths = config.feature_channels
        self.stem = nn.Conv2d(3, widths[0], config.stem_kernel, 2, config.stem_kernel // 2)
        levels = []
        for level, (width, blocks) in enumerate(zip(widths, config.feature_blocks, strict=True)):
            inputs = widths[max(level - 1, 0)]
            strides = [2 if level and not block else 1 for block in range(blocks)]
            levels.append(
                nn.Sequential(
                    *(_Residual(inputs if not block else width, width, stride) for block, stride in enumerate(strides))
                )
            )
        self.levels = nn.ModuleList(levels)

    def forward(self, photo: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1], sides divisible by 2^levels -> features, finest first."""
        x = F.relu(self.stem(photo * 2 - 1))
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


# Leaky units: with plain ones, part of the decoder dies while its zeroed last layer takes off.
_SLOPE = 0.1


def _active(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)


class Decoder(nn.Module):
    """From splatted features, coarse to fine, to a correction of the picture."""

    picture_channels = 3 + 3 + 3  # picture, filled picture; hole, seam, importance

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        widths, features = config.decoder_channels, config.feature_channels
        self.picture = nn.Conv2d(4 * self.picture_channels, widths[0], 3, 1, 1)
        inputs = [wide + 1 for wide in features]
        inputs[0] += widths[0]
        above = [*widths[1:], 0]
        self.merge = nn.ModuleList(nn.Conv2d(i + a, w, 3, 1, 1) for i, a, w in zip(inputs, above, widths, strict=True))
        self.refine = nn.ModuleList(nn.Conv2d(w, w, 3, 1, 1) for w in widths)
        self.last = nn.Conv2d(widths[0], 4 * 4, 3, 1, 1)
        for layer in (self.picture, *self.merge, *self.refine):
            nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, picture: Tensor, features: list[Tensor]) -> Tensor:
        """(B, 4, H, W): a correction of the colours, and of how much of the filled picture shows, as a logit."""
        return self.decode(F.pixel_unshuffle(picture, 2), features)

    def decode(self, halves: Tensor, features: list[Tensor]) -> Tensor:
        """The same for a picture given as ``F.pixel_unshuffle(picture, 2)``."""
        stacks = list(features)
        stacks[0] = torch.cat([stacks[0], _active(self.picture(halves))], 1)
        x: Tensor | None = None
        for stack, merge, refine in zip(reversed(stacks), reversed(self.merge), reversed(self.refine), strict=True):
            if x is not None:
                stack = torch.cat([stack, F.interpolate(x, size=stack.shape[2:], mode="nearest")], 1)
            x = _active(merge(stack))
            x = _active(refine(x) + x)
        assert x is not None
        return F.pixel_shuffle(self.last(x), 2)


# Side of the tiles that are decoded on their own, and what is decoded around each for context.
TILE = 64
HALO = 16
# Share of the tiles from which on the whole picture is cheaper than tiles with their surroundings.
WHOLE = 0.4


def decode_where(decoder: Decoder, picture: Tensor, features: list[Tensor], gate: Tensor) -> Tensor:
    """Run the decoder on the tiles of a picture where the gate is open: usually few.

    Args:
        decoder: with at most four levels, so that tiles divide evenly; deeper ones run on the whole picture.
        picture: (B, C, H, W) and ``features``, as it takes them.
        gate: (B, 1, H, W); where it is 0, nothing has to be decoded.

    Returns:
        (B, 4, H, W), 0 in tiles that were left out.
    """
    wanted = F.max_pool2d(gate, TILE, ceil_mode=True)[:, 0] > 0
    if len(picture) > 1 or HALO % 2 ** len(features) or wanted.float().mean() > WHOLE:
        return decoder(picture, features)
    height, width = picture.shape[2:]
    corners = [(int(row) * TILE, int(column) * TILE) for row, column in wanted[0].nonzero()]
    tiles = [_tiles(picture, corners, 1)]
    tiles += [_tiles(feature, corners, 2 ** (level + 1)) for level, feature in enumerate(features)]
    decoded = decoder(tiles[0], tiles[1:])[..., HALO:-HALO, HALO:-HALO]
    result = picture.new_zeros(1, decoded.shape[1], height + TILE, width + TILE)
    for (row, column), tile in zip(corners, decoded, strict=True):
        result[0, :, row : row + TILE, column : column + TILE] = tile
    return result[..., :height, :width]


def _tiles(maps: Tensor, corners: list[tuple[int, int]], scale: int) -> Tensor:
    """Cut tiles with their halo at corners (pixels) from (1, C, h, w) maps at 1/scale; zeros beyond the edges."""
    side, halo = (TILE + 2 * HALO) // scale, HALO // scale
    wide = F.pad(maps, [halo, halo + TILE // scale, halo, halo + TILE // scale])[0]
    cut = [wide[:, y // scale : y // scale + side, x // scale : x // scale + side] for y, x in corners]
    return torch.stack(cut).contiguous(memory_format=torch.channels_last)


class Renderer(ModelMixin, ConfigMixin):
    """Renders displaced photos. Saved and loaded with ``save_pretrained`` and ``from_pretrained``."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        feature_channels: tuple[int, ...] = (16, 32, 48),
        feature_blocks: tuple[int, ...] = (1, 1, 1),
        stem_kernel: int = 5,
        decoder_channels: tuple[int, ...] = (24, 32, 48),
        metric_scale: float = 3.0,
    ) -> None:
        super().__init__()
        sizes = RendererConfig(
            tuple(feature_channels), tuple(feature_blocks), stem_kernel, tuple(decoder_channels), metric_scale
        )
        self.metric_scale = metric_scale
        self.multiple = 2 ** len(sizes.feature_channels)
        self.pyramid = FeaturePyramid(sizes)
        self.decoder = Decoder(sizes)

    @classmethod
    def from_preset(cls, config: RendererConfig) -> Renderer:
        """A new, untrained renderer of the given sizes."""
        return cls(**asdict(config))

    def encode(self, photo: Tensor) -> list[Tensor]:
        """Features of a photo, for any number of calls of :meth:`render`.

        Args:
            photo: (B, 3, H, W) in [0, 1], any size.

        Returns:
            features at 1/2, 1/4, ... of the size, rounded up to a common multiple.
        """
        return self.pyramid(_padded(photo, self.multiple))

    def render(self, photo: Tensor, features: list[Tensor], flow: Tensor, importance: Tensor) -> Tensor:
        """The photo with every pixel displaced.

        Args:
            photo: (B, 3, H, W) in [0, 1].
            features: what :meth:`encode` made of it.
            flow: (B, 2, H, W) pixels, x right and y down; exactly 0 where the photo stands still.
            importance: (B, 1, H, W) pixels, mean length of each pixel's displacement over time.

        Returns:
            (B, 3, H, W) in [0, 1]; where nothing moves, and nothing that moves arrives, the photo's own values.

        Raises:
            ValueError: shapes that do not belong together.
        """
        self._check(photo, features, flow, importance)
        projection = project(flow, importance, self.metric_scale)
        draft = compose(photo, projection)
        result = self.mend(draft, features, flow, importance)
        return torch.where(projection.still, photo, result)

    def mend(self, draft: Draft, features: list[Tensor], flow: Tensor, importance: Tensor) -> Tensor:
        """Let the decoder correct a draft where it is defective."""
        if not bool((draft.gate > 0).any()):
            return draft.picture
        height, width = flow.shape[2:]
        maps = [draft.picture * 2 - 1, draft.filled * 2 - 1, draft.hole, draft.seam, importance.clamp(max=16) / 8]
        stacked = _padded(torch.cat(maps, 1), self.multiple)
        warped = self._splat(features, _padded(flow, self.multiple), _padded(importance, self.multiple))
        # On a GPU frames are drawn, though not trained, in half precision.
        half = stacked.is_cuda and not torch.is_grad_enabled()
        with torch.autocast("cuda", torch.bfloat16) if half else nullcontext():
            decoded = decode_where(self.decoder, stacked, warped, _padded(draft.gate, self.multiple)).float()
        correction, show = decoded[..., :height, :width].split([3, 1], 1)
        # From the share that shows without training, by an additive change of its logit.
        base = torch.logit(draft.hole, eps=0.02)
        change = torch.sigmoid(base + show) - torch.sigmoid(base)
        mended = draft.picture + change * (draft.filled - draft.sharp) + correction
        return torch.lerp(draft.picture, mended, draft.gate).clamp(0, 1)

    def _splat(self, features: list[Tensor], flow: Tensor, importance: Tensor) -> list[Tensor]:
        """Softmax-splat every level with the motion resized and rescaled to it; a coverage map joins each."""
        warped = []
        for feature in features:
            flow, importance = F.avg_pool2d(flow, 2) / 2, F.avg_pool2d(importance, 2)
            metric = splatting_metric(importance, self.metric_scale)
            with_ones = torch.cat([feature, torch.ones_like(importance)], 1)
            warped.append(splat(with_ones, flow.expand(feature.shape[0], -1, -1, -1), metric, "softmax"))
        return warped

    def _check(self, photo: Tensor, features: list[Tensor], flow: Tensor, importance: Tensor) -> None:
        batch, _, height, width = photo.shape
        if tuple(flow.shape) != (batch, 2, height, width):
            raise ValueError(f"flow must be {(batch, 2, height, width)} for this photo, got {tuple(flow.shape)}")
        if tuple(importance.shape) != (batch, 1, height, width):
            raise ValueError(
                f"importance must be {(batch, 1, height, width)} for this photo, got {tuple(importance.shape)}"
            )
        finest = (math.ceil(height / self.multiple) * self.multiple // 2,)
        if features[0].shape[0] != batch or features[0].shape[2:3] != finest:
            raise ValueError(f"features {tuple(features[0].shape)} belong to another photo; call encode on this one")


@dataclass(frozen=True)
class Draft:
    """A rendered picture before mending; maps are (B, ., H, W).

    Attributes:
        picture: composed picture, holes filled smoothly.
        sharp: the same without the filling.
        filled: the picture continued from behind into holes.
        hole: share in [0, 1] of the filled picture in the composed one.
        seam: how much of a pixel two layers share, [0, 1].
        gate: how far a correction may count, [0, 1].
    """

    picture: Tensor
    sharp: Tensor
    filled: Tensor
    hole: Tensor
    seam: Tensor
    gate: Tensor


def compose(photo: Tensor, projection: Projection) -> Draft:
    """Look up the layers of a projected motion and lay them over one another."""
    sharp = look_up(photo, projection.near)
    seam = 1 - projection.near_share
    if len(photo) == 1:
        # Two layers meet in few pixels only.
        where = (seam[0, 0] > 0).nonzero()
        row, column = where.unbind(1)
        behind = look_up_at(photo, projection.far, where)
        sharp[0, :, row, column] = torch.lerp(sharp[0, :, row, column], behind, seam[0, :, row, column])
    else:
        sharp = torch.lerp(sharp, look_up(photo, projection.far), seam)
    hole = 1 - projection.covered
    filled = sharp
    if bool((hole > 0).any()):
        # Continue from what moves least: holes open onto what lies behind.
        known = projection.landed * projection.covered
        filled = fill(sharp, known * (-2 * projection.importance.clamp(max=20)).exp() + 1e-8)
    picture = torch.lerp(sharp, filled, hole)
    defect = torch.maximum(hole, (4 * seam * (1 - seam)).clamp(0, 1))
    gate = F.avg_pool2d(F.max_pool2d(defect, 5, 1, 2), 3, 1, 1, count_include_pad=False)
    return Draft(picture, sharp, filled, hole, seam, smoothstep(0.0, 0.5, gate))


def _padded(x: Tensor, multiple: int) -> Tensor:
    """Extend right and bottom edges so that both sides are divisible by ``multiple``."""
    height, width = x.shape[2:]
    down, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x
