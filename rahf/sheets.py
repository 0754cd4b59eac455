"""Feedback as pictures: heatmaps over the image, score bars, and the prompt with its words tinted."""

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from foundation.lettering import Piece, draw, in_reading_order, length, missing
from foundation.pictures import KEPT_SIDE, PictureSource, load_photo
from rahf.feedback import Feedback
from rahf.model.config import HEATMAPS

PANEL = 320
MARGIN = 16
LINE = 22
MOST_LINES = 60  # of a prompt
MOST_LETTERS = 200  # of a piece of a line, which has room for fewer
INK, PALE = (30, 30, 36), (232, 232, 236)


def overlay(image: np.ndarray, heatmap: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """A heatmap (H,W) in [0, 1] over an image (H,W,3) uint8; what is not marked shows the image unchanged."""
    import matplotlib  # only who draws waits for it

    coloured = matplotlib.colormaps["turbo"](heatmap)[..., :3] * 255
    blend = (opacity * np.clip(2 * heatmap, 0, 1))[..., None]
    return (image * (1 - blend) + coloured * blend).round().astype(np.uint8)


def report(image: PictureSource, feedback: Feedback) -> Image.Image:
    """One image's report as a picture: the image, an overlay for each heatmap, scores, words."""
    pixels = (load_photo(image, KEPT_SIDE).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    shown = [("image", pixels)]
    shown += [(name, overlay(pixels, feedback.heatmaps[name])) for name in HEATMAPS if name in feedback.heatmaps]
    width = MARGIN + len(shown) * (PANEL + MARGIN)
    lines = _lay_out(feedback, max(width, PANEL * 2) - 2 * MARGIN)
    notes = _notes(feedback, max(width, PANEL * 2) - 2 * MARGIN)
    tallest = max(_fit(panel).height for _, panel in shown)
    bars_top = MARGIN + LINE + tallest + MARGIN
    words_top = bars_top + LINE * len(feedback.scores) + MARGIN
    height = words_top + LINE * len(lines) + MARGIN + LINE * len(notes)
    sheet = Image.new("RGB", (max(width, PANEL * 2), height), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (title, panel) in enumerate(shown):
        left = MARGIN + place * (PANEL + MARGIN)
        draw(pen, (left, MARGIN), title, INK)
        sheet.paste(_fit(panel), (left, MARGIN + LINE))
    for place, (name, value) in enumerate(feedback.scores.items()):
        _bar(pen, MARGIN, bars_top + place * LINE, name, value)
    for place, line in enumerate(lines):
        at, top = float(MARGIN), words_top + place * LINE
        for text, chance in line:
            wide = length(text)
            if chance is not None:
                pen.rectangle((at, top, at + wide, top + LINE - 3), fill=_tint(chance))
            draw(pen, (at, top), text, INK)
            at += wide
    for place, note in enumerate(reversed(notes)):
        draw(pen, (MARGIN, height - LINE * (place + 1) - MARGIN // 2), note, INK)
    return sheet


def contact_sheet(reports: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """Reports side by side. Raises ValueError for none."""
    if not reports:
        raise ValueError("there is no report to lay out")
    width, height = max(item.width for item in reports), max(item.height for item in reports)
    rows = -(-len(reports) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(reports)), height * rows), "white")
    for place, item in enumerate(reports):
        sheet.paste(item, (width * (place % columns), height * (place // columns)))
    return sheet


def save_heatmap(path: Path, heatmap: np.ndarray) -> None:
    """A heatmap as an 8-bit grey PNG, 255 for 1."""
    Image.fromarray((np.clip(heatmap, 0, 1) * 255).round().astype(np.uint8)).save(path)


def _notes(feedback: Feedback, width: int) -> list[str]:
    """What has to be said below the words, in lines; a list of words takes no more than `width` pixels."""
    notes = ["weights for non-commercial use only"] if feedback.noncommercial else []
    unknown = list(dict.fromkeys(word.text for word in feedback.not_judged()))
    if unknown:
        notes.append(_listed("not judged: ", unknown, width))
    unseen = missing(feedback.prompt)
    if unseen:
        notes.append(
            f"U+{ord(unseen[0]):04X} and the like: no font here shows these letters; install Noto Sans, for one"
        )
    return notes


def _listed(start: str, words: Sequence[str], width: int) -> str:
    """As many of the words as fit into `width` pixels, and how many more there are."""
    kept = 0
    while kept < len(words):
        more = len(words) - kept - 1
        line = start + ", ".join(words[: kept + 1]) + (f" and {more} more" if more else "")
        if len(line) > MOST_LETTERS or length(line) > width:
            break
        kept += 1
    rest = len(words) - kept
    said = start + ", ".join(words[:kept])
    return said + (f" and {rest} more" if kept and rest else f"{rest} words" if rest else "")


def _fit(panel: np.ndarray) -> Image.Image:
    image = Image.fromarray(panel)
    scale = PANEL / max(image.size)
    return image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))


def _bar(pen: ImageDraw.ImageDraw, left: int, top: int, name: str, value: float) -> None:
    draw(pen, (left, top), name, INK)
    start, end = left + 110, left + 110 + 220
    pen.rectangle((start, top + 3, end, top + LINE - 6), fill=PALE)
    pen.rectangle((start, top + 3, start + (end - start) * value, top + LINE - 6), fill=(64, 120, 192))
    draw(pen, (end + 10, top), f"{value:.2f}", INK)


def _tint(chance: float) -> tuple[int, int, int]:
    return 255, round(255 - 120 * chance), round(255 - 140 * chance)


def _lay_out(feedback: Feedback, width: int) -> list[list[Piece]]:
    """The prompt's segments in lines of at most `width` pixels, each line from left to right."""
    lines: list[list[Piece]] = [[]]
    used = 0.0
    for text, chance in feedback.segments():
        for part in _pieces(text, width):
            if used + length(part) > width and lines[-1]:
                if len(lines) == MOST_LINES:
                    lines.append([("…", None)])
                    return [in_reading_order(line) for line in lines]
                lines.append([])
                used, part = 0.0, part.lstrip()
            if part:
                lines[-1].append((part, chance))
                used += length(part)
    return [in_reading_order(line) for line in lines]


def _pieces(text: str, width: int) -> Iterator[str]:
    """A text cut into parts of at most `width` pixels and `MOST_LETTERS` letters, each of a letter at least."""
    while text:
        head = text[:MOST_LETTERS]
        if length(head) > width:
            head = head[: max(_fitting(head, width), 1)]
        yield head
        text = text[len(head) :]


def _fitting(text: str, width: int) -> int:
    """How many letters of a text fit into `width` pixels."""

    def wide(count: int) -> int:
        return math.ceil(length(text[:count]))

    return bisect(range(1, len(text)), width, key=wide)
