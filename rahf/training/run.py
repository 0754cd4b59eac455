"""`rahf train` and `rahf recognize`: a configuration becomes a network, its samples, and a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from rahf.model.config import VARIANTS, preset
from rahf.model.loading import resolve_weights, weights_folder
from rahf.model.rahf import RAHF
from rahf.model.towers import load_fitting, load_recognition, load_towers
from rahf.prompts import TextTokenizer, load_tokenizer
from rahf.training.auxiliary import Auxiliary
from rahf.training.feedback import TrainConfig, train
from rahf.training.recognition import RecognitionConfig, train_recognition
from rahf.training.sources import SampleChoice, open_samples, with_photographs


@dataclass(frozen=True)
class FeedbackRunConfig(TrainConfig):
    """A run of `rahf train`.

    Attributes:
        model: preset: small, paper or public.
        init: weights folder to start from.
        grow: with --init: build --model anew and take over what fits, of an earlier architecture.
        vit: pretrained ViT to start from: Hub repository or folder.
        t5: pretrained T5 to start from: Hub repository or folder.
        recognition: weights to take the image tower and its keys from.
        variant: a head for each output, or one for all that the prompt tells what to predict.
        blind: hide an input; empty hides none.
        scenes: sprite library: train on composed scenes.
        count: composed scenes in all.
        photographs: with --scenes: photographs to plant faults into.
        photograph_share: part of the samples that are photographs.
        records: RichHF-18K TFRecords; repeatable.
        images: folder of the records' images.
        prompts: table of the records' prompts.
        auxiliary: with --scenes: teach tokens what they lie on, and words whether they fit.
    """

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **TrainConfig.choices,
        "variant": VARIANTS,
        "blind": ("", "image", "text"),
    }

    model: str = "small"
    init: Path | None = None
    grow: bool = False
    vit: str | None = None
    t5: str | None = None
    recognition: str | None = None
    variant: str = "multi_head"
    blind: str = ""
    scenes: Path | None = None
    count: int = 100_000
    photographs: Path | None = None
    photograph_share: float = 0.2
    records: tuple[Path, ...] = ()
    images: Path | None = None
    prompts: Path | None = None
    auxiliary: bool = False


@dataclass(frozen=True)
class RecognitionRunConfig(RecognitionConfig):
    """A run of `rahf recognize`.

    Attributes:
        scenes: sprite library.
        init: weights folder to start from; else the preset `small`.
    """

    scenes: Path = field(kw_only=True)
    init: Path | None = None


def train_feedback(config: FeedbackRunConfig) -> Path:
    """Train a model, on composed scenes or on RichHF-18K.

    Raises ValueError for settings that do not go together, before anything is written.
    """
    torch.manual_seed(config.seed)
    init = weights_folder(config.init) if config.init else None
    network = _network(config, init)
    size = network.config.image_size
    choice = SampleChoice(config.scenes, config.count, config.seed, config.records, config.images, config.prompts)
    source = open_samples(choice, "train", size)
    load_towers(network, config.vit, config.t5, pyramid=init is None)
    if config.recognition is not None:
        load_recognition(network, str(resolve_weights(config.recognition)))
    tokenizer = load_tokenizer(network.config, init)
    auxiliary = _auxiliary(network, source, tokenizer) if config.auxiliary else None
    if config.photographs is not None:
        source = with_photographs(source, config.photographs, config.photograph_share, config.seed, size)
    return train(network, source, tokenizer, config, auxiliary)


def recognize(config: RecognitionRunConfig) -> Path:
    """Teach the image tower what single sprites show.

    `rahf train --init` goes on from there.
    """
    from rahf.data.sprites import SpriteLibrary

    torch.manual_seed(config.seed)
    init = weights_folder(config.init) if config.init else None
    network = RAHF.from_pretrained(init) if init else load_towers(RAHF(preset("small")), pyramid=True)
    tokenizer = load_tokenizer(network.config, init)
    return train_recognition(network, SpriteLibrary.load(config.scenes), tokenizer, config)


def _network(config: FeedbackRunConfig, init: Path | None) -> RAHF:
    if init is not None and not config.grow:
        network = RAHF.from_pretrained(init)
    else:
        network = RAHF(preset(config.model).changed(variant=config.variant))
        if init is not None:
            load_fitting(network, str(init))
    network.config = network.config.changed(blind=config.blind)
    return network


def _auxiliary(network: RAHF, source: object, tokenizer: TextTokenizer) -> Auxiliary:
    from rahf.data.grammar import COLOURS
    from rahf.data.scenes import ComposedScenes

    if not isinstance(source, ComposedScenes):
        raise ValueError("--auxiliary needs --scenes: only there is it known what lies where")
    return Auxiliary(network, tokenizer, sorted(source.sprites), list(COLOURS))
