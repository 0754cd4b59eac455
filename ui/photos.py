"""A visitor's photo as a value: its file is opened, hashed and decoded once, and what travels afterwards is this.

Several events of one visit name the same file, so the last few photos are remembered by file, size and time of change.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from foundation.pictures import Photo, read_photo
from ui.memory import Recent

__all__ = ["SIDE", "Photo", "Source", "open_photo", "photo_hash"]

SIDE = 1024  # of canvases and of pictures that feedback is given on
REMEMBERED = 12  # photos; one takes up to 12 MB

Source = str | Path | Photo
Stamp = tuple[str, int, int, int]

_photos: Recent[Stamp, Photo] = Recent(REMEMBERED)
_reading: dict[Stamp, threading.Lock] = {}
_guard = threading.Lock()


def open_photo(source: Source) -> Photo:
    """The photo in a file, read now or remembered; of several threads that ask for one, the first reads it.

    Raises:
        ValueError: the file is not a usable photo.
        FileNotFoundError: it is not there any more.
    """
    if isinstance(source, Photo):
        return source
    stamp = _stamp(source)
    with _guard:
        turn = _reading.setdefault(stamp, threading.Lock())
    try:
        with turn:
            photo = _photos.get(stamp)
            if photo is None:
                photo = read_photo(source, follow_links=False)
                _photos.put(stamp, photo)
            return photo
    finally:
        with _guard:
            _reading.pop(stamp, None)


def photo_hash(source: Source) -> str:
    """The sha256 of a photo's file, which stands for it in the caches.

    The photo is read for it, since the click that follows wants it; of what is no photo only the hash is told.
    Raises FileNotFoundError if it is gone.
    """
    try:
        return open_photo(source).digest
    except ValueError:  # a click will say what is wrong with it
        with open(str(source), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(source: str | Path) -> Stamp:
    status = os.stat(source)
    return (os.path.abspath(source), status.st_ino, status.st_size, status.st_mtime_ns)
