"""Where a photo moves and how far: small heads on the tokens of the shared encoder.

The encoder (DINOv2, frozen, `foundation.features`) tells flower from sky without having seen either move. Tokens of
three of its blocks are projected on their main components; beside them stands how much detail a place has, from fine
to coarse, which tells what is sharp from what is blurred. Several small convolutional heads, each trained on its own,
say where motion is, and their mean is smoothed along a graph whose links compare tokens and colours, so that a map ends
where its object ends. How far all of it moves is what clips move on average: how strong the wind is no photo tells. But
whether it shows something that moves at all is one linear map of the picture's summary: a cup, a face and a castle do
not, whatever their texture.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from scipy.sparse.linalg import splu
from torch import Tensor, nn

from foundation.features import Features, encode, patch_grid
from gid.motion.coherence import laplacian
from gid.motion.energy import brightness_of, shaken, to_grid

LAYERS = (3, 7, 11)
TOKENS = 777
# Token distance (of unit vectors about the picture's mean) and distance in RGB at which neighbours part.
ALIKE = 0.5
COLOUR = 0.12
LEAST_LINK = 1e-3
# Displacements, in pixels of a picture at most 512 wide, by which detail is measured from fine to coarse.
DETAIL = (0.35, 1.4, 5.6, 22.4)
LEAST_DETAIL = 0.02
DETAILS = len(DETAIL) + 2
# What moves most is this quantile of a picture: a flame fills no more, and a single cell must not decide.
TOP = 0.98


class MotionMap(ModelMixin, ConfigMixin):
    """Features of photos -> shape of their motion, and its size."""

    @register_to_config
    def __init__(
        self,
        channels: int = 3 * 384,
        summary: int = 384,
        components: int = 120,
        width: int = 32,
        blocks: int = 1,
        kernel: int = 5,
        members: int = 6,
        dropout: float = 0.3,
        amount: float = 0.0157,
        contrast: float = 1.2,
        floor: float = 0.06,
        smoothness: float = 3.0,
        threshold: float = -1.0,
        steepness: float = 1.0,
        least: float = 0.02,
    ) -> None:
        """Build it; without training it says that all moves alike.

        Args:
            channels: of the tokens of all layers together.
            summary: channels of the picture's summary.
            components: main components kept of the tokens.
            width: channels of a head.
            blocks: residual blocks of a head.
            kernel: width of their depthwise convolutions, in tokens.
            members: heads, whose maps are averaged.
            dropout: of components while heads train.
            amount: root mean square displacement of what moves most (98th percentile), a fraction of
                sqrt(width * height).
            contrast: standard deviation of the log of motion over a picture.
            floor: share of the amount taken away everywhere, so that what moves least stands still.
            smoothness: weight of the links between neighbours against the heads' own map; 0 is none.
            threshold: log odds of "moves" under which a picture is held still.
            steepness: power of the odds by which a picture under the threshold is held still.
            least: the smallest factor: who animates a thing all the same still sees something.

        Raises:
            ValueError: for a size under 1.
        """
        super().__init__()
        if min(channels, summary, components, width, members) < 1 or kernel % 2 == 0:
            raise ValueError(
                f"sizes are {channels, summary, components, width, members} and kernel {kernel}: 1 or more, odd"
            )
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("projection", torch.zeros(components, channels))
        self.register_buffer("detail_mean", torch.zeros(len(DETAIL)))
        self.register_buffer("detail_spread", torch.ones(len(DETAIL)))
        self.heads = nn.ModuleList(MotionHead(components, width, blocks, kernel, dropout) for _ in range(members))
        self.moves = nn.Linear(summary, 1)
        nn.init.zeros_(self.moves.weight)
        nn.init.zeros_(self.moves.bias)

    def project(self, tokens: Tensor) -> Tensor:
        """(B, channels, r, c) tokens of all layers -> (B, components, r, c)."""
        centred = tokens - self.get_buffer("mean")[:, None, None]
        return torch.einsum("kc,bcij->bkij", self.get_buffer("projection"), centred)

    def details(self, contrasts: Tensor) -> Tensor:
        """(B, 4, r, c) contrasts of :func:`detail_of` -> (B, 6, r, c) what the heads are told of detail and height."""
        logs = contrasts.clamp_min(LEAST_DETAIL).log()
        steps = torch.cat([logs[:, :1], logs[:, 1:] - logs[:, :-1]], 1)
        mean, spread = (self.get_buffer(name)[:, None, None] for name in ("detail_mean", "detail_spread"))
        relative = (steps[:, :1] - steps[:, :1].mean((2, 3), keepdim=True)) / spread[:1]
        height = torch.linspace(-1, 1, steps.shape[2], dtype=steps.dtype, device=steps.device)
        height = height[None, None, :, None].expand(len(steps), 1, *steps.shape[2:])
        return torch.cat([(steps - mean) / spread, relative, height], 1)

    def forward(self, tokens: Tensor, contrasts: Tensor) -> Tensor:
        """Shape of the log of motion, mean 0 and deviation 1 over each picture.

        Args:
            tokens: (B, channels, r, c) of all layers.
            contrasts: (B, 4, r, c) of :func:`detail_of`.

        Returns:
            (B, 1, r, c).
        """
        projected, details = self.project(tokens), self.details(contrasts)
        return torch.stack([standardized(head(projected, details)) for head in self.heads]).mean(0)

    def kept(self, summary: Tensor) -> Tensor:
        """(B, summary) -> (B, 1): how much of its motion a picture keeps, by the odds that it moves."""
        score = self.config.steepness * (self.moves(summary.to(self.dtype)).float() - self.config.threshold)
        kept: Tensor = score.clamp_max(0).exp().clamp_min(self.config.least)
        return kept

    @torch.no_grad()
    def envelope(self, photo: Tensor, size: tuple[int, int], hold_still: bool = True) -> Tensor:
        """Amplitude envelope of a photo's motion.

        Args:
            photo: (3, H, W) in [0, 1].
            size: (h, w) of the envelope.
            hold_still: let pictures of things that do not move hardly move.

        Returns:
            (1, 1, h, w) root mean square displacement as a fraction of sqrt(width * height), at least 0.
        """
        features = see(photo, self.device)
        with torch.autocast(photo.device.type, enabled=False):
            contrasts = detail_of(photo, features.grid).to(self.device, self.dtype)
            coarse = self(features.stacked().to(self.dtype), contrasts[None]).float()
            shape = F.interpolate(coarse, size, mode="bilinear")[0, 0]
        if self.config.smoothness > 0:
            shape = smoothed(shape, features.tokens[max(features.tokens)][0], photo, self.config.smoothness)
        relative = (self.config.contrast * standardized(shape[None, None])).exp()
        relative = relative / relative.flatten().quantile(TOP)
        floor = self.config.floor
        envelope: Tensor = self.config.amount * (relative - floor).clamp_min(0) / (1 - floor)
        return envelope * self.kept(features.summary)[..., None, None] if hold_still else envelope


class MotionHead(nn.Module):
    """Components of tokens, and details -> one map, by a linear part and a few residual blocks with a look around."""

    def __init__(self, components: int, width: int, blocks: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.enter = nn.Conv2d(components, width, 1)
        self.enter_details = nn.Conv2d(DETAILS, width, 1)
        self.blocks = nn.Sequential(*[_Block(width, kernel) for _ in range(blocks)])
        self.leave = nn.Conv2d(width, 1, 1)
        self.linear = nn.Conv2d(components, 1, 1)
        self.linear_details = nn.Conv2d(DETAILS, 1, 1)
        self.begin()

    def begin(self) -> None:
        """Fresh weights from torch's generator; the linear parts start at nothing."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear_details.weight)

    def forward(self, components: Tensor, details: Tensor) -> Tensor:
        """(B, K, r, c) and (B, 6, r, c) -> (B, 1, r, c)."""
        x = self.dropout(components)
        inner = self.blocks(self.enter(x) + self.enter_details(details))
        result: Tensor = self.leave(F.silu(inner)) + self.linear(x) + self.linear_details(details)
        return result


