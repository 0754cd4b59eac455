"""What can be wrong with a picture, as sentences."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

FORMATS = "JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF"

MIN_SIDE = 16
MAX_ASPECT = 4.0
MAX_PIXELS = 100_000_000

# What decoders raise on damaged data: they are not written for enemies, and few of these are meant.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class PictureError(ValueError):
    """A picture that cannot be used: the message names what it is, the limit and the remedy."""


def damaged(name: str, reason: object) -> PictureError:
    """The sentence for data that end too early or make no sense."""
    told = " ".join(str(reason).split())  # some libraries end it with a line break
    return PictureError(f"{name} is damaged or cut short ({told[:200]}); save or download it again")


def unreadable(name: str, kind: str = "") -> PictureError:
    """The sentence for data that are no picture of a known format; ``kind`` is what they are, if that is known."""
    what = f"is {kind}, which is not an image that can be read here" if kind else "is not an image that can be read"
    return PictureError(f"{name} {what}; use {FORMATS}")


def check_size(name: str, width: int, height: int) -> None:
    """Raise PictureError for a side under 16 pixels, over 100 megapixels, or sides that differ by more than 4:1."""
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{name} is {width}x{height} pixels, over {MAX_PIXELS // 10**6} megapixels; make it smaller first"
        )
    if min(width, height) < MIN_SIDE:
        raise PictureError(
            f"{name} is {width}x{height} pixels; each side must be at least {MIN_SIDE}: use a larger picture"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(
            f"{name} is {width}x{height} pixels, longer than {MAX_ASPECT:g}:1; crop it to a less extreme shape"
        )
