"""`rahf picture-features`, `plant-faults` and `train-pictures`: a configuration becomes features or a judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from foundation.limits import Limit
from rahf.training.judge import JudgeTraining

SCENE_SIDE = 256  # pixels of a composed scene
COUNT = Limit(1, remedy="160 is a good start.")
SEEDS = Limit(1, remedy="1 is a good start.")
STEPS = Limit(10, remedy="900 is a good start.")


@dataclass(frozen=True)
class FeaturesConfig:
    """What is seen, and by whom.

    Attributes:
        out: folder for the features; goes on from what is there.
        pictures: folder of tables (.jsonl) and their pictures.
        scenes: sprite library: composed scenes of training sprites instead, by which they are told from pictures.
        count: with --scenes: number of scenes.
        seed: with --scenes: of the scenes.
        teacher: CLIP ViT-B/16 image tower, a transformers folder.
        device: cpu, cuda, mps or auto.
    """

    limits: ClassVar[Mapping[str, Limit]] = {"count": COUNT}

    out: Path
    pictures: Path | None = None
    scenes: Path | None = None
    count: int = 160
    seed: int = 77
    teacher: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        COUNT.check("count", self.count)
        if (self.pictures is None) == (self.scenes is None):
            raise ValueError("give either --pictures, a folder of tables, or --scenes, a sprite library")
        if self.scenes is not None and self.teacher is not None:
            raise ValueError("--teacher goes with --pictures; composed scenes are seen without it")


@dataclass(frozen=True)
class PlantingConfig:
    """Which pictures are spoiled, and how often.

    Attributes:
        out: folder for the features; goes on from what is there.
        pictures: folder of tables (.jsonl) and their pictures.
        parts: faces, hands and poses found in the pictures, .jsonl by file.
        seeds: spoiled versions of each picture.
        device: cpu, cuda, mps or auto.
    """

    limits: ClassVar[Mapping[str, Limit]] = {"seeds": SEEDS}

    out: Path
    pictures: Path
    parts: Path
    seeds: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        SEEDS.check("seeds", self.seeds)


@dataclass(frozen=True)
class JudgeRunConfig(JudgeTraining):
    """A run of `rahf train-pictures`.

    Attributes:
        out: folder for the judge; heads that are there are kept.
        pictures: folder of tables (.jsonl) and their pictures.
        features: folder that `picture-features` wrote.
        planted: folder that `plant-faults` wrote.
        parts: faces, hands and poses found in the pictures, .jsonl by file.
        text: folder of CLIP's text embeddings and heads (names.json).
        composed: features of composed scenes, by which they are told from pictures.
    """

    limits: ClassVar[Mapping[str, Limit]] = {"steps": STEPS}

    out: Path = field(kw_only=True)
    pictures: Path = field(kw_only=True)
    features: Path = field(kw_only=True)
    planted: Path = field(kw_only=True)
    parts: Path = field(kw_only=True)
    text: Path = field(kw_only=True)
    composed: Path | None = None

    def __post_init__(self) -> None:
        STEPS.check("steps", self.steps)


def picture_features(config: FeaturesConfig) -> str:
    """See real pictures, or composed scenes, through the shared encoder, once.

    With --teacher its embeddings are kept beside the features, for training.
    """
    from foundation.features import load_encoder
    from foundation.files import check_folder
    from rahf.data.pictures import read_pictures
    from rahf.training.picture_features import Teacher, keep_features, keep_scenes

    check_folder(config.out)
    encoder = load_encoder(config.device)
    if config.scenes is not None:
        written = keep_scenes(config.scenes, config.out, encoder, config.count, config.seed, SCENE_SIDE)
        return f"wrote the features of {written} scenes to {config.out}"
    assert config.pictures is not None
    guide = Teacher.load(config.teacher) if config.teacher is not None else None
    written = keep_features(read_pictures(config.pictures), config.out, encoder, guide)
    return f"wrote the features of {written} pictures to {config.out}"


def plant_faults(config: PlantingConfig) -> str:
    """Plant faults into real pictures and see them through the shared encoder."""
    from foundation.features import load_encoder
    from foundation.files import check_folder
    from rahf.data.pictures import read_pictures
    from rahf.training.judge_data import read_parts
    from rahf.training.planting import keep_planted

    check_folder(config.out)
    pictures, parts = read_pictures(config.pictures), read_parts(config.parts)
    written = keep_planted(pictures, config.out, load_encoder(config.device), parts, config.seeds)
    return f"wrote the features of {written} spoiled pictures to {config.out}"


def train_pictures(config: JudgeRunConfig) -> str:
    """Train the judge of real pictures on kept features.

    Interrupted and started again it goes on with the first head that is not there.
    """
    from foundation.files import check_folder
    from rahf.data.pictures import read_pictures
    from rahf.training.judge import train_judge

    check_folder(config.out)
    train_judge(
        read_pictures(config.pictures),
        config.features,
        config.planted,
        config.parts,
        config.text,
        config.composed,
        config.out,
        config,
    )
    return f"wrote {config.out}"
