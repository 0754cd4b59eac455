"""Does the embedded generator draw what it is asked for? An independent recogniser counts objects and tells colours.

    python studies/generator.py train SPRITES AUTOENCODER OUT          the recogniser, and its score on true scenes
    python studies/generator.py evaluate RECOGNISER SPRITES GENERATOR [--out studies/generator.json]

SPRITES is a library of `rahf sprites`; AUTOENCODER the generator's. The recogniser is a small detector on frozen
ImageNet features, of training sprites of the generator's nouns, emoji and clip art, at any size and place, in scenes of
other seeds, half of them seen through the autoencoder. No tool of `rahf.improve` sees it. `evaluate` draws 300 prompts
whose plans were held out, and reads true scenes of the same plans, of the generator's and of test sprites, for the
ceiling, and the drawn pictures against the prompts of others, for chance.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionInpaintPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foundation.efficientnet import pretrained_trunk
from foundation.files import write_text
from rahf.data.drawable import NOUNS, draw_plan, draw_prompts
from rahf.data.grammar import COLOURS, Plan
from rahf.data.scenes import draw as draw_objects
from rahf.data.scenes import ground
from rahf.data.sprites import Sprite, SpriteLibrary
from rahf.training.generator.autoencoder import to_pixels, to_tensor
from rahf.training.generator.denoiser import draw, sheet
from rahf.training.generator.scenes import GROUNDS, SIDE, draw_plainly, drawable_sprites

logger = logging.getLogger("generator")
GRID = 16
CHANNELS = 24 + 40 + 112 + 320
TRAINING_SCENES, TRAINING_SEED, VALIDATION_SEED, TRUE_SEED = 3_000, 7_001, 7_002, 7_003
PASSES, BATCH, RATE = 8, 32, 2e-3
THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
PROMPTS, PROMPT_SEED, DRAW_SEED = 300, 11, 3
COLOUR_NAMES = list(COLOURS)


@dataclass(frozen=True)
class Seen:
    """An object that the recogniser sees."""

    noun: str
    colour: str
    score: float


class Recogniser(nn.Module):
    """Pictures -> for each of 16 x 16 cells, how surely an object of each noun has its middle there, and its colour."""

    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Conv2d(CHANNELS, 128, 1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, len(NOUNS) + len(COLOURS), 1),
        )
        nn.init.constant_(self.head[-1].bias[: len(NOUNS)], -4.0)  # type: ignore[index]
        self.register_buffer("threshold", torch.tensor(0.3))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B,CHANNELS,16,16) -> logits of nouns (B,N,16,16) and of colours (B,C,16,16)."""
        output = self.head(features)
        return output[:, : len(NOUNS)], output[:, len(NOUNS) :]


class Features:
    """The frozen trunk's levels at strides 4 to 32, on the grid of stride 8."""

    def __init__(self) -> None:
        self.trunk = pretrained_trunk()

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> Tensor:
        """(N,128,128,3) uint8 -> (N,CHANNELS,16,16) float16."""
        rows = []
        for start in range(0, len(pictures), 32):
            levels = self.trunk((to_tensor(pictures[start : start + 32]) + 1) / 2)[1:]
            rows.append(
                torch.cat([F.adaptive_avg_pool2d(levels[0], GRID), levels[1], *map(_wider, levels[2:])], 1).half()
            )
        return torch.cat(rows)


def _wider(level: Tensor) -> Tensor:
    return F.interpolate(level, size=(GRID, GRID), mode="bilinear")


def sprites_of(library: Path, split: str) -> dict[str, list[Sprite]]:
    """All sprites of a split of the generator's nouns."""
    return {noun: kept for noun, kept in SpriteLibrary.load(library).split(split).items() if noun in NOUNS}


def true_scene(
    plan: Plan, sprites: Mapping[str, list[Sprite]], generator: np.random.Generator
) -> tuple[np.ndarray, list[tuple[str, str | None, float, float]]]:
    """A picture of a plan (128,128,3), and of each object noun, colour and the middle in cells."""
    picture = ground(str(generator.choice(GROUNDS)), SIDE, generator).astype(np.float32)
    pale = (255 - (255 - picture) * generator.uniform(0.4, 0.7)).round().astype(np.uint8)
    picture, instances, _ = draw_objects(pale, plan, dict(sprites), generator)
    objects = []
    for item in instances:
        x, y, width, height = item.box
        group = plan.groups[item.group]
        objects.append(
            (group.noun, group.colour, (x + width / 2) * GRID / SIDE - 0.5, (y + height / 2) * GRID / SIDE - 0.5)
        )
    return picture, objects


