"""A visitor's photo as a value: its file is opened, hashed and decoded once, and what travels afterwards is this.

Several events of one visit name the same file, so the last few photos are remembered by file, size and time of change.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gid.photo import load_photo, to_uint8
from ui.memory import Recent

SIDE = 1024  # of what is decoded, unless a larger video is asked for
REMEMBERED = 16  # photos; one takes up to 3 MB


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as it is meant to be seen: upright, sRGB, over white.

    Attributes:
        digest: sha256 of the file.
        file_size: (width, height) of the file, turned upright.
        pixels: (H, W, 3) uint8, shrunk to a longer side of at most ``side``.
        side: see there.
    """

    digest: str
    file_size: tuple[int, int]
    pixels: NDArray[np.uint8]
    side: int = SIDE

    def at(self, side: int) -> Tensor:
        """(3, H, W) float32 in [0, 1] with a longer side of at most ``side``."""
        return load_photo(self.pixels, side)


Source = str | Path | Photo
Stamp = tuple[str, int, int, int]

_digests: Recent[Stamp, str] = Recent(256)
_photos: Recent[Stamp, Photo] = Recent(REMEMBERED)


def open_photo(source: Source, side: int = SIDE) -> Photo:
    """The photo in a file, with at least ``side`` pixels where it has them.

    Raises:
        ValueError: the file is not a usable photo.
        FileNotFoundError: it is not there any more.
    """
    if isinstance(source, Photo):
        return source
    stamp = _stamp(source)
    known = _photos.get(stamp)
    if known is not None and known.side >= side:
        return known
    side = max(side, SIDE)
    pixels = to_uint8(load_photo(source, side)[None])[0]
    photo = Photo(photo_hash(source), _file_size(source), pixels, side)
    _photos.put(stamp, photo)
    return photo


def photo_hash(source: Source) -> str:
    """The sha256 of a photo's file, which stands for it in the caches. Raises FileNotFoundError if it is gone."""
    if isinstance(source, Photo):
        return source.digest
    stamp = _stamp(source)
    known = _digests.get(stamp)
    if known is None:
        with open(source, "rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        _digests.put(stamp, known)
    return known


def _stamp(source: str | Path) -> Stamp:
    status = os.stat(source)
    return (os.path.abspath(source), status.st_ino, status.st_size, status.st_mtime_ns)


def _file_size(source: str | Path) -> tuple[int, int]:
    """(width, height) of a picture that is known to be one, turned upright."""
    with Image.open(source) as image:
        sideways = image.getexif().get(274, 1) >= 5
        return (image.height, image.width) if sideways else image.size
