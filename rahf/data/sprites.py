"""Sprites for composed scenes: a folder of cut-out pictures with one noun each.

A library folder holds PNG files with transparency and `index.json`, a list of {"file", "noun", "source", "license"}.
`build_library` makes one from the npm package `@lobehub/fluent-emoji-3d` (MIT; files named by code point) and from the
clip art of Debian's `openclipart-png` (public domain; files named by what they show). Neither is part of this project.
"""

import hashlib
import json
import logging
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

logger = logging.getLogger(__name__)

INDEX = "index.json"
SIDE = 128
MOST_PER_NOUN = 12
FEWEST_NOUNS = 4  # three in a picture and one to draw in place of another
LARGEST = 25_000_000
EMOJI_TERMS, CLIPART_TERMS = "MIT", "public domain"

_PLAIN = """
banana pear lemon grapes pineapple watermelon tomato carrot mushroom hamburger cat dog horse cow pig sheep goat
rabbit mouse elephant tiger lion monkey bear fox wolf deer giraffe zebra bird duck chicken rooster owl eagle penguin
parrot turtle snake frog shark whale dolphin octopus crab snail ant spider butterfly bus tractor key lock bell camera
television hammer wrench umbrella crown guitar violin trumpet balloon rose tulip sunflower cactus candle chair bed
door skull ghost robot bicycle helicopter rocket ship anchor pencil strawberry bread fish
"""
# Nouns, each with the Unicode names of its emoji; "" stands for the noun itself, alone and with FACE behind it.
NOUNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_PLAIN.split(), ("",)),
    "apple": ("RED APPLE", "GREEN APPLE"),
    "cherry": ("CHERRIES",),
    "pizza": ("SLICE OF PIZZA",),
    "cake": ("SHORTCAKE", "BIRTHDAY CAKE"),
    "egg": ("EGG",),
    "cheese": ("CHEESE WEDGE",),
    "camel": ("DROMEDARY CAMEL", "BACTRIAN CAMEL"),
    "bee": ("HONEYBEE",),
    "ladybug": ("LADY BEETLE",),
    "car": ("AUTOMOBILE", "ONCOMING AUTOMOBILE"),
    "truck": ("DELIVERY TRUCK", "ARTICULATED LORRY", "PICKUP TRUCK"),
    "airplane": ("AIRPLANE", "SMALL AIRPLANE"),
    "boat": ("SAILBOAT", "ROWBOAT", "SPEEDBOAT"),
    "book": ("CLOSED BOOK", "GREEN BOOK", "BLUE BOOK"),
    "clock": ("ALARM CLOCK", "MANTELPIECE CLOCK"),
    "computer": ("PERSONAL COMPUTER", "DESKTOP COMPUTER"),
    "phone": ("MOBILE PHONE", "BLACK TELEPHONE"),
    "knife": ("HOCHO",),
    "hat": ("TOP HAT", "WOMANS HAT"),
    "shoe": ("MANS SHOE", "ATHLETIC SHOE"),
    "house": ("HOUSE BUILDING",),
    "castle": ("EUROPEAN CASTLE",),
    "tree": ("DECIDUOUS TREE", "EVERGREEN TREE"),
    "flower": ("BLOSSOM", "HIBISCUS"),
    "moon": ("CRESCENT MOON", "FULL MOON SYMBOL"),
    "sun": ("BLACK SUN WITH RAYS",),
    "cloud": ("CLOUD",),
    "heart": ("HEAVY BLACK HEART",),
    "cup": ("HOT BEVERAGE",),
    "ball": ("SOCCER BALL", "VOLLEYBALL"),
}
_OTHER_VIEWS = {"bw", "outline", "contour", "symbol", "icon", "black", "white"}


@dataclass(frozen=True, eq=False)
class Sprite:
    """A cut-out: (H,W,4) uint8, trimmed to what is visible."""

    noun: str
    pixels: np.ndarray
    source: str


