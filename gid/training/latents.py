"""Between stages 2 and 3: everything that is frozen while the denoiser trains runs once, and its output is kept.

Of each row of a prepared set: the whitened latents of its K slices, the trunk's levels that the condition is made of,
and the log envelope at latent size, predicted and true.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from gid.diffusion.autoencoder import MotionAutoencoder
from gid.diffusion.loading import resolve_device
from gid.diffusion.photo_encoder import PhotoEncoder
from gid.diffusion.precision import autocast
from gid.motion.normalization import FrequencyAdaptiveNormalization
from gid.training.autoencoder import unit_coefficients
from gid.training.common import load_part
from gid.training.dataset import PreparedMotion
from gid.training.envelope import log_envelope

ARRAYS = ("latents", "level8", "level16", "level32", "envelope", "predicted")


def load_normalization(folder: Path) -> tuple[FrequencyAdaptiveNormalization, bool]:
    """Read ``normalization.json`` of an autoencoder run: the scales, and whether the envelope is divided out."""
    fields = json.loads((folder / "normalization.json").read_text())
    return FrequencyAdaptiveNormalization(tuple(fields["scales"])), fields["envelope"]


@torch.inference_mode()
def encode_latents(data: Path, autoencoder_run: Path, envelope_run: Path, out: Path, batch_size: int = 4) -> int:
    """Encode a prepared set; returns its rows. An unfinished ``out`` is made again.

    Raises:
        ValueError: if ``data`` holds no finished training set.
    """
    dataset = PreparedMotion(data)
    device = resolve_device()
    autoencoder = load_part(MotionAutoencoder, autoencoder_run / "autoencoder", "autoencoder").eval().to(device)
    encoder = load_part(PhotoEncoder, envelope_run / "photo_encoder", "envelope").eval().to(device)
    normalization, envelope = load_normalization(autoencoder_run)
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.json").unlink(missing_ok=True)
    files: dict[str, np.memmap] = {}
    row = 0
    for batch in tqdm(DataLoader(dataset, batch_size), desc="encoding motion", unit="batch"):
        with autocast(device):
            on_device = {key: array.to(device) for key, array in batch.items()}
            values = _encode(on_device, autoencoder, encoder, normalization, envelope)
        for key, value in values.items():
            array = value.half().contiguous().cpu().numpy()
            if key not in files:
                files[key] = np.lib.format.open_memmap(
                    out / f"{key}.npy", mode="w+", dtype=np.float16, shape=(len(dataset), *array.shape[1:])
                )
            files[key][row : row + len(array)] = array
        row += len(batch["coefficients"])
    for file in files.values():
        file.flush()
    beside = out / ".index.json.part"
    beside.write_text(json.dumps({"names": dataset.names}))
    beside.replace(out / "index.json")
    return row


def _encode(
    batch: dict[str, Tensor],
    autoencoder: MotionAutoencoder,
    encoder: PhotoEncoder,
    normalization: FrequencyAdaptiveNormalization,
    envelope: bool,
) -> dict[str, Tensor]:
    slices = normalization.normalize(unit_coefficients(batch["coefficients"], envelope))
    latents = autoencoder.encode_slices(slices.flatten(0, 1)).unflatten(0, slices.shape[:2])
    levels = encoder.levels_from(batch["stride4"].float(), batch["stride8"].float())
    return {
        "latents": latents.float(),
        "level8": F.avg_pool2d(levels[2], 2),
        "level16": levels[3].float(),
        "level32": levels[4].float(),
        "envelope": F.avg_pool2d(log_envelope(batch["envelope"]), 4),
        "predicted": F.avg_pool2d(encoder.log_envelope(levels).float(), 4),
    }


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
