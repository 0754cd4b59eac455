"""Decoding: never more than one copy of a picture at full size, in the decoder's own 8 or 16 bits a value.

A large picture is converted and averaged band by band; what comes after, colours, transparency and turning upright,
is done on the small one.
"""

from __future__ import annotations

import importlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .colour import Colours, grey_to_srgb, needs_profile, to_srgb, with_info
from .errors import DAMAGE, PictureError, check_size, damaged
from .formats import Container, Reading, check_pixels
from .tiff import orientation_of

Pixels = NDArray[np.uint8] | NDArray[np.float32]

_BAND = 4_000_000  # pixels that are converted at once
_QUIET = 80_000_000  # Pillow warns a little above; the limits here are stated, and checked already
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(container: Container, name: str) -> Image.Image:
    """A file as a picture of which only the header is read so far.

    Raises:
        PictureError: the header is damaged, or says more pixels than may be decoded.
    """
    _register(container.format, name)
    try:
        with _no_warning(container.pixels):
            image = Image.open(io.BytesIO(container.data), formats=(container.format,))
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has over 100 megapixels; make it smaller first") from error
    except DAMAGE as error:
        kind = f"{container.format.replace('HEIF', 'HEIC')} of an unknown kind"
        raise PictureError(f"{name} is damaged, or {kind}; save it again as JPEG or PNG") from error
    check_size(name, *image.size)
    check_pixels(name, image.width * image.height, container.most_pixels, container.format)
    return image


def decode(image: Image.Image, container: Container, side: int, name: str) -> tuple[Pixels, tuple[int, int]]:
    """Decode an opened picture.

    Args:
        image: from `open_image`; it is of no use afterwards.
        container: the file it came from.
        side: the longer side of the result is at most this, in pixels.
        name: what messages call it.

    Returns:
        (H, W, 3) uint8 sRGB, or (H, W, 1) float32 in [0, 1] for grey of more than 8 bits; upright, over white. And
        (width, height) of the whole picture, upright.

    Raises:
        PictureError: damaged or cut short, or floating-point values outside [0, 1].
    """
    size, reading = image.size, container.reading
    reading = replace(reading, colours=with_info(reading.colours, image.info))
    if container.exif_by_decoder:
        reading = replace(reading, orientation=orientation_of(image.info.get("exif")))
    try:
        if container.format == "JPEG":  # at 1/2, 1/4 or 1/8, never below what is wanted
            image.draft(image.mode, fitted(size, side))
        with _no_warning(container.pixels):
            image.load()
        if container.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
            image.putalpha(255)  # a fourth byte that nobody filled in
        return pixels_of(image, fitted(size, side), reading, name), upright(size, reading.orientation)
    except PictureError:
        raise
    except DAMAGE as error:
        raise damaged(name, error) from error


def pixels_of(image: Image.Image, target: tuple[int, int], reading: Reading, name: str) -> Pixels:
    """A decoded picture as `decode` returns it, at the size ``target`` (width, height) before it is turned upright."""
    colours = reading.colours
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = _small_grey(image, target, reading, name)
        if not needs_profile(colours):
            values = grey_to_srgb(np.asarray(_turned(grey, reading.orientation)).clip(0, 1), colours)
            return _finished(values[..., None])
        image = Image.fromarray(np.rint(np.asarray(grey).clip(0, 1) * 255).astype(np.uint8))
    small = to_srgb(_small(image, _working_mode(image, colours), target), colours, name)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB")
    return _finished(np.array(_turned(small, reading.orientation)))


def pixels_of_array(array: NDArray[Any], target: tuple[int, int]) -> Pixels:
    """Floats (H, W, C) in [0, 1], with C = 1, 3 or 4, over white at the size ``target`` (width, height)."""
    values = array.astype(np.float32)
    if values.shape[-1] == 4:
        alpha = values[..., 3:]
        values = values[..., :3] * alpha + (1 - alpha)
    if target != (values.shape[1], values.shape[0]):
        channels = (Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(values, -1, 0))
        small = [np.asarray(_resized(channel, target, 0, channel.height)) for channel in channels]
        values = np.stack(small, -1).clip(0, 1)
    return _finished(values)


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) with the longer side at most ``side``, aspect kept."""
    longer = max(size)
    if longer <= side:
        return size
    width, height = (max(1, round(length * (side / longer))) for length in size)
    return width, height


def upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) after turning."""
    return (size[1], size[0]) if 5 <= orientation <= 8 else size


