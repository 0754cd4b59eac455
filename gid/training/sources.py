"""Scenes and clips as training pairs, prepared for training (see :mod:`gid.training.dataset`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from foundation.efficientnet import pretrained_trunk
from gid.data.videos import held_out, load_pair
from gid.diffusion.loading import resolve_device
from gid.training.dataset import MotionPair, PrepareConfig, prepare


@dataclass(frozen=True)
class SourceConfig:
    """What is prepared, and into which folder.

    Attributes:
        source: folder of scene shards, or of measured clips.
        out: folder of the prepared set.
        kind: ``scenes`` or ``clips``.
        variants: copies of each pair; all but the first are augmented.
        include_held_out: prepare the clips of the test split too; they are left out of training by name then.
        seed: of the augmentations.
    """

    source: Path
    out: Path
    kind: str = "scenes"
    variants: int = 2
    include_held_out: bool = False
    seed: int = 0


def scene_pairs(folder: Path) -> Iterator[MotionPair]:
    """The scenes of all shards of ``folder``, in order."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as shard:
            photos, coefficients = shard.get_tensor("photos"), shard.get_tensor("coefficients")
        for photo, volume in zip(photos, coefficients, strict=True):
            yield MotionPair("scene", photo, volume.float())


def clip_pairs(folder: Path, include_held_out: bool) -> Iterator[MotionPair]:
    """The measured clips of ``folder``; without the test split unless asked for."""
    pairs = [load_pair(path) for path in sorted(folder.glob("*.safetensors"))]
    left_out = set() if include_held_out else held_out(pair.clip for pair in pairs)
    for pair in pairs:
        if pair.clip not in left_out:
            yield MotionPair(pair.clip, pair.photo, pair.volume.real, pair.confidence)


def prepare_sources(config: SourceConfig) -> Path:
    """Prepare a folder of scenes or clips.

    Raises:
        ValueError: if ``kind`` is unknown or nothing is found in ``source``.
    """
    if config.kind not in ("scenes", "clips"):
        raise ValueError(f"kind {config.kind!r} is unknown; use 'scenes' or 'clips'")

    def pairs() -> Iterator[MotionPair]:
        if config.kind == "scenes":
            return scene_pairs(config.source)
        return clip_pairs(config.source, config.include_held_out)

    count = sum(1 for _ in pairs())
    if count == 0:
        raise ValueError(f"no {config.kind} in {config.source}; make them with `gid data {config.kind}` first")
    trunk = pretrained_trunk().to(resolve_device())
    prepare(pairs(), count, config.out, trunk, PrepareConfig(config.variants, seed=config.seed))
    return config.out
