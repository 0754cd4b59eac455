"""The files that visitors sent: a folder of this process alone, what a request may name in it, and how large it gets.

Layout of the folder of a process: ``uploads`` is gradio's cache, where uploads and copies of results lie in folders
named by their hash; beside it the services keep their results. A lock says that the process is alive; the folder of a
process that was killed is removed by the next one that starts.
"""

from __future__ import annotations

import atexit
import base64
import binascii
import functools
import hashlib
import logging
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from foundation.files import write_bytes

logger = logging.getLogger(__name__)

MAX_FILE_MB = 50
MAX_FILE = MAX_FILE_MB * 2**20
CACHE_MB = 4096  # of uploads and copies of results; GID_CACHE_MB changes it
SPARE = 256 * 2**20  # bytes of the disk that are left free
KEPT_SECONDS = 600.0  # what is younger is never cleared away: its page is probably still open
NOT_SENT = (
    "The server does not have this file: it was not sent to this page, or it was cleared away in the meantime. "
    "Send the photo again"
)
NO_ADDRESSES = (
    "Pictures are not fetched from addresses: send the picture itself, by upload or as base64 text that begins with "
    "data:image/"
)
FULL = "The server has no room for more pictures just now. Try again in ten minutes"
_PICTURES = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/avif": ".avif",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/tiff": ".tiff",
    "image/heic": ".heic",
    "image/heif": ".heic",
}


# -- the folder --------------------------------------------------------------------------------------------------------


@functools.cache
def app_folder() -> Path:
    """The folder of this process, made when it is first asked for; it goes when the process ends.

    Folders that killed processes left are removed.
    """
    home = _home()
    for lock in home.glob("*.lock"):
        _remove_if_dead(lock)
    while True:
        folder = home / secrets.token_hex(6)
        handle = _locked(folder.with_suffix(".lock"))
        if handle is not None:
            break
    folder.mkdir(mode=0o700)
    atexit.register(_remove_own, folder, handle)
    return folder


def uploads_folder() -> Path:
    """Gradio's cache: GRADIO_TEMP_DIR where the owner sets it, else a folder of this process, which is then set there.

    Has to be called before the first component is made, which remembers the place.
    """
    if not os.environ.get("GRADIO_TEMP_DIR"):
        folder = app_folder() / "uploads"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return Path(os.environ["GRADIO_TEMP_DIR"])


def results_folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A new folder for what a service makes; it goes with the returned object."""
    return tempfile.TemporaryDirectory(prefix=prefix, dir=app_folder())


def _home() -> Path:
    """The folder of all processes of this user; one of its own where somebody else has made that."""
    owner = os.getuid() if hasattr(os, "getuid") else 0
    home = Path(tempfile.gettempdir()).resolve() / f"gid-demo-{owner}"
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
    status = os.lstat(home)
    if stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == owner):
        return home
    return Path(tempfile.mkdtemp(prefix="gid-demo-"))


def _locked(path: Path) -> Any:
    """The open file, locked for as long as it is open, or None if somebody else has it or it is gone meanwhile."""
    handle = open(path, "w")  # noqa: SIM115 - open as long as the process lives
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle.fileno()).st_ino == path.stat().st_ino:
            return handle
    except ImportError:  # where there are no such locks nothing is removed either
        return handle
    except OSError:
        pass
    handle.close()
    return None


def _remove_if_dead(lock: Path) -> None:
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return
    handle = _locked(lock)
    if handle is not None:
        logger.info("removing %s, left by a process that was killed", lock.with_suffix(""))
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink(missing_ok=True)
        handle.close()


def _remove_own(folder: Path, handle: Any) -> None:
    """At the end of the process."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)
    handle.close()


# -- what a request may name -------------------------------------------------------------------------------------------