class SpriteLibrary:
    """Sprites by noun, split so that no sprite is both trained on and tested with.

    In "test" every noun is one that training shows with *other* sprites; nouns with a single sprite are for training.
    """

    def __init__(self, sprites: Sequence[Sprite]) -> None:
        by_noun: dict[str, list[Sprite]] = defaultdict(list)
        for sprite in sorted(sprites, key=lambda sprite: _hash(sprite.source)):
            by_noun[sprite.noun].append(sprite)
        self.by_noun = dict(sorted(by_noun.items()))

    @classmethod
    def load(cls, folder: str | Path) -> "SpriteLibrary":
        """Read a library folder. Raises ValueError if it is none."""
        folder = Path(folder)
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder} holds no sprite library ({error}); make one with `rahf sprites`") from error
        return cls([Sprite(entry["noun"], _read(folder / entry["file"]), entry["file"]) for entry in index])

    def split(self, name: str) -> dict[str, list[Sprite]]:
        """Sprites by noun of "train" or "test": a quarter of each noun's, at least one of two, are held out."""
        if name not in ("train", "test"):
            raise ValueError(f"split is {name!r}; it must be 'train' or 'test'")
        chosen = {}
        for noun, sprites in self.by_noun.items():
            held = max(1, len(sprites) // 4) if len(sprites) > 1 else 0
            part = sprites[held:] if name == "train" else sprites[:held]
            if part:
                chosen[noun] = part
        if len(chosen) < 2:
            raise ValueError(
                f"only {len(chosen)} nouns have sprites for {name!r}; a library needs several sprites a noun"
            )
        return chosen


def build_library(out: str | Path, emoji: str | Path | None = None, clipart: str | Path | None = None) -> int:
    """Write a library folder from the emoji and clip-art folders; gives the number of sprites.

    Raises ValueError if neither holds a picture of a known noun, and FileExistsError if `out` exists.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a folder that does not")
    found = list(_emoji(Path(emoji))) if emoji else []
    found += list(_clipart(Path(clipart))) if clipart else []
    if not found:
        raise ValueError("no sprite was found; give the folders that the two packages unpack to")
    index = []
    kept: dict[str, list[np.ndarray]] = defaultdict(list)
    pictures = ((noun, path, terms, _cut_out(path, terms)) for noun, path, terms in found)
    out.mkdir(parents=True)
    for place, (noun, path, terms, sprite) in enumerate(pictures):
        if sprite is None or _is_known(sprite, kept[noun]):
            continue
        file = f"{noun}-{place:04d}.png"
        sprite.save(out / file)
        index.append({"file": file, "noun": noun, "source": path.name, "license": terms})
    (out / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return len(index)


def _emoji(folder: Path) -> Iterator[tuple[str, Path, str]]:
    for noun, names in NOUNS.items():
        titles = [noun.upper(), f"{noun.upper()} FACE"] if names == ("",) else list(names)
        for title in titles:
            try:
                code = f"{ord(unicodedata.lookup(title)):04x}"
            except KeyError:
                continue
            for path in (folder / f"{code}.webp", folder / f"{code}-fe0f.webp"):
                if path.is_file():
                    yield noun, path, EMOJI_TERMS


def _clipart(folder: Path) -> Iterator[tuple[str, Path, str]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.png")):
        words = [word.rstrip("0123456789") for word in re.split(r"[_\-. ]+", path.stem.lower())]
        if words[0] in NOUNS and not _OTHER_VIEWS.intersection(words):
            found[words[0]].append(path)
    for noun, paths in found.items():
        for path in sorted(paths, key=lambda path: _hash(path.name))[:MOST_PER_NOUN]:
            yield noun, path, CLIPART_TERMS


def _cut_out(path: Path, terms: str) -> Image.Image | None:
    """The visible part, at most SIDE pixels a side; None if it is no coloured cut-out of a useful shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # posters among the clip art; refused here
        with Image.open(path) as opened:
            if opened.width * opened.height > LARGEST:
                return None
            image = opened.convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > 30)).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    if max(image.size) > 3 * min(image.size):
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float32)
    visible = pixels[..., 3] > 128
    if not 0.1 < visible.mean() < 0.97:
        return None
    colourful = float(np.ptp(pixels[..., :3], axis=-1)[visible].mean())
    # Line drawings and icons among the clip art say little of what they stand for.
    return image if terms == EMOJI_TERMS or colourful > 30 else None


def _is_known(sprite: Image.Image, kept: list[np.ndarray]) -> bool:
    """Whether the noun has this picture already (the clip art holds many twice); otherwise remember it."""
    white = Image.alpha_composite(Image.new("RGBA", sprite.size, "white"), sprite)
    small = np.asarray(white.convert("RGB").resize((12, 12), Image.Resampling.BOX), dtype=np.float32) / 255
    if any(np.abs(small - other).mean() < 0.06 for other in kept):
        return True
    kept.append(small)
    return False


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
