"""Pictures that the embedded generator learns from: true scenes of few sprites before quiet grounds, kept on disk.

Objects have one size and stand on the grid of the latents, so that a sprite looks the same to the denoiser wherever it
stands: drawn at any size and place, its shapes were not learned in the time of a CPU (`studies/generator.md`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundation.files import new_folder
from rahf.data.drawable import NOUNS, draw_plan
from rahf.data.faults import Box
from rahf.data.grammar import Plan, write_prompt
from rahf.data.scenes import ground, paste
from rahf.data.sprites import EMOJI, INDEX, Sprite, SpriteLibrary

SIDE = 128
GROUNDS: tuple[str, ...] = ("plain", "gradient")
PALENESS = 0.5  # how far the grounds are drawn towards white, so that objects stand out from them
SPRITES_PER_NOUN = 1
STRIDE = 8  # pixels to a latent
OBJECT = 56  # side of an object; several have a quarter of the picture each
MOST_OBJECTS = 4
PICTURES, PROMPTS, BOXES = "pictures.npy", "prompts.json", "boxes.npy"


@dataclass(frozen=True, eq=False)
class Scenes:
    """pictures (N,S,S,3) uint8; their prompts; boxes (N,MOST_OBJECTS,4) int16 of the objects: x, y, width, height, zero
    where there is none."""

    pictures: np.ndarray
    prompts: list[str]
    boxes: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> "Scenes":
        """Scenes that `prepare_scenes` wrote. Raises ValueError if the folder holds none."""
        try:
            prompts = json.loads((folder / PROMPTS).read_text(encoding="utf-8"))
            return cls(np.load(folder / PICTURES, mmap_mode="r"), prompts, np.load(folder / BOXES))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no scenes ({error}); make them with `rahf generator-scenes`") from error


def drawable_sprites(library: str | Path, split: str = "train") -> dict[str, list[Sprite]]:
    """The sprites of a library's split that the generator is shown: few emoji of each drawable noun.

    Raises ValueError if the library lacks one of the nouns.
    """
    folder = Path(library)
    sprites = SpriteLibrary.load(folder).split(split)
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    emoji = {entry["file"] for entry in index if entry["kind"] == EMOJI}
    chosen = {
        noun: [sprite for sprite in sprites.get(noun, []) if sprite.source in emoji][:SPRITES_PER_NOUN]
        for noun in NOUNS
    }
    missing = [noun for noun, kept in chosen.items() if not kept]
    if missing:
        raise ValueError(f"{folder} has no emoji of {', '.join(missing)}; make a library of all folders of emoji")
    return chosen


def draw_scene(
    sprites: Mapping[str, list[Sprite]], generator: np.random.Generator, held_out: bool = False
) -> tuple[np.ndarray, str, np.ndarray]:
    """A true scene: picture (S,S,3) uint8, prompt, boxes (MOST_OBJECTS,4)."""
    plan = draw_plan(generator, held_out)
    prompt, _ = write_prompt(plan, generator)
    picture, placed = draw_plainly(plan, sprites, generator)
    boxes = np.zeros((MOST_OBJECTS, 4), np.int16)
    boxes[: len(placed)] = [box for _, box in placed]
    return picture, prompt, boxes


def draw_plainly(
    plan: Plan, sprites: Mapping[str, list[Sprite]], generator: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, Box]]]:
    """A picture (S,S,3) uint8 of a plan as the generator learns it, and group and box of each object."""
    picture = ground(str(generator.choice(GROUNDS)), SIDE, generator).astype(np.float32)
    picture = (255 - (255 - picture) * (1 - PALENESS)).round().astype(np.uint8)
    chosen = [sprites[group.noun][int(generator.integers(len(sprites[group.noun])))] for group in plan.groups]
    placed = []
    for group, box in arrange(plan, generator):
        colour = plan.groups[group].colour
        picture, item = paste(picture, chosen[group].pixels, box, colour, group, generator)
        placed.append((group, item.box))
    return picture, placed


def arrange(plan: Plan, generator: np.random.Generator) -> list[tuple[int, Box]]:
    """Group and box of each object: one alone anywhere, several each in a quarter, so that the relation holds."""
    counts = [group.count for group in plan.groups]
    if sum(counts) == 1:
        x, y = STRIDE * generator.integers((SIDE - OBJECT) // STRIDE + 1, size=2)
        return [(0, (int(x), int(y), OBJECT, OBJECT))]
    half = SIDE // 2
    if len(counts) == 1:
        quarters = [(0, int(place)) for place in generator.permutation(4)[: counts[0]]]
    else:
        upright = plan.relation in ("above", "below") if plan.relation else bool(generator.random() < 0.5)
        turned = plan.relation in ("below", "right") if plan.relation else bool(generator.random() < 0.5)
        sides = [(0, 1), (2, 3)] if upright else [(0, 2), (1, 3)]
        quarters = [
            (group, int(place))
            for group, side in enumerate(sides[::-1] if turned else sides)
            for place in generator.permutation(side)[: counts[group]]
        ]
    boxes = []
    for group, place in quarters:
        free = STRIDE * generator.integers((half - OBJECT) // STRIDE + 1, size=2)
        boxes.append((group, (half * (place % 2) + int(free[0]), half * (place // 2) + int(free[1]), OBJECT, OBJECT)))
    return boxes


def prepare_scenes(scenes: Path, out: Path, count: int = 10_000, seed: int = 0) -> Path:
    """Draw the generator's training pictures into a new folder.

    Args:
        scenes: sprite library.
        out: new folder.
        count: pictures.
        seed: of all of them.

    Raises:
        FileExistsError: if `out` exists.
        ValueError: if the library lacks a noun.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a folder that does not")
    sprites = drawable_sprites(scenes)
    prompts: list[str] = []
    with new_folder(out) as partial:
        pictures = np.lib.format.open_memmap(partial / PICTURES, "w+", np.uint8, (count, SIDE, SIDE, 3))
        boxes = np.zeros((count, MOST_OBJECTS, 4), np.int16)
        for index in range(count):
            pictures[index], prompt, boxes[index] = draw_scene(sprites, np.random.default_rng([seed, index]))
            prompts.append(prompt)
        pictures.flush()
        np.save(partial / BOXES, boxes)
        (partial / PROMPTS).write_text(json.dumps(prompts), encoding="utf-8")
    return out
