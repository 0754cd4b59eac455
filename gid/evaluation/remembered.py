"""Predicted motions kept on disk, so that an evaluation can be interrupted, or run again with other rows, for free."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gid.motion.spectrum import SpectralVolume


@dataclass
class Motion:
    """What a remembered prediction looks like to the evaluation: the pipeline's output."""

    volumes: list[SpectralVolume]


def fingerprint(weights: str | Path, *settings: object) -> str:
    """Twelve digits that stand for the motion weights in a folder and for the settings they are sampled with.

    The renderer's files do not count: they do not change motion.
    """
    digest = hashlib.sha256(repr(settings).encode())
    folder = Path(weights)
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix in (".safetensors", ".json") and relative.parts[0] != "renderer":
            digest.update(relative.as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Remembered:
    """A motion model whose answers are kept in a folder, one motion file a photo and seed.

    Args:
        predict: (photo (3, H, W) in [0, 1], seed) -> its volume.
        folder: where they are kept; made if missing.
        key: `fingerprint` of the weights; answers of others are not taken for theirs.
    """

    def __init__(self, predict: Callable[[Tensor, int], SpectralVolume], folder: str | Path, key: str) -> None:
        self.predict = predict
        self.folder = Path(folder) / key
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, photo: Tensor, *, seed: int) -> Motion:
        """The motion of a photo (3, H, W) in [0, 1], from the folder if it was asked for before."""
        pixels = photo.mul(255).round().clamp(0, 255).to(torch.uint8).cpu().contiguous()
        name = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()[:16]
        path = self.folder / f"{name}-{seed}.safetensors"
        if path.is_file():
            return Motion([SpectralVolume.load(path)])
        volume = self.predict(photo, seed).to("cpu")
        volume.save(path)
        return Motion([volume])