def targets_of(objects: Sequence[tuple[str, str | None, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Soft peaks (N,16,16) in [0, 1] with 1 at the middles, and colours (16,16), -1 where none is known."""
    rows, columns = np.mgrid[0:GRID, 0:GRID]
    peaks = np.zeros((len(NOUNS), GRID, GRID), np.float32)
    colours = np.full((GRID, GRID), -1, np.int64)
    for noun, colour, x, y in objects:
        x, y = round(x), round(y)
        near = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 2).astype(np.float32)
        index = NOUNS.index(noun)
        peaks[index] = np.maximum(peaks[index], near)
        if colour is not None:
            colours[near > 0.3] = COLOUR_NAMES.index(colour)
    return peaks, colours


def loss_of(nouns: Tensor, colours: Tensor, peaks: Tensor, wanted: Tensor) -> Tensor:
    """The focal loss of CenterNet (Zhou et al. 2019) for the middles, cross-entropy for the colours round them."""
    chance = nouns.sigmoid().clamp(1e-4, 1 - 1e-4)
    at = (peaks > 0.999).float()
    hit = at * (1 - chance) ** 2 * chance.log()
    miss = (1 - at) * (1 - peaks) ** 4 * chance**2 * (1 - chance).log()
    colour = F.cross_entropy(colours, wanted, ignore_index=-1) if bool((wanted >= 0).any()) else colours.sum() * 0
    return -(hit + miss).sum() / at.sum().clamp(min=1) + colour


@torch.no_grad()
def look(model: Recogniser, features: Tensor, threshold: float | None = None) -> list[list[Seen]]:
    """What is seen in each picture: peaks of the surest noun, no two within a cell of each other."""
    model.eval()
    least = float(model.threshold) if threshold is None else threshold
    result = []
    for start in range(0, len(features), 64):
        nouns, colours = model(features[start : start + 64].float())
        best, index = nouns.sigmoid().max(dim=1)
        tops = (best >= F.max_pool2d(best[:, None], 3, 1, 1)[:, 0]) & (best > least)
        around = F.avg_pool2d(colours.softmax(dim=1), 3, 1, 1).argmax(dim=1)
        for row in range(len(best)):
            result.append(
                [
                    Seen(NOUNS[int(index[row, y, x])], COLOUR_NAMES[int(around[row, y, x])], float(best[row, y, x]))
                    for y, x in tops[row].nonzero().tolist()
                ]
            )
    return result


def verdict(seen: Sequence[Seen], plan: Plan) -> dict[str, bool | None]:
    """Whether the kinds of objects are those asked for, all colours that were named, and all counts."""
    kinds = {item.noun for item in seen} == {group.noun for group in plan.groups}
    colours: list[bool] = []
    counts = True
    for group in plan.groups:
        mine = [item for item in seen if item.noun == group.noun]
        counts = counts and len(mine) == group.count
        if group.colour is not None:
            fitting = sum(item.colour == group.colour for item in mine)
            colours.append(bool(mine) and 2 * fitting > len(mine))
    return {"objects": kinds, "colours": all(colours) if colours else None, "counts": counts}


def shares(seen: Sequence[Sequence[Seen]], plans: Sequence[Plan], seed: int = 0) -> dict[str, list[float]]:
    """The share of pictures that are right in each way, and its 95% bootstrap interval."""
    verdicts = [verdict(items, plan) for items, plan in zip(seen, plans, strict=True)]
    generator = np.random.default_rng(seed)
    result = {}
    for name in ("objects", "colours", "counts"):
        values = np.array([item[name] for item in verdicts if item[name] is not None], float)
        means = values[generator.integers(len(values), size=(2000, len(values)))].mean(axis=1)
        result[name] = [round(float(v), 3) for v in (values.mean(), *np.percentile(means, [2.5, 97.5]))]
    return result


def true_scenes(
    count: int, seed: int, sprites: Mapping[str, list[Sprite]], plans: Sequence[Plan] | None = None
) -> tuple[np.ndarray, list[list[tuple[str, str | None, float, float]]], list[Plan]]:
    """Pictures, objects and plans; random plans, held out or not, if none are given."""
    pictures, objects, drawn = [], [], []
    for index in range(count):
        generator = np.random.default_rng([seed, index])
        plan = plans[index] if plans is not None else draw_plan(generator, bool(generator.random() < 0.1))
        picture, there = true_scene(plan, sprites, generator)
        pictures.append(picture)
        objects.append(there)
        drawn.append(plan)
    return np.stack(pictures), objects, drawn


@torch.no_grad()
def through(autoencoder: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """Pictures as the autoencoder gives them back."""
    rows = []
    for start in range(0, len(pictures), 16):
        latents = autoencoder.encode(to_tensor(pictures[start : start + 16])).latent_dist.mode()
        rows.append(to_pixels(autoencoder.decode(latents).sample))
    return np.concatenate(rows)


def train(library: Path, autoencoder_folder: Path, out: Path) -> None:
    """Train the recogniser and write it with its score on true scenes."""
    torch.manual_seed(0)
    autoencoder = AutoencoderKL.from_pretrained(autoencoder_folder).eval()
    features = Features()
    sprites = sprites_of(library, "train")
    pictures, objects, _ = true_scenes(TRAINING_SCENES, TRAINING_SEED, sprites)
    pictures[::2] = through(autoencoder, pictures[::2])
    seen = features(pictures)
    pairs = [targets_of(there) for there in objects]
    peaks, colours = (
        torch.from_numpy(np.stack([p for p, _ in pairs])),
        torch.from_numpy(np.stack([c for _, c in pairs])),
    )
    model = Recogniser().train()
    steps = PASSES * len(seen) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(seen), (BATCH,))
        nouns, shades = model(seen[rows].float())
        loss = loss_of(nouns, shades, peaks[rows], colours[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            logger.info("step %d of %d: loss %.3f", step, steps, float(loss))
    pictures, _, plans = true_scenes(300, VALIDATION_SEED, sprites)
    seen = features(through(autoencoder, pictures))
    best = max(THRESHOLDS, key=lambda level: shares(look(model, seen, level), plans)["counts"][0])
    model.threshold.fill_(best)
    out.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), out / "recogniser.safetensors")
    logger.info("threshold %.2f; %s", best, shares(look(model, seen), plans))


def load(folder: Path) -> Recogniser:
    """The recogniser that `train` wrote."""
    model = Recogniser()
    model.load_state_dict(load_file(folder / "recogniser.safetensors"))
    return model.eval()


def evaluate(folder: Path, library: Path, generator: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All shares of a generator, with ceilings and chance."""
    model, features = load(folder), Features()
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(generator, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    asked = draw_prompts(options.count, options.seed)
    prompts, plans = [prompt for prompt, _ in asked], [plan for _, plan in asked]
    pictures = np.concatenate(
        [
            draw(pipeline, prompts[start : start + 20], DRAW_SEED + start, options.steps, options.guidance)
            for start in range(0, len(prompts), 20)
        ]
    )
    seen = look(model, features(pictures))
    result: dict[str, Any] = {"generator": shares(seen, plans), "other prompts": shares(seen, plans[1:] + plans[:1])}
    shown = drawable_sprites(library)
    unseen = sprites_of(library, "test")
    for name, sprites in (("the generator's sprites", shown), ("test sprites", unseen)):
        scenes = np.stack(
            [draw_plainly(plan, sprites, np.random.default_rng([TRUE_SEED, i]))[0] for i, plan in enumerate(plans)]
        )
        result[f"true scenes, {name}"] = shares(look(model, features(scenes)), plans)
        again = through(pipeline.vae, scenes)
        result[f"true scenes, {name}, through the autoencoder"] = shares(look(model, features(again)), plans)
    write_text(out, json.dumps({"steps": options.steps, "guidance": options.guidance, **result}, indent=1) + "\n")
    from PIL import Image

    Image.fromarray(sheet(pictures[:40])).save(out.with_suffix(".png"))
    return result


def main() -> None:
    """One of the two commands."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    for name in ("sprites", "autoencoder", "out"):
        training.add_argument(name, type=Path)
    judging = commands.add_parser("evaluate")
    for name in ("recogniser", "sprites", "generator"):
        judging.add_argument(name, type=Path)
    judging.add_argument("--out", type=Path, default=Path("studies/generator.json"))
    judging.add_argument("--count", type=int, default=PROMPTS)
    judging.add_argument("--seed", type=int, default=PROMPT_SEED)
    judging.add_argument("--steps", type=int, default=25)
    judging.add_argument("--guidance", type=float, default=3.0)
    options = parser.parse_args()
    if options.command == "train":
        train(options.sprites, options.autoencoder, options.out)
    else:
        result = evaluate(options.recogniser, options.sprites, options.generator, options.out, options)
        logger.info("%s", json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
