"""Text of any script in a picture: matplotlib's font, and for what it lacks the fonts of the system by what they cover.

What no font here covers is written as its number, U+4E24, which can be read and looked up; a row of boxes cannot.
"""

import logging
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

logger = logging.getLogger(__name__)

SIZE = 14
# Families that cover much, and look alike; asked before all others.
_PREFERRED = (
    *("dejavusans.", "notosanscjk", "notosans", "sourcehansans", "wqy", "droidsansfallback", "msyh", "pingfang"),
    *("hiragino", "malgun", "yugoth", "arialuni", "segoeui", "unifont", "freesans"),
)
_UNSEEN = ("Cf", "Mn", "Me", "Mc")  # need no glyph of their own: a font that has the letter before them will do
_SPACES = ("Zs", "Zl", "Zp", "Cc")
_SHAPING = "\u200c\u200d"

Colour = tuple[int, int, int]
Piece = tuple[str, float | None]


def shown(text: str) -> str:
    """The text with spaces of all kinds as plain ones, and what no font covers as its number."""
    return "".join(part for part, _ in _runs(text))


def missing(text: str) -> str:
    """The letters of a text, each once, that no font here covers."""
    return "".join(dict.fromkeys(letter for cluster in _clusters(text) if not _font(cluster) for letter in cluster))


def length(text: str) -> float:
    """How many pixels wide the text is."""
    return float(sum(_opened(font).getlength(part) for part, font in _runs(text)))


def draw(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, fill: Colour) -> None:
    """Draw a line of text whose upper left corner is `place`; runs in several fonts share a baseline."""
    x, top = place
    baseline = top + _opened(_standard()).getmetrics()[0]
    for part, font in _runs(text):
        opened = _opened(font)
        pen.text((x, baseline), part, fill=fill, font=opened, anchor="ls")
        x += opened.getlength(part)


def in_reading_order(line: Sequence[Piece]) -> list[Piece]:
    """The pieces of a line from left to right: neighbours in scripts that run from right to left change places."""
    ordered: list[Piece] = []
    turned: list[Piece] = []
    neutral: list[Piece] = []
    for piece in line:
        direction = _direction(piece[0])
        if direction == "right":
            turned = [piece, *reversed(neutral), *turned] if turned else [piece]
            ordered += neutral if len(turned) == 1 else []
            neutral = []
        elif direction == "":
            neutral.append(piece)
        else:
            ordered += [*turned, *neutral, piece]
            turned, neutral = [], []
    return [*ordered, *turned, *neutral]


def _direction(text: str) -> str:
    kinds = {unicodedata.bidirectional(letter) for letter in text}
    if kinds & {"R", "AL"}:
        return "right"
    return "left" if kinds & {"L", "EN"} else ""


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Stretches of the text, as they are drawn, with the font's path."""
    part, current = "", _standard()
    for cluster in _clusters(text):
        font = _font(cluster)
        letters = cluster if font else " ".join(f"U+{ord(letter):04X}" for letter in cluster) + " "
        if (font or _standard()) != current and part:
            yield part, current
            part = ""
        current = font or _standard()
        part += letters
    if part:
        yield part, current


def _clusters(text: str) -> Iterator[str]:
    """Letters with the marks and joiners behind them; all spaces as plain ones, signs of direction left out."""
    cluster = ""
    for letter in text:
        category = unicodedata.category(letter)
        if category in _SPACES:
            letter = " "
        elif category == "Cf" and letter not in _SHAPING:
            continue
        if cluster and (category in _UNSEEN or cluster[-1] == "\u200d"):
            cluster += letter
            continue
        if cluster:
            yield cluster
        cluster = "" if category == "Cf" else letter
    if cluster:
        yield cluster


@cache
def _font(cluster: str) -> str:
    """The first font that covers all that is seen of a cluster; empty if none does."""
    wanted = {ord(letter) for letter in cluster if unicodedata.category(letter) != "Cf"}
    wanted -= {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}  # selectors of a variant
    return next((path for path in _fonts() if wanted <= _coverage(path)), "")


@cache
def _standard() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@cache
def _fonts() -> tuple[str, ...]:
    """matplotlib's font, then those of the system, preferred families first and upright ones before others."""
    from matplotlib.font_manager import findSystemFonts

    def rank(path: str) -> tuple[int, int, str]:
        name = Path(path).name.lower().replace("-", "").replace(" ", "")
        place = next((place for place, family in enumerate(_PREFERRED) if name.startswith(family)), len(_PREFERRED))
        slanted = any(style in name for style in ("bold", "italic", "oblique", "black", "thin", "mono"))
        return place, int(slanted), path

    return (_standard(), *sorted(findSystemFonts(), key=rank))


@cache
def _coverage(path: str) -> frozenset[int]:
    """The code points that a font has glyphs for; none for one that cannot be opened or drawn at this size."""
    from matplotlib.ft2font import FT2Font

    try:
        _opened(path)
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError, ValueError) as error:
        logger.debug("the font %s cannot be used: %s", path, error)
        return frozenset()


@cache
def _opened(path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, SIZE)
