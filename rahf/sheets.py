"""Feedback as pictures: heatmaps over the image, score bars, and the prompt with its words tinted."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rahf.feedback import Feedback
from rahf.images import ImageSource, load_image
from rahf.model.config import HEATMAPS

PANEL = 320
MARGIN = 16
LINE = 22
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
INK, PALE = (30, 30, 36), (232, 232, 236)


def overlay(image: np.ndarray, heatmap: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """A heatmap (H,W) in [0, 1] over an image (H,W,3) uint8; what is not marked shows the image unchanged."""
    coloured = matplotlib.colormaps["turbo"](heatmap)[..., :3] * 255
    blend = (opacity * np.clip(2 * heatmap, 0, 1))[..., None]
    return (image * (1 - blend) + coloured * blend).round().astype(np.uint8)


def report(image: ImageSource, feedback: Feedback) -> Image.Image:
    """One image's report as a picture: the image, an overlay for each heatmap, scores, words."""
    pixels = (load_image(image).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    shown = [("image", pixels)]
    shown += [(name, overlay(pixels, feedback.heatmaps[name])) for name in HEATMAPS if name in feedback.heatmaps]
    width = MARGIN + len(shown) * (PANEL + MARGIN)
    lines = _lay_out(feedback, max(width, PANEL * 2) - 2 * MARGIN)
    tallest = max(_fit(panel).height for _, panel in shown)
    bars_top = MARGIN + LINE + tallest + MARGIN
    words_top = bars_top + LINE * len(feedback.scores) + MARGIN
    height = words_top + LINE * len(lines) + MARGIN + (LINE if feedback.noncommercial else 0)
    sheet = Image.new("RGB", (max(width, PANEL * 2), height), "white")
    pen, font = ImageDraw.Draw(sheet), _font()
    for place, (title, panel) in enumerate(shown):
        left = MARGIN + place * (PANEL + MARGIN)
        pen.text((left, MARGIN), title, fill=INK, font=font)
        sheet.paste(_fit(panel), (left, MARGIN + LINE))
    for place, (name, value) in enumerate(feedback.scores.items()):
        _bar(pen, font, MARGIN, bars_top + place * LINE, name, value)
    for place, line in enumerate(lines):
        at, top = float(MARGIN), words_top + place * LINE
        for text, chance in line:
            length = font.getlength(text)
            if chance is not None:
                pen.rectangle((at, top, at + length, top + LINE - 3), fill=_tint(chance))
            pen.text((at, top), text, fill=INK, font=font)
            at += length
    if feedback.noncommercial:
        pen.text((MARGIN, height - LINE - MARGIN // 2), "weights for non-commercial use only", fill=INK, font=font)
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


def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's own font, which knows more of the world's letters than Pillow's."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 14)


def _fit(panel: np.ndarray) -> Image.Image:
    image = Image.fromarray(panel)
    scale = PANEL / max(image.size)
    return image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))


def _bar(pen: ImageDraw.ImageDraw, font: Font, left: int, top: int, name: str, value: float) -> None:
    pen.text((left, top), name, fill=INK, font=font)
    start, end = left + 110, left + 110 + 220
    pen.rectangle((start, top + 3, end, top + LINE - 6), fill=PALE)
    pen.rectangle((start, top + 3, start + (end - start) * value, top + LINE - 6), fill=(64, 120, 192))
    pen.text((end + 10, top), f"{value:.2f}", fill=INK, font=font)


def _tint(chance: float) -> tuple[int, int, int]:
    return 255, round(255 - 120 * chance), round(255 - 140 * chance)


def _lay_out(feedback: Feedback, width: int) -> list[list[tuple[str, float | None]]]:
    """The prompt's segments in lines of at most `width` pixels."""
    font = _font()
    lines: list[list[tuple[str, float | None]]] = [[]]
    used = 0.0
    for text, chance in feedback.segments():
        length = font.getlength(text)
        if used + length > width and lines[-1]:
            lines.append([])
            used, text = 0.0, text.lstrip()
            length = font.getlength(text)
        if text:
            lines[-1].append((text.replace("\n", " "), chance))
            used += length
    return lines
