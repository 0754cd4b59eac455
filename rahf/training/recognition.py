"""A stage of training on its own: the image tower learns what single sprites show, and where they are spoiled.

In a composed scene an object is one of several and its picture costs a whole image; here every small picture is one
object, so that many more of them can be seen in the same time. Only what turns pixels into matches with words is
trained: the image tower, its projection, the keys of the matching and the words' spelling; and a layer that spots
faults, which is left out of the weights. `rahf.training.feedback` goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from foundation.limits import Limit
from foundation.training import TrainingConfig, TrainingRun
from rahf.data.augment import Augmentation
from rahf.data.faults import OBJECT_FAULTS, is_visible, spread
from rahf.data.grammar import COLOURS
from rahf.data.samples import Sample, SceneObject
from rahf.data.scenes import TEST_GROUNDS, TRAIN_GROUNDS, degrade, ground, part_of, paste
from rahf.data.sprites import Sprite, SpriteLibrary
from rahf.limits import TRAINING
from rahf.model.config import HEATMAPS
from rahf.model.rahf import RAHF
from rahf.model.towers import RECOGNITION
from rahf.prompts import TextTokenizer
from rahf.training.auxiliary import GROUND, Auxiliary, Places, places_of
from rahf.training.optimization import parameter_groups

SIDE = 96  # pixels of the small pictures; a multiple of 32
TINTED, SPOILED, DEGRADED = 0.5, 0.5, 0.3


@dataclass(frozen=True)
class RecognitionConfig(TrainingConfig):
    """How to train recognition.

    Attributes:
        tower_rate: learning rate of the image tower, as a part of the rest's.
        grounding: weight of the loss of matching tokens with words.
        spotting: weight of the loss of spotting faults.
    """

    limits: ClassVar[Mapping[str, Limit]] = TRAINING

    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 30
    weight_decay: float = 0.05
    ema_decay: float = 0.0
    precision: str = "no"
    log_every: int = 50
    tower_rate: float = 0.3
    grounding: float = 1.0
    spotting: float = 4.0


@dataclass(frozen=True)
class ObjectBatch:
    """pictures (B,3,S,S) in [0, 1], what lies where in them, their implausibility (B,S,S), and `corner`: which part of
    the model's own grid their tokens take the place of."""

    pictures: Tensor
    places: Places
    implausibility: Tensor
    corner: tuple[int, int]

    def to(self, device: torch.device | str) -> "ObjectBatch":
        """The batch on another device."""
        return ObjectBatch(
            self.pictures.to(device, memory_format=torch.channels_last),
            self.places.to(device),
            self.implausibility.to(device),
            self.corner,
        )


class RecognitionObjective(nn.Module):
    """Small pictures -> the losses of matching their tokens with words, by a model's own tower and matching, and of
    spotting faults."""

    def __init__(self, model: RAHF, auxiliary: Auxiliary, config: RecognitionConfig) -> None:
        super().__init__()
        self.model, self.auxiliary, self.config = model, auxiliary, config

    def forward(self, batch: ObjectBatch) -> tuple[Tensor, dict[str, Tensor]]:
        visual = self.model.encode_part(batch.pictures, batch.corner)
        matching = self.auxiliary.grounding(self.model, visual, batch.places)
        spotting = self.auxiliary.spotting(visual, batch.implausibility)
        loss = self.config.grounding * matching + self.config.spotting * spotting
        return loss, {"grounding": matching.detach(), "spotting": spotting.detach()}


