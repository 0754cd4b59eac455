"""The training set of the motion model: photos' early features beside their motion, prepared once.

The first blocks of the pretrained trunk stay frozen, so they run once for each (augmented) photo and their output is
kept; every later stage reads memory-mapped arrays, only those it needs. One folder, five arrays of N rows:

    stride4.npy       float16 (N, 24, h, w)       trunk level at stride 4, at motion size
    stride8.npy       float16 (N, 40, h/2, w/2)   trunk level at stride 8
    coefficients.npy  float16 (N, K, 4, h, w)     fractions of sqrt(width * height), times COEFFICIENT_SCALE
    envelope.npy      float16 (N, 1, h, w)        amplitude envelope of the coefficients, in the same unit
    thumbnails.npy    uint8 (N, 3, h, w)          the photo, for the sample sheets
    index.json        names and sizes
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from foundation.efficientnet import EfficientNetLite0
from foundation.files import write_text
from gid.diffusion.precision import autocast
from gid.motion.normalization import envelope_of, to_isotropic
from gid.training.augmentation import AugmentationConfig, augment

logger = logging.getLogger(__name__)

# float16 keeps 3 digits above 6e-5; still pixels move by less than that as a fraction of the picture.
COEFFICIENT_SCALE = 1024.0


@dataclass(frozen=True)
class MotionPair:
    """One photo and its measured or exact motion.

    Attributes:
        name: the scene it belongs to; training sets are split by it.
        photo: uint8 (3, H, W).
        coefficients: float (K, 4, H/4, W/4), fractions of width and height.
        confidence: float (H/4, W/4) in [0, 1], how far the motion can be trusted; None is everywhere.
    """

    name: str
    photo: Tensor
    coefficients: Tensor
    confidence: Tensor | None = None


def augmented(pair: MotionPair, config: AugmentationConfig, generator: torch.Generator) -> MotionPair:
    """One augmented copy of a pair."""
    copy = augment(pair.photo, pair.coefficients, config, generator, pair.confidence)
    return MotionPair(pair.name, *copy)


@dataclass(frozen=True)
class PrepareConfig:
    """How a training set is prepared.

    Attributes:
        variants: augmented copies of each pair, the first of which is the pair itself.
        augmentation: ranges of the augmentations of the other copies.
        batch_size: photos a pass through the trunk.
        seed: of the augmentations.
    """

    variants: int = 1
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    batch_size: int = 8
    seed: int = 0


def prepare(pairs: Iterable[MotionPair], count: int, out: Path, trunk: EfficientNetLite0, config: PrepareConfig) -> int:
    """Write the training set of ``count`` pairs into folder ``out``; returns its rows.

    The index is written last: a folder without one is unfinished and is made again.

    Raises:
        ValueError: if no pair is given, or their sizes differ.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.json").unlink(missing_ok=True)
    arrays: dict[str, np.memmap] = {}
    names: list[str] = []
    generator = torch.Generator().manual_seed(config.seed)
    rows = count * config.variants
    batch: list[MotionPair] = []
    progress = tqdm(total=rows, desc="preparing photos", unit="photo")
    for pair in _variants(pairs, config, generator):
        batch.append(pair)
        if len(batch) == config.batch_size:
            _write(arrays, names, batch, out, rows, trunk)
            progress.update(len(batch))
            batch = []
    if batch:
        _write(arrays, names, batch, out, rows, trunk)
    progress.close()
    if not names:
        raise ValueError("no photo with motion was given; prepare scenes or clips first")
    for array in arrays.values():
        array.flush()
    write_text(out / "index.json", json.dumps({"names": names, "scale": COEFFICIENT_SCALE}))
    return len(names)


def _variants(pairs: Iterable[MotionPair], config: PrepareConfig, generator: torch.Generator) -> Iterator[MotionPair]:
    for pair in pairs:
        yield pair
        for _ in range(config.variants - 1):
            yield augmented(pair, config.augmentation, generator)


def _write(
    arrays: dict[str, np.memmap],
    names: list[str],
    batch: list[MotionPair],
    out: Path,
    rows: int,
    trunk: EfficientNetLite0,
) -> None:
    photos = torch.stack([pair.photo for pair in batch]).float() / 255
    height, width = photos.shape[-2:]
    device = next(trunk.parameters()).device
    with torch.inference_mode(), autocast(device):
        levels = trunk.early(photos.to(device, memory_format=torch.channels_last))
    coefficients = torch.stack([to_isotropic(pair.coefficients.float(), width, height) for pair in batch])
    thumbnails = F.interpolate(photos, coefficients.shape[-2:], mode="area")
    values = {
        "stride4": levels[1].half().cpu(),
        "stride8": levels[2].half().cpu(),
        "coefficients": (coefficients * COEFFICIENT_SCALE).half(),
        "envelope": (envelope_of(coefficients) * COEFFICIENT_SCALE).half(),
        "thumbnails": (thumbnails * 255).round().byte(),
    }
    start = len(names)
    for key, value in values.items():
        if key not in arrays:
            path = out / f"{key}.npy"
            arrays[key] = np.lib.format.open_memmap(
                path, mode="w+", dtype=value.numpy().dtype, shape=(rows, *value.shape[1:])
            )
        arrays[key][start : start + len(batch)] = value.contiguous().numpy()
    names.extend(pair.name for pair in batch)


ARRAYS = ("stride4", "stride8", "coefficients", "envelope", "thumbnails")


class PreparedMotion(Dataset[dict[str, Tensor]]):
    """Rows of a prepared training set (see the module's text); motion in fractions of sqrt(width * height)."""

    def __init__(
        self,
        folder: Path,
        exclude: set[str] | None = None,
        only: set[str] | None = None,
        arrays: tuple[str, ...] = ARRAYS,
    ) -> None:
        """Open ``folder``; ``exclude`` and ``only`` choose rows by scene name, ``arrays`` what a row holds.

        Raises:
            ValueError: if the folder holds no finished training set, or no row is left.
        """
        index = folder / "index.json"
        if not index.is_file():
            raise ValueError(f"{folder} holds no finished training set (index.json is missing); prepare it first")
        names: list[str] = json.loads(index.read_text())["names"]
        self.rows = [
            i for i, name in enumerate(names) if name not in (exclude or set()) and (only is None or name in only)
        ]
        if not self.rows:
            raise ValueError(f"no row of {folder} is left after the choice by scene")
        self.names = [names[i] for i in self.rows]
        self.arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in arrays}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.rows[index]
        sample = {key: torch.from_numpy(np.array(array[row])) for key, array in self.arrays.items()}
        for key in ("coefficients", "envelope"):
            if key in sample:
                sample[key] = sample[key].float() / COEFFICIENT_SCALE
        return sample
