"""Any picture a visitor may bring -> an upright sRGB tensor, and rendered tensors back to bytes."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

logger = logging.getLogger(__name__)

MIN_SIDE = 16
MAX_ASPECT = 4.0
MAX_PIXELS = 100_000_000

# What Pillow's decoders raise on damaged data, beyond OSError.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def load_photo(source: str | Path | Image.Image | NDArray[Any], max_side: int | None = None) -> Tensor:
    """Read a photo.

    Handled rather than refused: CMYK, 16-bit and floating point, palette, transparency (laid over white), EXIF rotation
    (turned upright), embedded colour profiles (converted to sRGB), animations (their first frame).

    Args:
        source: path, PIL image, or array (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16 or floats in [0, 1].
        max_side: shrink so that the longer side is at most this; smaller photos stay as they are.

    Returns:
        (3, H, W) float32 RGB in [0, 1].

    Raises:
        ValueError: no photo, a missing or truncated file, not an image, a side under 16 pixels, longer than 4:1, or
            over 100 megapixels (checked before anything is decoded).
    """
    if max_side is not None and max_side < MIN_SIDE:
        raise ValueError(f"max_side is {max_side}; it must be at least {MIN_SIDE}")
    if isinstance(source, np.ndarray):
        return _shrunk(_from_array(source), max_side)
    if isinstance(source, Image.Image):
        _check_pixels(*source.size)
        return _shrunk(_decoded(source, "the photo"), max_side)
    if source is None or str(source) == "":
        raise ValueError("no photo: give a picture file, for example a JPEG or PNG")
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"no photo at {path}: give the path of an existing picture file")
    with _opened(path) as image:
        _check_pixels(*image.size)
        if max_side is not None:
            # A JPEG can be decoded at 1/2, 1/4 or 1/8 for a fraction of the time; never below twice the wanted size.
            image.draft(image.mode, (2 * max_side, 2 * max_side))
        return _shrunk(_decoded(image, path.name), max_side)


def to_uint8(frames: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in [0, 1] -> (N, H, W, 3) uint8, clamped and rounded to nearest.

    Raises:
        ValueError: for another shape.
    """
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames have shape {tuple(frames.shape)}; they must be (N, 3, H, W)")
    scaled = frames.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on; the limit here is stated and checked by _check_pixels.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path.name} has more than {MAX_PIXELS // 10**6} megapixels, the limit; make it smaller first"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{path.name} is not a picture that can be read; use JPEG, PNG, WebP, GIF, TIFF or BMP"
        ) from error
    except _DAMAGE as error:
        raise ValueError(f"{path.name} is damaged ({error}); save or download it again") from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the photo has {width}x{height} = {width * height / 1e6:.0f} megapixels; the limit is "
            f"{MAX_PIXELS // 10**6}. Make it smaller first"
        )
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"the photo is {width}x{height} pixels; each side needs at least {MIN_SIDE}. Use a larger one")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"the photo is {width}x{height} pixels, longer than {MAX_ASPECT:g}:1; crop it to a less extreme shape"
        )


def _decoded(image: Image.Image, name: str) -> NDArray[np.float32]:
    """(H, W, 3) float32 in [0, 1], upright, sRGB, over white."""
    try:
        if getattr(image, "is_animated", False) and image.tell() != 0:
            image.seek(0)
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return _deep_grey(np.asarray(image, np.float64))
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        image = _to_srgb(image)
    except _DAMAGE as error:
        raise ValueError(f"{name} is truncated or damaged ({error}); save or download it again") from error
    return np.asarray(image, np.float32) / np.float32(255)


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError) as error:
            # A broken profile only costs exact colours.
            logger.warning("the photo's colour profile is unusable (%s); it is left out", error)
    return image.convert("RGB")


def _deep_grey(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Grey of more than 8 bits: [0, 1] floats as they are, 16-bit by 65535, anything larger by its maximum."""
    values = np.nan_to_num(values, posinf=0.0)
    top = float(values.max())
    full = 1.0 if top <= 1 else max(top, 65535.0)
    grey = np.clip(values / full, 0, 1).astype(np.float32)
    return np.repeat(grey[..., None], 3, axis=-1)


def _from_array(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"the photo array has shape {array.shape}; it must be (H, W), (H, W, 3) or (H, W, 4)")
    _check_pixels(array.shape[1], array.shape[0])
    if array.dtype == np.uint8 or array.dtype == np.uint16:
        values = array.astype(np.float32) / np.iinfo(array.dtype).max
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("the photo array holds floats outside [0, 1]; divide 8-bit values by 255 first")
        values = array.astype(np.float32)
    else:
        raise ValueError(f"the photo array is {array.dtype}; it must be uint8, uint16 or floats in [0, 1]")
    if values.shape[-1] == 4:
        alpha = values[..., 3:]
        values = values[..., :3] * alpha + (1 - alpha)
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _shrunk(image: NDArray[np.float32], max_side: int | None) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    height, width = tensor.shape[1:]
    if max_side is None or max(height, width) <= max_side:
        return tensor
    scale = max_side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = torch.nn.functional.interpolate(tensor[None], size, mode="bicubic", antialias=True, align_corners=False)
    return small[0].clamp(0, 1)