class _Block(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.dropout = nn.Dropout2d(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.pointwise(F.silu(self.depthwise(self.norm(x)))))


def see(photo: Tensor, device: torch.device) -> Features:
    """Features of a photo (3, H, W): shrunk first, so that the same pixels are recognized however large it came."""
    columns, rows = patch_grid(photo.shape[-1], photo.shape[-2], TOKENS)
    seen = F.interpolate(photo[None].float(), (14 * rows, 14 * columns), mode="bilinear", antialias=True)[0]
    # bfloat16 is slower here than float32, and the heads learned from the latter.
    with torch.autocast(device.type, enabled=False):
        return encode(seen.clamp(0, 1).cpu(), layers=LAYERS, tokens=TOKENS, device=device)


def detail_of(photo: Tensor, grid: tuple[int, int]) -> Tensor:
    """(4, rows, columns) contrasts of a photo (3, H, W) in [0, 1] about each token of a grid (columns, rows).

    They are what would be seen if all of it shook by :data:`DETAIL` pixels (`gid.motion.energy.shaken`).
    """
    pixels = (255 * photo.detach().float().clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()
    maps = shaken(brightness_of(np.ascontiguousarray(pixels)), DETAIL)
    return torch.from_numpy(np.stack([to_grid(values, grid) for values in maps]))


def standardized(maps: Tensor) -> Tensor:
    """(B, 1, h, w) with mean 0 and deviation 1 over each picture."""
    centred = maps - maps.mean((2, 3), keepdim=True)
    return centred / centred.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-6)


def smoothed(shape: Tensor, tokens: Tensor, photo: Tensor, weight: float) -> Tensor:
    """u that minimises sum (u - shape)^2 + weight * sum of links * (u_p - u_q)^2 over neighbours.

    Args:
        shape: (h, w).
        tokens: (C, r, c) of one block.
        photo: (3, H, W) in [0, 1].
        weight: 0 or more.
    """
    centred = F.interpolate(tokens[None].float().cpu(), shape.shape, mode="bilinear")[0]
    centred = centred - centred.mean((1, 2), keepdim=True)
    seen = F.normalize(centred, dim=0).numpy()
    colour = F.interpolate(photo[None].float().cpu(), shape.shape, mode="bilinear", antialias=True)[0].numpy()

    def links(one: tuple[slice, ...], other: tuple[slice, ...]) -> np.ndarray:
        apart = np.square(seen[one] - seen[other]).sum(0) / (2 * ALIKE**2)
        apart = apart + np.square(colour[one] - colour[other]).sum(0) / COLOUR**2
        return np.asarray(np.exp(-apart) + LEAST_LINK)

    sideways, downwards = links(np.s_[:, :, 1:], np.s_[:, :, :-1]), links(np.s_[:, 1:], np.s_[:, :-1])
    system = sp.csc_array(sp.eye_array(shape.numel()) + weight * laplacian(sideways, downwards))
    solution = splu(system).solve(shape.double().cpu().numpy().ravel())
    return torch.from_numpy(solution).view(shape.shape).to(shape)
