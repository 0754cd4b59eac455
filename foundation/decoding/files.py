"""The bytes of a file that somebody named: only a regular file of bounded size is ever opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import PictureError

MAX_BYTES = 100_000_000

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def file_size(path: Path, follow_links: bool = True) -> int:
    """Size in bytes of a regular file, without opening it.

    Raises:
        PictureError: there is no such file, or it is a folder, a device, a pipe, empty or over 100 MB.
    """
    try:
        status = os.stat(path, follow_symlinks=follow_links)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise _absent(path, error) from error
    return _checked_size(path, status)


def read_file(path: Path, follow_links: bool = True) -> bytes:
    """All bytes of a regular file of at most 100 MB.

    What is opened is looked at before, so that a device or a pipe is never touched, and again after, because the name
    may have come to mean something else in between; the opening itself never waits for a writer.

    Raises:
        PictureError: as `file_size`, and if the file cannot be read or changes while it is read.
    """
    file_size(path, follow_links)
    try:
        descriptor = os.open(path, _FLAGS | (0 if follow_links else getattr(os, "O_NOFOLLOW", 0)))
    except (OSError, ValueError) as error:
        raise _absent(path, error) from error
    with open(descriptor, "rb", buffering=0) as file:
        size = _checked_size(path, os.fstat(descriptor))
        try:
            data = file.read(size) or b""
        except OSError as error:
            raise PictureError(f"{path.name} cannot be read ({error.strerror}); save it again") from error
    if len(data) != size:
        raise PictureError(f"{path.name} changed while it was read; try again when it is whole")
    return data


def check_bytes(name: str, size: int) -> None:
    """Raise PictureError for no bytes at all, or more than 100 MB."""
    if size == 0:
        raise PictureError(f"{name} is empty (0 bytes); save or download it again")
    if size > MAX_BYTES:
        raise PictureError(
            f"{name} has {size / 1e6:.0f} MB; the limit is {MAX_BYTES // 10**6} MB. Make it smaller first"
        )


def _checked_size(path: Path, status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(path)
    check_bytes(path.name, status.st_size)
    return status.st_size


def _absent(path: Path, error: Exception) -> PictureError:
    if isinstance(error, PermissionError):
        return PictureError(f"no photo at {_shown(path)} that may be read; allow reading it, or give another file")
    return _no_file(path)


def _no_file(path: Path) -> PictureError:
    return PictureError(f"no photo at {_shown(path)}, which is not a file; give the path of an existing picture file")


def _shown(path: Path) -> str:
    """A path in a sentence; of a very long one its end."""
    return text if len(text := str(path)) <= 200 else f"...{text[-200:]}"
