"""Images of any common kind -> RGB tensors, with a clear error for what cannot be used."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

ImageSource = str | Path | Image.Image | np.ndarray | Tensor

MIN_SIDE = 16
MAX_ASPECT = 4.0
MAX_PIXELS = 100_000_000
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def load_image(source: ImageSource) -> Tensor:
    """An image as (3,H,W) float32 in [0, 1].

    Takes a path, a Pillow image, an array (H,W), (H,W,3) or (H,W,4) of integers or of floats in [0, 1], or a tensor
    (3,H,W) in [0, 1]. Any colour mode, 16 bits, EXIF rotation; transparency is laid over white; of an animation the
    first frame. Raises ValueError for what is damaged, no image, under 16 px a side, over 4:1 or over 100 megapixels.
    """
    if isinstance(source, Tensor):
        return _from_tensor(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pillow(source, "the image")
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give the path of an existing image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked below
            with Image.open(path) as image:
                return _from_pillow(image, str(path))
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that can be read; use PNG, JPEG or WebP") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} has over {MAX_PIXELS // 10**6} megapixels; scale it down") from error


def _check_size(width: int, height: int, name: str) -> None:
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{name} is {width}x{height} pixels; each side must be at least {MIN_SIDE}: use a larger one")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} is {width}x{height}, over {MAX_PIXELS // 10**6} megapixels; scale it down")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"{name} is {width}x{height}; its sides may differ by {MAX_ASPECT:g}:1 at most: crop it")


def _from_pillow(image: Image.Image, name: str) -> Tensor:
    _check_size(*image.size, name)
    try:
        image.seek(0)
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(f"{name} is damaged or cut short ({error}); fetch it again") from error
    if image.mode.startswith(("I", "F")):
        return _from_array(np.asarray(image))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _from_array(array: np.ndarray) -> Tensor:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(f"an image array has shape {array.shape}; it must be (H,W), (H,W,3) or (H,W,4)")
    _check_size(array.shape[1], array.shape[0], "the image")
    values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("an image array holds values that are not finite")
    values /= _full_scale(array)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"an image array spans {array.min()}..{array.max()}; floats must be in [0, 1]")
    if values.shape[2] == 4:
        alpha = values[..., 3:]
        values = values[..., :3] * alpha + (1 - alpha)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))).expand(3, -1, -1).contiguous()


def _full_scale(array: np.ndarray) -> float:
    """The value that means white. Pillow opens 16-bit greys as 32-bit integers too."""
    if array.dtype == np.uint8:
        return 255.0
    if np.issubdtype(array.dtype, np.integer):
        return 65535.0
    return 255.0 if float(array.max()) > 1.0 else 1.0


def _from_tensor(tensor: Tensor) -> Tensor:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.is_floating_point():
        raise ValueError(
            f"an image tensor is {tuple(tensor.shape)} {tensor.dtype}; it must be (3,H,W) floats in [0, 1]"
        )
    _check_size(tensor.shape[2], tensor.shape[1], "the image")
    if not torch.isfinite(tensor).all() or tensor.min() < 0 or tensor.max() > 1:
        raise ValueError("an image tensor holds values outside [0, 1]")
    return tensor.float()
