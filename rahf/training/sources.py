"""What to train or test on: composed scenes, RichHF-18K, photographs with planted faults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rahf.data.samples import SampleSource


@dataclass(frozen=True)
class SampleChoice:
    """Which samples: those of a sprite library if one is named, else those of records.

    Attributes:
        scenes: sprite library: composed scenes.
        count: composed scenes in all.
        seed: of the scenes.
        records, images, prompts: RichHF-18K TFRecords, the folder of their images and the table of their prompts.
    """

    scenes: Path | None = None
    count: int = 1000
    seed: int = 0
    records: tuple[Path, ...] = ()
    images: Path | None = None
    prompts: Path | None = None


def open_samples(choice: SampleChoice, split: str, size: int) -> SampleSource:
    """The samples of a split, composed scenes at ``size`` pixels. Raises ValueError if nothing whole is named."""
    from rahf.data.prompt_tables import read_prompts
    from rahf.data.richhf import RichHF
    from rahf.data.scenes import ComposedScenes, SceneConfig
    from rahf.data.sprites import SpriteLibrary

    if choice.scenes is not None:
        library = SpriteLibrary.load(choice.scenes)
        return ComposedScenes(library, choice.count, split, choice.seed, SceneConfig(size=size))
    if not choice.records or choice.images is None or choice.prompts is None:
        raise ValueError("give --scenes LIBRARY, or --records with --images and --prompts")
    return RichHF(list(choice.records), choice.images, read_prompts(choice.prompts))


def with_photographs(source: SampleSource, folder: Path, share: float, seed: int, size: int) -> SampleSource:
    """Samples of which the part ``share`` are photographs with planted faults. Raises ValueError for another part."""
    from rahf.data.photographs import Mixture, SpoiledPhotographs

    if not 0 < share < 1:
        raise ValueError(f"--photograph-share is {share}; it must lie between 0 and 1")
    spoiled = SpoiledPhotographs(folder, len(source), seed, size)
    return Mixture([source, spoiled], [1 - share, share], len(source), seed)
