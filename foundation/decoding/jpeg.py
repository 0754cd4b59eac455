"""The header of a JPEG file."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .errors import PictureError

MAGIC = b"\xff\xd8\xff"

_SOF = {0xC0, 0xC1, 0xC2}
_OTHER_SOF = {*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}
_TABLES = {0xC4, 0xDB, 0xDD}  # Huffman, quantization, restart interval
_SOS = 0xDA
_MOST_SEGMENTS = 10_000
_MOST_COEFFICIENTS = 150_000_000
_MOST_SCANS = 200
_MOST_SCANNED = 6_000_000_000
_LARGEST_PROFILE = 16_000_000


@dataclass(frozen=True)
class Header:
    """What stands before the pixels.

    Attributes:
        width, height: in pixels, before it is turned upright.
        coefficients: how many the decoder holds at once if it cannot write line by line.
        buffered: it cannot, because the scans refine each other or hold one colour each.
        scans: an upper bound of their number.
        exif: EXIF data, beginning with their byte order.
        profile: colour profile, put together.
        stripped: the file with no other segments than decoding needs.
    """

    width: int
    height: int
    coefficients: int
    buffered: bool
    scans: int
    exif: bytes | None
    profile: bytes | None
    stripped: bytes


def read_header(data: bytes, name: str) -> Header:
    """Walk through the segments up to the first scan.

    Raises:
        PictureError: too many segments, or a kind of JPEG that browsers do not show either.
        ValueError, IndexError, struct.error: for anything that makes no sense.
    """
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    profile: dict[int, bytes] = {}
    frame: bytes | None = None
    kind, exif, at = 0, None, 2
    for _ in range(_MOST_SEGMENTS):
        start = data.find(b"\xff", at)
        if start < 0:
            raise ValueError("no pixels follow its header")
        code = data[start + 1]
        if code in (0x00, 0xFF) or code in _ALONE:  # stuffing, padding, or a marker without content
            at = start + (1 if code == 0xFF else 2)
            continue
        length = struct.unpack_from(">H", data, start + 2)[0]
        content, at = data[start + 4 : start + 2 + length], start + 2 + length
        if code in _OTHER_SOF:
            raise PictureError(f"{name} is a JPEG of a kind that browsers cannot show; save it as an ordinary JPEG")
        if code in _SOF:
            frame, kind = content, code
        elif code == 0xE1 and content.startswith(b"Exif\0") and exif is None:
            exif = content[6:]
        elif code == 0xE2 and content.startswith(b"ICC_PROFILE\0"):
            profile.setdefault(content[12], content[14:])
        if code in _SOF or code in _TABLES or _adobe_or_jfif(code, content):
            kept.append(memoryview(data)[start:at])
        if code == _SOS:
            break
    else:
        raise PictureError(f"{name} is a JPEG with over {_MOST_SEGMENTS} segments of metadata; save it without them")
    if frame is None:
        raise ValueError("its pixels come before their size")
    kept.append(memoryview(data)[start:])
    height, width, components = struct.unpack_from(">HHB", frame, 1)
    buffered = kind == 0xC2 or content[0] < components
    joined = b"".join(profile[number] for number in sorted(profile))
    return Header(
        width=width,
        height=height,
        coefficients=_coefficients(frame, width, height, components),
        buffered=buffered,
        scans=data.count(b"\xff\xda", start) if buffered else 1,
        exif=exif,
        profile=joined if 0 < len(joined) <= _LARGEST_PROFILE else None,
        stripped=b"".join(kept),
    )


def check_cost(header: Header, name: str) -> None:
    """Raise PictureError for a JPEG in several scans that would take too much memory or time."""
    if not header.buffered:
        return
    if header.coefficients > _MOST_COEFFICIENTS:
        raise PictureError(
            f"{name} is a progressive JPEG of {header.width * header.height / 1e6:.0f} megapixels with "
            f"{header.coefficients / 1e6:.0f} million values; the limit is {_MOST_COEFFICIENTS // 10**6} million. "
            "Make it smaller, or save it as a baseline JPEG"
        )
    if header.scans > _MOST_SCANS or header.scans * header.coefficients > _MOST_SCANNED:
        raise PictureError(
            f"{name} is a JPEG of {header.width * header.height / 1e6:.0f} megapixels in {header.scans} scans, which "
            "is too many; save it as a baseline JPEG"
        )


def _adobe_or_jfif(code: int, content: bytes) -> bool:
    """Segments that say which colour model the numbers mean."""
    return (code == 0xEE and content.startswith(b"Adobe")) or (code == 0xE0 and content.startswith(b"JFIF\0"))


def _coefficients(frame: bytes, width: int, height: int, components: int) -> int:
    """All components together, in their own sampling."""
    factors = [divmod(frame[7 + 3 * number], 16) for number in range(components)]
    if components == 0 or min(min(factor) for factor in factors) == 0:
        raise ValueError("its colours have no sampling")
    across, down = max(wide for wide, _ in factors), max(high for _, high in factors)
    return sum(wide * high for wide, high in factors) * width * height // (across * down)
