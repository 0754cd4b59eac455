"""A stage of training on its own: the image tower learns what single sprites show, and where they are spoiled.

In a composed scene an object is one of several and its picture costs a whole image; here every small picture is one
object, so that many more of them can be seen in the same time. Only what turns pixels into matches with words is
trained: the image tower, its projection, the keys of the matching and the words' spelling; and a layer that spots
faults, which is left out of the weights. `rahf.training.feedback` goes on.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from rahf.data.augment import Augmentation
from rahf.data.faults import OBJECT_FAULTS, is_visible, spread
from rahf.data.grammar import COLOURS
from rahf.data.samples import Sample, SceneObject
from rahf.data.scenes import TEST_GROUNDS, TRAIN_GROUNDS, degrade, ground, part_of, paste
from rahf.data.sprites import Sprite, SpriteLibrary
from rahf.model.config import HEATMAPS
from rahf.model.rahf import RAHF
from rahf.model.towers import RECOGNITION
from rahf.prompts import TextTokenizer
from rahf.training.auxiliary import GROUND, Auxiliary, Places, places_of
from rahf.training.optimization import append_log, parameter_groups

logger = logging.getLogger(__name__)

SIDE = 96  # pixels of the small pictures; a multiple of 32
TINTED, SPOILED, DEGRADED = 0.5, 0.5, 0.3


@dataclass(frozen=True)
class RecognitionConfig:
    """How to train; the learning rate goes down to zero as a cosine, and the tower gets `tower_rate` of it.

    Raises ValueError for counts below 1.
    """

    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-3
    tower_rate: float = 0.3
    weight_decay: float = 0.05
    warmup: int = 30
    seed: int = 0
    mixed_precision: str = "no"
    log_every: int = 50
    save_every: int = 200
    grounding: float = 1.0
    spotting: float = 4.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "warmup", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


class Matcher(nn.Module):
    """Small pictures -> the losses of matching their tokens with words, by a model's own tower and matching, and of
    spotting faults."""

    def __init__(self, model: RAHF, auxiliary: Auxiliary) -> None:
        super().__init__()
        self.model, self.auxiliary = model, auxiliary

    def forward(
        self, pictures: Tensor, places: Places, implausibility: Tensor, corner: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """pictures (B,3,S,S) in [0, 1]; implausibility (B,s,s); `corner`: which part of the model's own grid their
        tokens take the place of."""
        visual = self.model.encode_part(pictures, corner)
        return self.auxiliary.grounding(self.model, visual, places), self.auxiliary.spotting(visual, implausibility)


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


def train_recognition(
    model: RAHF, library: SpriteLibrary, tokenizer: TextTokenizer, out: str | Path, config: RecognitionConfig
) -> Path:
    """Train the tower and the matching on training sprites; writes weights and `recognition.jsonl` into `out`.

    Raises ValueError for a model without word embeddings or without a feature pyramid.
    """
    out = Path(out)
    sprites = library.split("train")
    auxiliary = Auxiliary(model, tokenizer, sorted(sprites), list(COLOURS))
    learned = [p for name, p in model.named_parameters() if name.startswith(RECOGNITION)]
    groups = parameter_groups(model.image_tower, [*learned, *auxiliary.implausible.parameters()], config.tower_rate)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    matcher, optimizer = accelerator.prepare(Matcher(model, auxiliary), optimizer)
    matcher.train()
    generator = np.random.default_rng([config.seed, accelerator.process_index])
    augment, losses = Augmentation(crop_chance=0), []
    progress = tqdm(range(config.steps), desc="recognition", disable=not accelerator.is_main_process)
    for step in progress:
        rate = config.learning_rate * min(1, (step + 1) / config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * step / config.steps)) / 2 * group["part"]
        samples = [
            augment(single_object(sprites, TRAIN_GROUNDS, generator), generator) for _ in range(config.batch_size)
        ]
        pictures, places = _batch(samples, auxiliary, accelerator.device)
        faults = torch.from_numpy(np.stack([sample.heatmaps[HEATMAPS[0]] for sample in samples]))
        free = model.config.grid - SIDE // model.config.patch_size
        corner = (int(generator.integers(free + 1)), int(generator.integers(free + 1)))
        with accelerator.autocast():
            matching, spotting = matcher(pictures, places, faults.to(accelerator.device), corner)
            loss = config.grounding * matching + config.spotting * spotting
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
        losses.append((float(matching.detach()), float(spotting.detach())))
        if (step + 1) % config.log_every == 0 and accelerator.is_main_process:
            accuracy = recognised(model, library, tokenizer, "test", 320, config.mixed_precision)
            grounding, spotting = (round(float(value), 4) for value in np.mean(losses, axis=0))
            found = {"grounding": grounding, "spotting": spotting, **accuracy}
            append_log(out / "recognition.jsonl", step + 1, found)
            progress.set_postfix(found)
            losses = []
            matcher.train()
        if (step + 1) % config.save_every == 0 and accelerator.is_main_process:
            model.save_pretrained(out)
    if accelerator.is_main_process:
        model.save_pretrained(out)
    return out


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
        pictures, places = _batch(samples, auxiliary, model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            visual = model.encode_part(pictures, (middle, middle))
            logits = {sense: auxiliary.logits(model, visual, sense).float() for sense in found}
        for sense, target in (("noun", places.nouns), ("colour", places.colours)):
            for row, wanted in zip(logits[sense][..., GROUND + 1 :], target, strict=True):
                if bool((on := wanted > GROUND).any()):
                    best = int(row[on].softmax(dim=-1).mean(dim=0).argmax()) + 1
                    found[sense].append(best == int(wanted[on][0]))
    return {sense: round(float(np.mean(hits)), 3) for sense, hits in found.items()}


def _batch(samples: Sequence[Sample], auxiliary: Auxiliary, device: torch.device) -> tuple[Tensor, Places]:
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    pictures = images.permute(0, 3, 1, 2).float() / 255
    places = places_of(samples, SIDE // 16, auxiliary.nouns, auxiliary.colours)
    return pictures.to(device, memory_format=torch.channels_last), places.to(device)