def _finished(values: NDArray[Any]) -> Pixels:
    values = np.ascontiguousarray(values)
    values.flags.writeable = False
    return values


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _working_mode(image: Image.Image, colours: Colours) -> str:
    """The mode in which a picture is averaged."""
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return "RGBA"
    if image.mode == "LAB" or (image.mode == "CMYK" and needs_profile(colours)):
        return image.mode
    return "L" if image.mode in ("1", "L") else "RGB"


def _small(image: Image.Image, mode: str, target: tuple[int, int]) -> Image.Image:
    """Converted and shrunk; transparent pixels weigh nothing in an average."""
    if image.mode == mode and image.size == target:
        return image

    def convert(band: Image.Image) -> Image.Image:
        if band.mode == "La":
            band = band.convert("LA")
        return band if band.mode == mode else band.convert(mode)

    return _in_bands(image, mode, target, convert)


def _small_grey(image: Image.Image, target: tuple[int, int], reading: Reading, name: str) -> Image.Image:
    """Grey of more than 8 bits as mode F, 0 to 1 but for what the filter adds."""
    clear = image.info.get("transparency")

    def convert(band: Image.Image) -> Image.Image:
        values = np.asarray(band)
        grey = _grey(values, reading, name)
        if isinstance(clear, int):
            grey[values == clear] = 1
        return Image.fromarray(grey)

    return _in_bands(image, "F", target, convert)


def _grey(values: NDArray[Any], reading: Reading, name: str) -> NDArray[np.float32]:
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also for values that are not numbers
            raise PictureError(
                f"{name} holds floating-point values from {low:g} to {high:g}; floats must be in [0, 1]. Divide them "
                "by the value of white, or save it with 8 or 16 bits"
            )
        return 1 - values if reading.inverted else np.array(values, np.float32)
    if values.min() < 0 or values.max() > 65535:
        raise PictureError(
            f"{name} holds whole numbers from {values.min()} to {values.max()}; they must be from 0 to 65535. "
            "Save it with 8 or 16 bits"
        )
    grey = (np.minimum(values, reading.white) / reading.white).astype(np.float32)
    return 1 - grey if reading.inverted else grey


def _in_bands(
    image: Image.Image, mode: str, target: tuple[int, int], convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """The picture converted to ``mode`` and filtered to the size ``target``, without a second copy at full size.

    The filter looks beyond a band's own rows, so each is cut with a margin; the result does not show the bands.
    """
    (width, height), rows = image.size, target[1]
    scale = height / rows
    margin = math.ceil(2 * scale) + 1
    step = max(1, int(_BAND / (width * scale)))
    small = Image.new(mode, target)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        top, bottom = max(0, int(first * scale) - margin), min(height, math.ceil(last * scale) + margin)
        band = convert(image.crop((0, top, width, bottom)))
        small.paste(_resized(band, (target[0], last - first), first * scale - top, last * scale - top), (0, first))
    return small


def _resized(image: Image.Image, target: tuple[int, int], top: float, bottom: float) -> Image.Image:
    """The rows from ``top`` to ``bottom`` at the size ``target``, by a bicubic filter as wide as the shrinking asks."""
    box = (0, top, image.width, min(bottom, image.height))
    return image.resize(target, Image.Resampling.BICUBIC, box=box)


def _register(kind: str, name: str) -> None:
    """Make one decoder known to Pillow; unknown ones would make it load all that it has."""
    if kind != "HEIF":
        importlib.import_module(f"PIL.{_PLUGINS[kind]}")
        return
    try:
        import pillow_heif
    except ImportError as error:
        raise PictureError(
            f"{name} is a HEIC picture, and the package pillow-heif is missing here; install it, or save it as JPEG"
        ) from error
    pillow_heif.register_heif_opener()


_PLUGINS = {
    "AVIF": "AvifImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "TIFF": "TiffImagePlugin",
    "WEBP": "WebPImagePlugin",
}


@contextmanager
def _no_warning(pixels: int) -> Iterator[None]:
    """Without Pillow's own opinion of many pixels. Only for many: the list of filters belongs to all threads."""
    if pixels < _QUIET:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
