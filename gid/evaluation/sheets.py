"""Pictures of results: contact sheets, heatmaps over a photo, X-t slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foundation.files import replacing

Picture = NDArray[np.uint8]


def heatmap(
    energy: Tensor | NDArray[np.floating], photo: Picture | Tensor | None = None, top: float | None = None
) -> Picture:
    """Colours for a map (h, w) of values from 0 up: black is still, yellow moves most.

    Args:
        energy: (h, w); values that are not finite count as 0.
        photo: (H, W, 3) uint8, or (3, H, W) in [0, 1]: the colours are laid over its grey version, at its size.
        top: the value shown brightest; by default the map's 99th percentile.

    Returns:
        (H, W, 3) uint8, of the photo's size or the map's.

    Raises:
        ValueError: for a map of another shape.
    """
    values = energy.detach().cpu().numpy() if isinstance(energy, Tensor) else np.asarray(energy)
    if values.ndim != 2:
        raise ValueError(f"the map has shape {values.shape}; it must be (h, w)")
    values = np.nan_to_num(values.astype(np.float32), posinf=0.0)
    if top is None:
        top = float(np.percentile(values, 99))
        # A spot smaller than 1 % of the picture must still show.
        top = top if top > 0 else float(values.max())
    level = np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)
    if photo is None:
        return _coloured(level)
    picture = as_picture(photo)
    level = np.asarray(cv2.resize(level, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR))
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32) * 0.6
    share = np.sqrt(level)[..., None] * 0.85
    return np.asarray(np.round(grey * (1 - share) + _coloured(level) * share), np.uint8)


def _coloured(level: NDArray[np.floating]) -> Picture:
    return np.asarray(np.round(colormaps["inferno"](level)[..., :3] * 255), np.uint8)


def as_picture(image: Picture | Tensor) -> Picture:
    """(3, H, W) tensor (floats in [0, 1] or uint8) or (H, W, 3) uint8 array -> (H, W, 3) uint8.

    Raises:
        ValueError: for another shape or type.
    """
    if isinstance(image, Tensor):
        values = image.detach().cpu()
        if values.dtype != torch.uint8:
            values = values.float().clamp(0, 1).mul(255).round().to(torch.uint8)
        image = np.ascontiguousarray(values.movedim(0, -1).numpy()) if values.ndim == 3 else values.numpy()
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"the picture is {image.dtype} {image.shape}; it must be uint8 (H, W, 3) or a (3, H, W) tensor"
        )
    return image


def contact_sheet(images: Sequence[Picture], columns: int, gap: int = 2) -> Picture:
    """Lay pictures (H, W, 3) uint8 out in rows, each at the first one's size, on white; (H', W', 3) uint8.

    Raises:
        ValueError: no pictures, or fewer than one column.
    """
    if not images or columns < 1:
        raise ValueError(f"{len(images)} pictures in {columns} columns: at least one of each is needed")
    height, width = images[0].shape[:2]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def labelled(image: Picture, text: str) -> Picture:
    """A copy with a line of white text on a dark strip along the lower edge."""
    image = image.copy()
    height = image.shape[0]
    scale = max(0.3, height / 600)
    strip = min(height, round(26 * scale) + 4)
    image[height - strip :] = image[height - strip :] // 4
    cv2.putText(
        image, text, (4, height - round(strip * 0.3)), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA
    )
    return image


def liveliest_row(photo: Tensor, energy: Tensor) -> int:
    """The row of a photo (3, H, W) whose motion shows most: much energy (h, w) across much contrast, off the edges."""
    height, width = photo.shape[-2:]
    moving = F.interpolate(energy[None, None].float(), (height, width), mode="bilinear")[0, 0]
    contrast = photo.float().mean(0).diff(dim=1).abs()
    score = (moving[:, 1:] * contrast).mean(1)
    margin = height // 10
    return margin + int(score[margin : height - margin].argmax())


def sliced(photo: Tensor, energy: Tensor, frames: Tensor) -> list[Picture]:
    """The photo (3, H, W) with its liveliest row in red, and that row over the frames (N, 3, H, W), time downwards."""
    row = liveliest_row(photo, energy)
    marked = as_picture(photo).copy()
    marked[row] = (255, 64, 64)
    line = frames[:, :, row].movedim(1, -1)
    return [marked, as_picture(line.movedim(-1, 0))]


def save_picture(path: str | Path, image: Picture) -> Path:
    """Write a PNG beside and rename it.

    Raises:
        ValueError: the folder is missing or full.
    """
    path = Path(path)
    with replacing(path) as partial:
        Image.fromarray(image).save(partial, format="PNG")
    return path
