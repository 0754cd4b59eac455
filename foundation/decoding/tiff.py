"""Image file directories of TIFF and EXIF, read and rewritten here so that no decoder meets more than pixels need."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .errors import PictureError, damaged

ORIENTATION = 274
PHOTOMETRIC = 262
ICC = 34675

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}
_STRIPS_AND_TILES = {273, 279, 324, 325}  # offsets and byte counts
# What says how the pixels are stored, and no more: no text, no thumbnails, no further directories or pages.
_NEEDED = _STRIPS_AND_TILES | {
    *(254, 256, 257, 258, 259, 262, 266, 277, 278, 284, 292, 293, 317, 320, 322, 323, 332, 338, 339, 340, 341, 347),
    *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
_MOST_PIECES = 200_000
_MOST_BYTES = 1_000_000
_LARGEST_TILE = 100_000_000
_LARGEST_PROFILE = 16_000_000


@dataclass(frozen=True)
class Entry:
    """One field: where its values lie in the file, and its own 12 or 20 bytes."""

    tag: int
    kind: int
    count: int
    offset: int
    raw: bytes

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return _SIZES.get(self.kind, 1) * self.count


@dataclass(frozen=True)
class Directory:
    """The first directory of a file: its fields by tag, the first of each."""

    data: bytes
    order: str
    big: bool
    entries: dict[int, Entry]

    def numbers(self, tag: int, default: tuple[int, ...] = (), most: int = 8) -> tuple[int, ...]:
        """The first values of a field of whole numbers."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _WHOLE:
            return default
        count = min(entry.count, most)
        end = entry.offset + count * _SIZES[entry.kind]
        if end > len(self.data):
            return default
        return struct.unpack(f"{self.order}{count}{_WHOLE[entry.kind]}", self.data[entry.offset : end]) or default

    def number(self, tag: int, default: int = 0) -> int:
        """The first value of a field of whole numbers."""
        return self.numbers(tag, (default,), 1)[0]

    def content(self, tag: int, most: int) -> bytes | None:
        """The bytes of a field; None if it is absent, longer than ``most``, or beyond the end of the file."""
        entry = self.entries.get(tag)
        if entry is None or entry.size > most or entry.offset + entry.size > len(self.data):
            return None
        return self.data[entry.offset : entry.offset + entry.size]


def read_directory(data: bytes) -> Directory:
    """The first directory of TIFF or EXIF data.

    Raises:
        ValueError: no directory can be read.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        raise ValueError("no byte order")
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    try:
        start = struct.unpack_from(order + "Q", data, 8)[0] if big else struct.unpack_from(order + "I", data, 4)[0]
        count = struct.unpack_from(order + ("Q" if big else "H"), data, start)[0]
    except (struct.error, OverflowError) as error:
        raise ValueError("its directory lies beyond its end") from error
    length, inline, first = (20, 8, start + 8) if big else (12, 4, start + 2)
    if count > 65535 or first + count * length > len(data):
        raise ValueError("its directory is cut short")
    entries: dict[int, Entry] = {}
    for at in range(first, first + count * length, length):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
        own = at + length - inline
        outside = _SIZES.get(kind, 1) * values > inline
        offset = struct.unpack_from(order + ("Q" if big else "I"), data, own)[0] if outside else own
        entries.setdefault(tag, Entry(tag, kind, values, offset, data[at : at + length]))
    return Directory(data, order, big, entries)


def orientation_of(exif: bytes | None) -> int:
    """How a picture lies according to its EXIF data: 1 to 8, 1 (upright) if they do not say or cannot be read."""
    if not exif:
        return 1
    data = exif.removeprefix(b"Exif\0\0")
    try:
        value = read_directory(data).number(ORIENTATION, 1)
    except ValueError:
        return 1
    return value if 1 <= value <= 8 else 1


def profile_of(directory: Directory) -> bytes | None:
    """The embedded colour profile, or None."""
    return directory.content(ICC, _LARGEST_PROFILE)


def check_directory(name: str, directory: Directory) -> None:
    """Raise PictureError for a table of strips or tiles, or a tile, that no honest picture has."""
    for entry in _needed(directory):
        if entry.offset + entry.size > len(directory.data) and entry.size > 4:
            raise damaged(name, f"field {entry.tag} lies beyond its end")
        pieces = entry.tag in _STRIPS_AND_TILES
        if entry.count > _MOST_PIECES if pieces else entry.size > _MOST_BYTES:
            limit = f"{_MOST_PIECES} pieces" if pieces else f"{_MOST_BYTES} bytes"
            raise PictureError(
                f"{name} is a TIFF whose field {entry.tag} has {entry.count} values; the limit is {limit}. "
                "Save it as PNG or JPEG"
            )
    tile = directory.number(322) * directory.number(323) * _pixel_bytes(directory)
    if tile > _LARGEST_TILE:
        raise PictureError(
            f"{name} is a TIFF with tiles of {tile / 1e6:.0f} MB; the limit is {_LARGEST_TILE // 10**6} MB. "
            "Save it as PNG or JPEG"
        )


def only_pixels(directory: Directory) -> bytes:
    """The file with one directory, at its end, that holds what the pixels need and nothing else.

    Grey of more than 8 bits of which 0 is white is said to be ordinary grey: Pillow does not turn it round, and knows
    it in one byte order only.
    """
    data, order, big = directory.data, directory.order, directory.big
    start = len(data) + len(data) % 2
    kept = _needed(directory)
    if is_inverted(directory):
        head = struct.pack(order + ("HHQ" if big else "HHI"), PHOTOMETRIC, 3, 1)
        ordinary = head + struct.pack(order + "H", 1).ljust(8 if big else 4, b"\0")
        kept = [replace(entry, raw=ordinary) if entry.tag == PHOTOMETRIC else entry for entry in kept]
    header = data[:8] + struct.pack(order + "Q", start) if big else data[:4] + struct.pack(order + "I", start)
    return b"".join(
        (
            header,
            memoryview(data)[len(header) :],
            bytes(len(data) % 2),
            struct.pack(order + ("Q" if big else "H"), len(kept)),
            *(entry.raw for entry in kept),
            bytes(8 if big else 4),
        )
    )


def is_inverted(directory: Directory) -> bool:
    """Whether it is grey of more than 8 bits of which 0 is white."""
    return directory.number(PHOTOMETRIC, 1) == 0 and directory.number(258, 1) > 8


def _needed(directory: Directory) -> list[Entry]:
    return sorted((entry for tag, entry in directory.entries.items() if tag in _NEEDED), key=lambda entry: entry.tag)


def decoded_bytes(directory: Directory) -> int:
    """Bytes that the pixels take unpacked, in the file's own depth."""
    return directory.number(256) * directory.number(257) * _pixel_bytes(directory)


def _pixel_bytes(directory: Directory) -> int:
    bits: Iterable[int] = directory.numbers(258, (1,))
    return max(1, max(bits) * directory.number(277, 1) // 8)
