"""Draws the examples of the Rich feedback tab: `python examples/make_feedback_pictures.py LIBRARY`.

LIBRARY is a sprite library made by `rahf sprites`. Only sprites and grounds that training never sees are used, and of
these only the Fluent emoji (MIT). What is planted into which picture is written to feedback.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rahf.data.faults import OBJECT_FAULTS, garble
from rahf.data.grammar import Group, Plan
from rahf.data.scenes import draw, ground
from rahf.data.sprites import INDEX, Sprite, SpriteLibrary

HERE = Path(__file__).resolve().parent
SIZE = 384
SEVERITY = 0.9


@dataclass(frozen=True)
class Picture:
    """What is drawn, on which ground, and which fault is planted into an object of which group (or the writing)."""

    name: str
    plan: Plan
    ground: str
    seed: int
    told: str
    fault: str = ""
    spoils: int = 0


@dataclass(frozen=True)
class Example:
    """A prompt with one picture, or with several to compare."""

    prompt: str
    pictures: tuple[Picture, ...]


CAR = Group("car", 1, "blue")
BALLOON, BEARS = Group("balloon", 1, "red"), Group("bear", 2)
EXAMPLES = (
    Example(
        "a blue car to the left of two yellow pears",
        (
            Picture(
                "car",
                Plan((CAR, Group("pear", 2, "purple")), "left"),
                "dunes",
                23,
                "the car is twisted; the pears are purple",
                "warp",
            ),
        ),
    ),
    Example(
        "an illustration of a dog and three lemons",
        (
            Picture(
                "dog",
                Plan((Group("dog", 1), Group("cup", 3))),
                "rings",
                22,
                "there are cups in place of lemons; the dog has a patch of cloth on it",
                "texture",
            ),
        ),
    ),
    Example(
        'a green frog and a sign that says "OPEN"',
        (
            Picture(
                "frog",
                Plan((Group("frog", 1, "green"),), sign="OPEN"),
                "dots",
                24,
                "the writing cannot be read",
                "garble",
            ),
        ),
    ),
    Example(
        "a tulip to the right of a brown house",
        (Picture("house", Plan((Group("tulip", 1), Group("house", 1, "brown")), "right"), "checks", 22, "no fault"),),
    ),
    Example(
        "a red balloon above two bears",
        (
            Picture("bears-1", Plan((BALLOON, BEARS), "above"), "dunes", 23, "no fault"),
            Picture("bears-2", Plan((BALLOON, BEARS), "above"), "dunes", 22, "a bear is doubled", "double", 1),
            Picture(
                "bears-3",
                Plan((Group("balloon", 1, "green"), Group("bear", 3)), "above"),
                "rings",
                24,
                "the balloon is green; there is a bear too many",
            ),
            Picture(
                "bears-4",
                Plan((BALLOON, Group("cat", 2)), "below"),
                "dots",
                24,
                "cats in place of bears, the balloon below them and twisted",
                "warp",
            ),
        ),
    ),
)


def picture_of(wanted: Picture, sprites: dict[str, list[Sprite]]) -> Image.Image:
    """The picture with its fault."""
    generator = np.random.default_rng(wanted.seed)
    image = ground(wanted.ground, SIZE, generator)
    image, objects, sign = draw(image, wanted.plan, sprites, generator)
    if wanted.fault == "garble" and sign is not None:
        image, _ = garble(image, sign, SEVERITY, generator)
    elif wanted.fault:
        box = next(item.box for item in objects if item.group == wanted.spoils)
        image, _ = OBJECT_FAULTS[wanted.fault](image, box, SEVERITY, generator)
    return Image.fromarray(image)


def held_out(folder: Path) -> dict[str, list[Sprite]]:
    """Fluent emoji that are not trained on, by noun."""
    entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    fluent = {entry["file"] for entry in entries if "assets/" in entry["source"]}
    split = SpriteLibrary.load(folder).split("test")
    return {noun: [sprite for sprite in sprites if sprite.source in fluent] for noun, sprites in split.items()}


def main() -> None:
    """Write one PNG a picture, and the list of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    sprites = held_out(parser.parse_args().library)
    rows = []
    for example in EXAMPLES:
        files = [f"feedback-{picture.name}.png" for picture in example.pictures]
        for file, picture in zip(files, example.pictures, strict=True):
            picture_of(picture, sprites).save(HERE / file, optimize=True)
        told = [picture.told for picture in example.pictures]
        kind = "one" if len(files) == 1 else "many"
        rows.append({"kind": kind, "prompt": example.prompt, "files": files, "planted": told})
    (HERE / "feedback.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
