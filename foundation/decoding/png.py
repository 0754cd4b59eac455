"""The chunks of a PNG file."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from .colour import Colours
from .errors import PictureError

MAGIC = b"\x89PNG\r\n\x1a\n"

_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MOST_CHUNKS = 200_000
_LARGEST_PROFILE = 16_000_000


@dataclass(frozen=True)
class Header:
    """What a file says beside its pixels: size, bits a pixel, EXIF data, colours; and the file without the rest."""

    width: int
    height: int
    bits: int
    exif: bytes | None
    colours: Colours
    stripped: bytes

    @property
    def pixel_bytes(self) -> float:
        """Bytes of one pixel, unpacked; Pillow keeps at least one for grey and palettes, four for colours."""
        return max(self.bits / 8, 4 if self.bits >= 24 else 1)


def read_header(data: bytes, name: str) -> Header:
    """Walk through all chunks; texts, times, thumbnails and the frames of an animation are left out.

    Raises:
        PictureError: too many chunks.
        ValueError, IndexError, struct.error: for anything that makes no sense.
    """
    if data[12:16] != b"IHDR":
        raise ValueError("its header is missing")
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    if kind not in _CHANNELS:
        raise ValueError(f"colour type {kind} is unknown")
    kept: list[memoryview] = []
    about: dict[bytes, bytes] = {}
    view, at, begin, in_pixels = memoryview(data), 8, 8, False
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            break
        length, chunk = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        in_pixels = in_pixels or chunk == b"IDAT"
        if chunk not in _PIXELS:
            kept.append(view[begin:at])
            begin = end
            if not in_pixels or chunk == b"eXIf":
                about.setdefault(chunk, data[at + 8 : end - 4])
        at = end
        if chunk == b"IEND":
            break
    else:
        raise PictureError(f"{name} is a PNG in over {_MOST_CHUNKS} pieces; save it again")
    kept.append(view[begin:at])
    return Header(
        width=width,
        height=height,
        bits=depth * _CHANNELS[kind],
        exif=about.get(b"eXIf"),
        colours=_colours(about),
        stripped=b"".join((data[:8], *kept)),
    )


def _colours(about: dict[bytes, bytes]) -> Colours:
    """Chunks of the wrong length say nothing, as in browsers."""
    codes, gamma, corners = (about.get(chunk, b"") for chunk in (b"cICP", b"gAMA", b"cHRM"))
    return Colours(
        codes=(codes[0], codes[1]) if len(codes) == 4 else None,
        codes_first=True,
        icc=_profile(about.get(b"iCCP")),
        srgb=b"sRGB" in about,
        gamma=struct.unpack(">I", gamma)[0] / 100000 if len(gamma) == 4 else None,
        chromaticities=tuple(value / 100000 for value in struct.unpack(">8I", corners)) if len(corners) == 32 else None,
    )


def _profile(content: bytes | None) -> bytes | None:
    if content is None:
        return None
    _, _, packed = content.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error:
        profile = b"?"  # as unusable as any broken profile, and reported with them
    return profile or b"?"
