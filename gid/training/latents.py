"""What the denoiser learns from: everything that is frozen while it trains runs once, and its output is kept.

Of each photo: the whitened latents of its K slices, the shared encoder's tokens on the latents' grid, the log envelope,
and how much each place counts: where flow could see nothing, or nothing moves, the volume is noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from foundation.features import ImageEncoder, load_encoder
from foundation.files import write_text
from gid.data.folds import REAL_CLIPS
from gid.diffusion.autoencoder import MotionAutoencoder
from gid.diffusion.loading import resolve_device
from gid.diffusion.photo_encoder import LOG_ENVELOPE_FLOOR
from gid.motion.normalization import FrequencyAdaptiveNormalization, envelope_of, to_isotropic
from gid.training.augmentation import AugmentationConfig
from gid.training.autoencoder import unit_coefficients
from gid.training.common import load_part
from gid.training.dataset import MotionPair, augmented
from gid.training.sources import clip_pairs, scene_pairs

ARRAYS = ("latents", "tokens", "envelope", "weight")
PATCH = 14  # pixels of a token's side
# Places count in proportion to their envelope, up to this share of the picture's 95th percentile.
FULL_WEIGHT = 0.3
LEAST_WEIGHT = 0.02


@dataclass(frozen=True)
class LatentConfig:
    """What is encoded, and into which folder.

    Attributes:
        source: folder of scene shards, or of measured clips.
        autoencoder_run: folder of the autoencoder's run, with its normalization.
        out: folder of the latents.
        kind: ``scenes`` or ``clips``; of clips known by name, those of grade C show where things move but not how, and
            are left out.
        variants: copies of each pair; all but the first are augmented.
        limit: so many pairs at most, 0 for all.
        include_held_out: encode the clips of the test split too.
        seed: of the augmentations.
    """

    source: Path
    autoencoder_run: Path
    out: Path
    kind: str = "scenes"
    variants: int = 1
    limit: int = 0
    include_held_out: bool = False
    seed: int = 0


def load_normalization(folder: Path) -> tuple[FrequencyAdaptiveNormalization, bool]:
    """Read ``normalization.json`` of an autoencoder run: the scales, and whether the envelope is divided out."""
    fields = json.loads((folder / "normalization.json").read_text())
    return FrequencyAdaptiveNormalization(tuple(fields["scales"])), fields["envelope"]


def encode_latents(config: LatentConfig) -> Path:
    """Encode scenes or measured clips for the denoiser. An unfinished folder is made again.

    Raises:
        ValueError: an unknown kind, no pair in the source, or no autoencoder where one is named.
    """
    if config.kind not in ("scenes", "clips"):
        raise ValueError(f"kind {config.kind!r} is unknown; use 'scenes' or 'clips'")
    encode = _Encoder(config)
    count = sum(1 for _ in _pairs(config)) * config.variants
    if count == 0:
        raise ValueError(f"no {config.kind} in {config.source}; make them with `gid data {config.kind}` first")
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "index.json").unlink(missing_ok=True)
    generator = torch.Generator().manual_seed(config.seed)
    files: dict[str, np.memmap] = {}
    names: list[str] = []
    for pair in tqdm(_copies(config, generator), desc="encoding motion", unit="photo", total=count):
        for key, value in encode(pair).items():
            if key not in files:
                path, shape = config.out / f"{key}.npy", (count, *value.shape)
                files[key] = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
            files[key][len(names)] = value.half().cpu().numpy()
        names.append(pair.name)
    for file in files.values():
        file.flush()
    write_text(config.out / "index.json", json.dumps({"names": names}))
    return config.out


def _pairs(config: LatentConfig) -> Iterator[MotionPair]:
    pairs = scene_pairs(config.source) if config.kind == "scenes" else _clips(config)
    return islice(pairs, config.limit or None)


def _clips(config: LatentConfig) -> Iterator[MotionPair]:
    for pair in clip_pairs(config.source, config.include_held_out):
        if pair.name not in REAL_CLIPS or REAL_CLIPS[pair.name].grade != "C":
            yield pair


def _copies(config: LatentConfig, generator: torch.Generator) -> Iterator[MotionPair]:
    for pair in _pairs(config):
        yield pair
        for _ in range(config.variants - 1):
            yield augmented(pair, AugmentationConfig(), generator)


class _Encoder:
    """Pairs to arrays, with the frozen networks."""

    def __init__(self, config: LatentConfig) -> None:
        self.device = resolve_device()
        folder = config.autoencoder_run / "autoencoder"
        self.autoencoder = load_part(MotionAutoencoder, folder, "autoencoder").eval().to(self.device)
        self.normalization, self.envelope = load_normalization(config.autoencoder_run)
        self.eye: ImageEncoder = load_encoder(self.device)

    @torch.inference_mode()
    def __call__(self, pair: MotionPair) -> dict[str, Tensor]:
        """The arrays of one row, at latent size."""
        width, height = pair.photo.shape[-1], pair.photo.shape[-2]
        coefficients = to_isotropic(pair.coefficients[None].float().to(self.device), width, height)
        envelope = envelope_of(coefficients)
        slices = self.normalization.normalize(unit_coefficients(coefficients, self.envelope))
        latents = self.autoencoder.encode_slices(slices.flatten(0, 1))
        rows, columns = latents.shape[-2:]
        photo = pair.photo[None].to(self.device).float() / 255
        size = (rows * PATCH, columns * PATCH)
        pixels = F.interpolate(photo, size, mode="bilinear", antialias=True).clamp(0, 1)
        features = self.eye(pixels, tokens=rows * columns)
        return {
            "latents": latents,
            "tokens": F.interpolate(features.stacked(), (rows, columns), mode="bilinear")[0],
            "envelope": F.avg_pool2d(envelope.clamp_min(math.exp(LOG_ENVELOPE_FLOOR)).log(), 4)[0],
            "weight": F.avg_pool2d(place_weight(envelope, pair.confidence), 4)[0],
        }


def place_weight(envelope: Tensor, confidence: Tensor | None) -> Tensor:
    """How much each place counts in the loss, (B, 1, H, W) in [LEAST_WEIGHT, 1].

    Args:
        envelope: (B, 1, H, W) amplitude.
        confidence: (H, W) in [0, 1] of the measurement; None for exact motion.
    """
    top = torch.quantile(envelope.flatten(1), 0.95, dim=1)[:, None, None, None]
    weight = (envelope / (FULL_WEIGHT * top + 1e-9)).clamp(0, 1)
    if confidence is not None:
        weight = weight * confidence.to(weight)
    return weight.clamp_min(LEAST_WEIGHT)


class LatentMotion(Dataset[dict[str, Tensor]]):
    """Rows written by :func:`encode_latents`."""

    def __init__(self, folder: Path, exclude: set[str] | None = None) -> None:
        """Open ``folder`` without the scenes named in ``exclude``.

        Raises:
            ValueError: if it is unfinished or no row is left.
        """
        if not (folder / "index.json").is_file():
            raise ValueError(f"{folder} holds no finished latents (index.json is missing); encode them first")
        names = json.loads((folder / "index.json").read_text())["names"]
        self.rows = [i for i, name in enumerate(names) if name not in (exclude or set())]
        if not self.rows:
            raise ValueError(f"no row of {folder} is left after the choice by scene")
        self.names = [names[i] for i in self.rows]
        self.arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in ARRAYS}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.rows[index]
        return {key: torch.from_numpy(np.array(array[row])).float() for key, array in self.arrays.items()}
