"""Is a warp that was planted into a real picture found? AUC-Judd against the planted region, beside baselines.

The pictures are generated ones or photographs, not composed scenes; of each it is known only where the one warp is.
"""

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from foundation.folders import Item, find_items
from foundation.pictures import KEPT_SIDE, SUFFIXES, load_photo
from rahf.data.faults import is_visible, plant_warp
from rahf.data.prompt_tables import assign_prompts
from rahf.evaluation.metrics import Estimate, auc_judd, mean_estimate
from rahf.evaluation.report import to_json
from rahf.limits import LIMITS
from rahf.predictor import Predictor
from rahf.prompts import encode_prompts
from rahf.sheets import overlay

logger = logging.getLogger(__name__)

MODEL, UNWARPED, CENTRE, EDGES = "model", "model, picture unwarped", "centre prior", "edge energy"
GAIN = "model minus unwarped"
PROMPT = "a picture"  # where none is known
TRIES = 20  # places that are tried for a warp that can be seen
PANEL, TITLE = 224, 18


@dataclass(frozen=True, eq=False)
class PlantedWarp:
    """A picture (H,W,3) uint8, the same with one warp, and where that is: mask (H,W) bool."""

    item: Item
    picture: np.ndarray
    warped: np.ndarray
    mask: np.ndarray
    prompt: str

    @property
    def group(self) -> str:
        """The subfolder the picture lies in; empty for none."""
        parts = PurePosixPath(self.item.file).parts
        return parts[0] if len(parts) > 1 else ""


@dataclass(frozen=True, eq=False)
class Found:
    """What was predicted for one planted warp: its implausibility (H,W), and AUC-Judd by method."""

    planted: PlantedWarp
    heatmap: np.ndarray
    auc: dict[str, float]


def plant(
    item: Item, prompt: str = PROMPT, severity: float = 0.8, side: int = 768, seed: int = 0
) -> PlantedWarp | None:
    """Plant a warp into one picture, shrunk to a longer side of `side`; decided by (seed, name of the file) alone.

    None where no warp can be seen: twisting a plain sky changes nothing. Raises ValueError for an unusable image.
    """
    picture = _shrunk((load_photo(item.path, KEPT_SIDE) * 255).round().byte().permute(1, 2, 0).numpy(), side)
    generator = np.random.default_rng([seed, zlib.crc32(item.file.encode())])
    for _ in range(TRIES):
        warped, mask = plant_warp(picture, generator, severity)
        if is_visible(picture, warped, mask):
            return PlantedWarp(item, picture, warped, mask, prompt)
    return None


def find_warps(
    predictor: Predictor,
    folder: Path,
    prompts: Mapping[str, str] | None = None,
    severity: float = 0.8,
    side: int = 768,
    seed: int = 0,
    batch_size: int = 4,
) -> list[Found]:
    """Plant a warp into every picture below `folder` and predict its implausibility, with and without the warp.

    Pictures that cannot be read or in which no warp can be seen are left out and logged. Raises ValueError for a
    severity out of its limits, a folder without pictures, or when none is left.
    """
    LIMITS["severity"].check("severity", severity)
    items = find_items(folder, SUFFIXES)
    prompt_by_file = assign_prompts((item.file for item in items), prompts or {})
    found: list[Found] = []
    for start in tqdm(range(0, len(items), batch_size), desc="planting"):
        batch = []
        for item in items[start : start + batch_size]:
            try:
                planted = plant(item, _prompt_for(predictor, item, prompt_by_file), severity, side, seed)
            except ValueError as error:
                logger.warning("%s: %s; left out", item.file, error)
                continue
            if planted is None:
                logger.warning("%s: no warp can be seen in it; left out", item.file)
            else:
                batch.append(planted)
        if not batch:
            continue
        pictures = [picture for planted in batch for picture in (planted.warped, planted.picture)]
        texts = [planted.prompt for planted in batch for _ in range(2)]
        predicted = predictor.predict_batch(pictures, texts, words=False)
        maps = [feedback.heatmaps["implausibility"] for feedback in predicted]
        found += [judge(planted, *maps[2 * place : 2 * place + 2]) for place, planted in enumerate(batch)]
    if not found:
        raise ValueError(f"{folder} holds no picture in which a warp can be seen")
    return found


def judge(planted: PlantedWarp, heatmap: np.ndarray, unwarped: np.ndarray) -> Found:
    """AUC-Judd against the planted region of the implausibility (H,W) predicted for the warped and for the untouched
    picture, and of the baselines."""
    tried = {
        MODEL: heatmap,
        UNWARPED: unwarped,
        CENTRE: centre_prior(*planted.mask.shape),
        EDGES: edge_energy(planted.warped),
    }
    auc = {name: auc_judd(values, planted.mask) for name, values in tried.items()}
    return Found(planted, heatmap, auc | {GAIN: auc[MODEL] - auc[UNWARPED]})