def uploaded(path: object) -> str:
    """The file that a request names, as its real path: a regular file of bounded size in the cache.

    Raises:
        ValueError: for anything else, in the same words whether it exists or not.
    """
    if not isinstance(path, str):
        raise ValueError(NOT_SENT)
    if path.startswith(("http://", "https://")):
        raise ValueError(NO_ADDRESSES)
    home = os.path.realpath(uploads_folder())
    try:
        real = os.path.realpath(path)
        parts = Path(real).relative_to(home).parts
        status = os.stat(real) if len(parts) >= 2 else None  # what lies at the top is still being written
    except (OSError, ValueError) as error:
        raise ValueError(NOT_SENT) from error
    if status is None or not stat.S_ISREG(status.st_mode):
        raise ValueError(NOT_SENT)
    if status.st_size > MAX_FILE:
        raise ValueError(
            f"the file has {status.st_size / 2**20:.0f} MB; the limit is {MAX_FILE_MB}. Send a smaller one"
        )
    return real


def stored(text: str) -> str:
    """Write a picture that came as base64 text (``data:image/png;base64,...``) into the cache and return its path.

    Raises:
        ValueError: it is no base64, no picture by its own words, or too large.
    """
    head, comma, body = text.partition(",")
    kind, *options = head.removeprefix("data:").lower().split(";")
    suffix = _PICTURES.get(kind.strip())
    if not comma or suffix is None or "base64" not in options:
        known = ", ".join(_PICTURES)
        raise ValueError(f"{head[:60]!r} is no picture as base64 text; begin with data:, one of {known}, and ;base64,")
    if len(body) > MAX_FILE * 4 // 3 + 4:
        raise ValueError(f"the picture is larger than {MAX_FILE_MB} MB, the limit. Send a smaller one")
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the picture's base64 text is damaged; send it again") from error
    folder = uploads_folder() / hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"picture{suffix}"
    write_bytes(path, data)
    return str(path)


# -- how large the cache gets ------------------------------------------------------------------------------------------


class Room:
    """Keeps the cache below a size: what is oldest goes first, never what is younger than ten minutes.

    Args:
        limit: bytes; 4 GB or GID_CACHE_MB unless given.
        every: seconds between two looks at the folder.

    Attributes:
        keep: files that stay, such as the page's examples.
    """

    def __init__(self, limit: int | None = None, every: float = 20.0) -> None:
        self.limit = limit if limit is not None else int(float(os.environ.get("GID_CACHE_MB") or CACHE_MB) * 2**20)
        self.keep: Collection[str] = ()
        self._every = every
        self._looked = -every
        self._there = True
        self._lock = threading.Lock()

    def make(self) -> bool:
        """Clear away what is too much, if it is time to look; returns whether there is room for more."""
        with self._lock:
            if time.monotonic() - self._looked >= self._every:
                self._looked = time.monotonic()
                self._there = trim(uploads_folder(), self.limit, self.keep) < self.limit and disk_has_room()
            return self._there


def disk_has_room() -> bool:
    """Whether the disk of the cache has some space left."""
    return shutil.disk_usage(uploads_folder()).free > SPARE


def trim(folder: Path, limit: int, keep: Collection[str] = (), younger: float = KEPT_SECONDS) -> int:
    """Delete the oldest files until ``limit`` bytes are left; returns how many are.

    Files in ``keep`` and files ``younger`` than that many seconds stay; parts of uploads that were broken off go.
    """
    found, now = sorted(_files(folder), key=lambda item: item[1]), time.time()
    total = sum(size for _, _, size in found)
    for path, changed, size in found:
        broken_off = os.path.dirname(path) == str(folder)  # an upload whose visitor went away in the middle of it
        if now - changed < younger or (total <= limit and not broken_off):
            continue
        if path in keep:
            continue
        with suppress(OSError):
            os.unlink(path)
            total -= size
            if not broken_off:
                os.rmdir(os.path.dirname(path))  # fails where other files are left in it
    return total


def _files(folder: Path) -> Iterator[tuple[str, float, int]]:
    """Path, time of the last change and size of every file below a folder."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with suppress(OSError):
                status = os.lstat(path)
                yield path, status.st_mtime, status.st_size