class ObjectBatches:
    """The batch of each step: single sprites, made anew by seed and step."""

    def __init__(
        self, sprites: dict[str, list[Sprite]], auxiliary: Auxiliary, config: RecognitionConfig, free: int
    ) -> None:
        """`free`: by how many patches the model's own grid is wider than that of the small pictures."""
        self.sprites, self.config, self.free = sprites, config, free
        self.words = (auxiliary.nouns, auxiliary.colours)
        self.augment = Augmentation(crop_chance=0)

    def __call__(self, step: int, process: int, processes: int) -> ObjectBatch:
        """One process's part of the batch of a step."""
        generator = np.random.default_rng([self.config.seed, step, process])
        samples = [
            self.augment(single_object(self.sprites, TRAIN_GROUNDS, generator), generator)
            for _ in range(self.config.batch_size // processes)
        ]
        corner = (int(generator.integers(self.free + 1)), int(generator.integers(self.free + 1)))
        pictures, places = stacked(samples, *self.words)
        faults = torch.from_numpy(np.stack([sample.heatmaps[HEATMAPS[0]] for sample in samples]))
        return ObjectBatch(pictures, places, faults, corner)


def single_object(sprites: dict[str, list[Sprite]], grounds: Sequence[str], generator: np.random.Generator) -> Sample:
    """One sprite of a random noun before a ground, perhaps tinted, spoiled, degraded."""
    noun = str(generator.choice(sorted(sprites)))
    sprite = sprites[noun][int(generator.integers(len(sprites[noun])))]
    image = ground(str(generator.choice(grounds)), SIDE, generator)
    side = int(generator.uniform(0.38, 0.96) * SIDE)
    x, y = (int(generator.integers(SIDE - side + 1)) for _ in range(2))
    colour = str(generator.choice(list(COLOURS))) if generator.random() < TINTED else None
    image, instance = paste(image, sprite.pixels, (x, y, side, side), colour, 0, generator)
    heatmap = np.zeros(image.shape[:2], np.float32)
    if generator.random() < SPOILED:
        fault, severity = OBJECT_FAULTS[str(generator.choice(list(OBJECT_FAULTS)))], float(generator.uniform(0.4, 1))
        spoiled, mask = fault(image, part_of(instance.box, generator), severity, generator)
        if is_visible(image, spoiled, mask):
            image, heatmap = spoiled, spread(mask, 0.4 + 0.6 * severity)
    if generator.random() < DEGRADED:
        image, _ = degrade(image, generator)
    objects = (SceneObject(instance.mask, noun, colour),)
    return Sample(noun, np.ascontiguousarray(image), noun, {HEATMAPS[0]: heatmap}, objects=objects)


def train_recognition(model: RAHF, library: SpriteLibrary, tokenizer: TextTokenizer, config: RecognitionConfig) -> Path:
    """Train the tower and the matching on training sprites; weights and `log.jsonl` go to the folder `config.out`.

    A folder that holds a state goes on from it. Raises ValueError for a model without word embeddings or without a
    feature pyramid, or a state of another configuration.
    """
    sprites = library.split("train")
    auxiliary = Auxiliary(model, tokenizer, sorted(sprites), list(COLOURS))
    learned = [p for name, p in model.named_parameters() if name.startswith(RECOGNITION)]
    learned += auxiliary.implausible.parameters()
    groups = parameter_groups(model.image_tower, learned, config.learning_rate, config.tower_rate)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = ObjectBatches(sprites, auxiliary, config, model.config.grid - SIDE // model.config.patch_size)
    run = TrainingRun(config, RecognitionObjective(model, auxiliary, config).train(), groups, batches)
    run.train(
        validate=lambda: recognised(model, library, tokenizer, "test", 320, config.precision),
        save=lambda: model.save_pretrained(config.out),
    )
    return config.out


@torch.no_grad()
def recognised(
    model: RAHF, library: SpriteLibrary, tokenizer: TextTokenizer, split: str, count: int, precision: str = "no"
) -> dict[str, float]:
    """Part of `count` single sprites of a split whose noun, and whose colour, is the best match among all."""
    model.eval()
    nouns = sorted(library.split("train"))
    auxiliary = Auxiliary(model, tokenizer, nouns, list(COLOURS))
    sprites = {noun: kept for noun, kept in library.split(split).items() if noun in nouns}
    grounds = TRAIN_GROUNDS if split == "train" else TEST_GROUNDS
    generator = np.random.default_rng(5)
    found: dict[str, list[bool]] = {"noun": [], "colour": []}
    middle = (model.config.grid - SIDE // model.config.patch_size) // 2
    for start in range(0, count, 64):
        samples = [single_object(sprites, grounds, generator) for _ in range(min(64, count - start))]
        pictures, places = stacked(samples, auxiliary.nouns, auxiliary.colours)
        pictures, places = pictures.to(model.device, memory_format=torch.channels_last), places.to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            visual = model.encode_part(pictures, (middle, middle))
            logits = {sense: auxiliary.logits(model, visual, sense).float() for sense in found}
        for sense, target in (("noun", places.nouns), ("colour", places.colours)):
            for row, wanted in zip(logits[sense][..., GROUND + 1 :], target, strict=True):
                if bool((on := wanted > GROUND).any()):
                    best = int(row[on].softmax(dim=-1).mean(dim=0).argmax()) + 1
                    found[sense].append(best == int(wanted[on][0]))
    return {sense: round(float(np.mean(hits)), 3) for sense, hits in found.items()}


def stacked(samples: Sequence[Sample], nouns: Sequence[str], colours: Sequence[str]) -> tuple[Tensor, Places]:
    """Pictures (B,3,S,S) in [0, 1] of single sprites, and what lies where in them."""
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    return images.permute(0, 3, 1, 2).float() / 255, places_of(samples, SIDE // 16, nouns, colours)