def summarise_warps(found: Sequence[Found], resamples: int = 1000) -> dict[str, dict[str, Estimate]]:
    """Mean AUC-Judd by method with its 95% bootstrap interval, for all pictures and for each subfolder."""
    groups: dict[str, Sequence[Found]] = {"all": found}
    names = sorted({one.planted.group for one in found})
    if len(names) > 1:
        groups |= {name or "no subfolder": [one for one in found if one.planted.group == name] for name in names}
    return {
        name: {
            method: mean_estimate(np.array([one.auc[method] for one in members]), resamples) for method in found[0].auc
        }
        for name, members in groups.items()
    }


def warp_table(summary: Mapping[str, Mapping[str, Estimate]]) -> str:
    """A Markdown table: one row a method, one column a group."""
    lines = ["| AUC-Judd | " + " | ".join(f"{name} ({_count(column)})" for name, column in summary.items()) + " |"]
    lines.append("|---" * (len(summary) + 1) + "|")
    for method in next(iter(summary.values())):
        lines.append(f"| {method} | " + " | ".join(str(column[method]) for column in summary.values()) + " |")
    return "\n".join(lines)


def warps_to_json(found: Sequence[Found], summary: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    """Plain values: the summary, and every picture by itself."""
    rows = [{"file": one.planted.item.file, "prompt": one.planted.prompt, **one.auc} for one in found]
    return {"summary": {name: to_json(column) for name, column in summary.items()}, "pictures": rows}


def warp_sheet(found: Sequence[Found], count: int = 24) -> Image.Image:
    """Pictures from the best found to the worst, evenly chosen: untouched, warped with its outline, prediction."""
    ranked = sorted(found, key=lambda one: -one.auc[MODEL])
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    strips = [_strip(ranked[place]) for place in places]
    columns = 2 if len(strips) > 1 else 1
    width, height = max(strip.width for strip in strips), max(strip.height for strip in strips)
    sheet = Image.new("RGB", (width * columns, height * -(-len(strips) // columns)), "white")
    for place, strip in enumerate(strips):
        sheet.paste(strip, (width * (place % columns), height * (place // columns)))
    return sheet


def centre_prior(height: int, width: int) -> np.ndarray:
    """(H,W) a Gaussian over the middle of the picture, a quarter of each side wide."""
    y, x = np.mgrid[0:height, 0:width]
    return np.exp(-8 * (((y + 0.5) / height - 0.5) ** 2 + ((x + 0.5) / width - 0.5) ** 2))


def edge_energy(picture: np.ndarray) -> np.ndarray:
    """(H,W) how strong the edges around each pixel are: the gradient's length, blurred over a thirtieth of the side."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    length = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return cv2.GaussianBlur(length, (0, 0), max(min(grey.shape) / 30, 1))


def _prompt_for(predictor: Predictor, item: Item, prompts: Mapping[str, str]) -> str:
    """The prompt of a picture where one is known that the model can read: the warp is not a matter of words."""
    prompt = prompts.get(item.file)
    if prompt is None:
        return PROMPT
    try:
        encode_prompts([prompt], predictor.model.config, predictor.tokenizer)
    except ValueError as error:
        logger.warning("%s: %s; %r is taken instead", item.file, error, PROMPT)
        return PROMPT
    return prompt


def _count(column: Mapping[str, Estimate]) -> int:
    return next(iter(column.values())).count


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def _strip(one: Found) -> Image.Image:
    planted = one.planted
    edge = cv2.morphologyEx(planted.mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
    outlined = np.where(edge[..., None], np.array([255, 60, 160], np.uint8), planted.warped)
    panels = [planted.picture, outlined, overlay(planted.warped, np.clip(one.heatmap, 0, 1))]
    scale = PANEL / max(planted.mask.shape)
    size = (max(round(planted.mask.shape[1] * scale), 1), max(round(planted.mask.shape[0] * scale), 1))
    strip = Image.new("RGB", (3 * (PANEL + 4) + 8, PANEL + TITLE + 4), "white")
    title = f"{one.auc[MODEL]:.2f}  (unwarped {one.auc[UNWARPED]:.2f})  {planted.item.name}"
    ImageDraw.Draw(strip).text((2, 2), title, fill="black", font=ImageFont.load_default(size=12))
    for place, panel in enumerate(panels):
        strip.paste(Image.fromarray(panel).resize(size), (place * (PANEL + 4), TITLE))
    return strip
