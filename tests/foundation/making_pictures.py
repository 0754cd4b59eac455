"""Picture files put together byte by byte, as the formats' own documents say, for what Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="no folder of failing cases beside the repository")

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
SRGB_CORNERS = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3_CORNERS = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)


def scene(width: int = 40, height: int = 24) -> np.ndarray:
    """(H, W, 3) uint8 without any symmetry."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 6, rows * 10, (rows + columns) * 3], -1).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """The file that Pillow (with pillow-heif) writes."""
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(pixels: np.ndarray, *extra: bytes, size: tuple[int, int] | None = None, interlaced: bool = False) -> bytes:
    """A PNG of (H, W) or (H, W, C) uint8 or uint16; ``size`` says another one in the header."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    depth = 8 * pixels.dtype.itemsize
    width, height = size or (pixels.shape[1], pixels.shape[0])
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"".join((PNG_MAGIC, header, *extra, data, chunk(b"IEND", b"")))


def gamma_chunk(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100000)))


def corners_chunk(corners: tuple[float, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100000) for value in corners)))


def codes_chunk(primaries: int, transfer: int) -> bytes:
    return chunk(b"cICP", bytes((primaries, transfer, 0, 1)))


def profile_chunk(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"profile\0\0" + zlib.compress(profile))


def tiff(
    pixels: bytes,
    width: int,
    height: int,
    fields: dict[int, tuple[int, tuple[int, ...]]],
    order: str = "<",
    big: bool = False,
) -> bytes:
    """A TIFF with one strip. ``fields``: tag -> (type 3 for SHORT or 4 for LONG, values), beside those of its size."""
    start = 16 if big else 8
    strip = {273: (4, (start,)), 278: (4, (height,)), 279: (4, (len(pixels),))}
    everything = {256: (4, (width,)), 257: (4, (height,)), 259: (3, (1,)), 277: (3, (1,)), **strip, **fields}
    at = start + len(pixels) + len(pixels) % 2
    later = at + (8 + 20 * len(everything) + 8 if big else 2 + 12 * len(everything) + 4)
    entries, values_at_end, inline = b"", b"", 8 if big else 4
    for tag, (kind, values) in sorted(everything.items()):
        content = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(content) > inline:
            place = struct.pack(order + ("Q" if big else "I"), later + len(values_at_end))
            values_at_end += content
        else:
            place = content.ljust(inline, b"\0")
        entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(values)) + place
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    count = struct.pack(order + ("Q" if big else "H"), len(everything))
    padding = bytes(len(pixels) % 2)
    return mark + head + pixels + padding + count + entries + bytes(inline) + values_at_end


def grey_tiff(values: np.ndarray, photometric: int = 1, order: str = "<", **more: Any) -> bytes:
    """A TIFF of one channel (H, W), whole numbers or floats."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    height, width = values.shape
    fields = {
        258: (3, (8 * values.dtype.itemsize,)),
        262: (3, (photometric,)),
        339: (3, (kind,)),
        **more.pop("fields", {}),
    }
    return tiff(values.astype(order + values.dtype.str[1:]).tobytes(), width, height, fields, order, **more)


def icc_profile(
    space: bytes = b"RGB ",
    corners: tuple[float, ...] = SRGB_CORNERS,
    gamma: float = 2.2,
    cmyk_to_lightness: bool = False,
) -> bytes:
    """A small ICC profile, version 2.

    Args:
        space: ``b"RGB "`` (three primaries and a gamma), ``b"GRAY"`` (a gamma), or ``b"CMYK"`` (see below).
        corners: white, red, green, blue as x, y.
        gamma: exponent from numbers to light.
        cmyk_to_lightness: the ink K alone decides: L* = 100 (1 - K), whatever the other inks are.
    """

    def xyz(values: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))

    def curve() -> bytes:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"

    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz(np.array([0.9642, 1.0, 0.8249])),
    }
    if space == b"RGB ":
        columns = adapted_primaries(corners)
        tags |= {name: xyz(columns[:, number]) for number, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve())
    elif space == b"GRAY":
        tags[b"kTRC"] = curve()
    elif cmyk_to_lightness:
        ramp = bytes(range(256))
        lab = b"".join(bytes((255 if number % 2 == 0 else 0, 128, 128)) for number in range(16))
        matrix = struct.pack(">9i", *(65536 if number % 4 == 0 else 0 for number in range(9)))
        tags[b"A2B0"] = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + lab + ramp * 3
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    connection = b"Lab " if space == b"CMYK" else b"XYZ "
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02400000, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return head[:128] + struct.pack(">I", len(tags)) + table + body


def primaries_matrix(corners: tuple[float, ...]) -> np.ndarray:
    """(3, 3): linear RGB of these corners -> XYZ, so that (1, 1, 1) is their white; from the definition."""
    points = [np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in zip(corners[::2], corners[1::2], strict=True)]
    columns = np.stack(points[1:], 1)
    return columns @ np.diag(np.linalg.inv(columns) @ points[0])


def adapted_primaries(corners: tuple[float, ...]) -> np.ndarray:
    """The same, adapted to the white of profiles (D50) by the Bradford matrix."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    matrix = primaries_matrix(corners)
    ratio = (bradford @ np.array([0.9642, 1.0, 0.8249])) / (bradford @ matrix.sum(1))
    return np.linalg.inv(bradford) @ np.diag(ratio) @ bradford @ matrix


def srgb_encoded(light: np.ndarray) -> np.ndarray:
    """Light in [0, 1] -> sRGB bytes, unrounded (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_light(values: np.ndarray) -> np.ndarray:
    """sRGB bytes -> light in [0, 1]."""
    share = np.asarray(values, np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def same_white(light: np.ndarray, corners: tuple[float, ...]) -> np.ndarray:
    """Linear RGB (..., 3) of corners with the white D65 -> linear sRGB."""
    return light @ (np.linalg.inv(primaries_matrix(SRGB_CORNERS)) @ primaries_matrix(corners)).T


def headers(width: int, height: int) -> dict[str, bytes]:
    """Files that say a size in their first bytes and have nothing to show for it."""
    vp8x = b"VP8X" + struct.pack("<II", 10, 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    vp8l = b"VP8L" + struct.pack("<IBI", 5, 0x2F, (width - 1) | (height - 1) << 14) + bytes(20)
    vp8 = b"VP8 " + struct.pack("<I", 10) + bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(20)
    gif = (
        b"GIF89a" + struct.pack("<HHBBB", 100, 100, 0, 0, 0) + b"," + struct.pack("<HHHHBB", 0, 0, width, height, 0, 8)
    )
    frame = b"\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width) + b"\3\1\x22\0\2\x11\1\3\x11\1"
    scan = b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0"
    bmp = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)
    files = {
        "PNG": png(np.zeros((1, 1, 3), np.uint8), size=(width, height)),
        "GIF": gif,
        "JPEG": b"\xff\xd8" + frame + scan,
        "BMP": bmp,
        "TIFF": tiff(b"", width, height, {258: (3, (8, 8, 8)), 262: (3, (2,)), 277: (3, (3,))}),
        **{f"WebP {name}": b"RIFF\0\0\0\0WEBP" + content for name, content in (("x", vp8x), ("l", vp8l), ("", vp8))},
    }
    return files
