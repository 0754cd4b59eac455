"""Sprites for composed scenes: a folder of cut-out pictures with one noun each.

A library folder holds PNG files with transparency and `index.json`, a list of {"file", "noun", "source", "kind"}.
`build_library` makes one from folders of emoji whose files are named by code point (the npm packages
`@lobehub/fluent-emoji-3d` and `@lobehub/fluent-emoji-flat`, MIT, and `@twemoji/svg`, CC BY 4.0), from a colour font
with bitmap glyphs (Debian's `fonts-noto-color-emoji`, OFL) and from the clip art of Debian's `openclipart-png` (public
domain; files named by what they show). None of them is part of this project.
"""

import hashlib
import io
import json
import logging
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from foundation.files import new_folder

logger = logging.getLogger(__name__)

INDEX = "index.json"
SIDE = 128
MOST_PER_NOUN = 12
FEWEST_NOUNS = 4  # three in a picture and one to draw in place of another
LARGEST = 25_000_000
EMOJI, CLIPART = "emoji", "clip art"
FONT_SIZE = 109  # of the bitmaps in the font

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
            raise ValueError(f"{folder} holds no sprite library; make one with `rahf sprites`") from error
        return cls([Sprite(entry["noun"], _read(folder / entry["file"]), entry["file"]) for entry in index])

    def split(self, name: str) -> dict[str, list[Sprite]]:
        """Sprites by noun of "train" or "test": a quarter of each noun's, at least one of two, are held out.

        Raises ValueError for another name, and if fewer than two nouns have sprites on that side.
        """
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


def build_library(
    out: str | Path, emoji: Sequence[str | Path] = (), clipart: str | Path | None = None, font: str | Path | None = None
) -> int:
    """Write a library folder from emoji folders, a clip-art folder and a colour font; gives the number of sprites.

    Raises ValueError if none holds a picture of a known noun, and FileExistsError if `out` exists.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists already; name a folder that does not")
    found = [picture for folder in emoji for picture in _emoji(Path(folder))]
    found += list(_glyphs(Path(font))) if font else []
    found += list(_clipart(Path(clipart))) if clipart else []
    if not found:
        raise ValueError("no sprite was found; give the folders that the packages unpack to")
    index = []
    kept: dict[str, list[np.ndarray]] = defaultdict(list)
    with new_folder(out) as beside:
        for place, picture in enumerate(found):
            sprite = _cut_out(picture)
            if sprite is None or _is_known(sprite, kept[picture.noun]):
                continue
            file = f"{picture.noun}-{place:04d}.png"
            sprite.save(beside / file)
            index.append({"file": file, "noun": picture.noun, "source": picture.source, "kind": picture.kind})
        (beside / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return len(index)


@dataclass(frozen=True)
class _Picture:
    """A candidate: where it comes from, and how to read it."""

    noun: str
    source: str
    kind: str
    read: Callable[[], Image.Image | None]


def _titles() -> Iterator[tuple[str, str]]:
    """Nouns, and a code point of each in hexadecimal."""
    for noun, names in NOUNS.items():
        titles = [noun.upper(), f"{noun.upper()} FACE"] if names == ("",) else list(names)
        for title in titles:
            try:
                yield noun, f"{ord(unicodedata.lookup(title)):04x}"
            except KeyError:
                continue


def _emoji(folder: Path) -> Iterator[_Picture]:
    for noun, code in _titles():
        for stem in (code, f"{code}-fe0f"):
            for path in (folder / f"{stem}{suffix}" for suffix in (".webp", ".png", ".svg")):
                if path.is_file():
                    yield _Picture(noun, f"{folder.parent.name}/{folder.name}/{path.name}", EMOJI, partial(_open, path))


def _glyphs(font: Path) -> Iterator[_Picture]:
    try:
        face = ImageFont.truetype(str(font), FONT_SIZE)
    except OSError as error:
        raise ValueError(f"{font} is no font with glyphs of {FONT_SIZE} pixels ({error})") from error
    for noun, code in _titles():
        yield _Picture(noun, f"{font.name}/{code}", EMOJI, partial(_glyph, face, chr(int(code, 16))))


def _clipart(folder: Path) -> Iterator[_Picture]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.png")):
        words = [word.rstrip("0123456789") for word in re.split(r"[_\-. ]+", path.stem.lower())]
        if words[0] in NOUNS and not _OTHER_VIEWS.intersection(words):
            found[words[0]].append(path)
    for noun, paths in found.items():
        for path in sorted(paths, key=lambda path: _hash(path.name))[:MOST_PER_NOUN]:
            yield _Picture(noun, path.name, CLIPART, partial(_open, path))


def _open(path: Path) -> Image.Image | None:
    if path.suffix == ".svg":
        return Image.open(io.BytesIO(bytes(_rasterise(path)))).convert("RGBA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # posters among the clip art; refused here
        with Image.open(path) as opened:
            return opened.convert("RGBA") if opened.width * opened.height <= LARGEST else None


def _rasterise(path: Path) -> bytes:
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise ValueError(f"{path.name} is a vector drawing; to read it: pip install '.[train]'") from error
    return svg_to_bytes(svg_path=str(path), width=SIDE)


def _glyph(face: ImageFont.FreeTypeFont, character: str) -> Image.Image | None:
    canvas = Image.new("RGBA", (2 * FONT_SIZE, 2 * FONT_SIZE))
    ImageDraw.Draw(canvas).text((20, 20), character, font=face, embedded_color=True)
    return canvas


def _cut_out(picture: _Picture) -> Image.Image | None:
    """The visible part, at most SIDE pixels a side; None if it is no coloured cut-out of a useful shape."""
    image = picture.read()
    box = image and image.getchannel("A").point(lambda alpha: 255 * (alpha > 30)).getbbox()
    if image is None or not box:
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
    return image if picture.kind == EMOJI or colourful > 30 else None


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
