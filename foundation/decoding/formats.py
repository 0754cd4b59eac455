"""What a file is, by its own first bytes, and a copy of it that holds nothing but what its pixels need.

Decoders never see texts, thumbnails, further frames or pages, and of the metadata only what is read here: orientation
and colours. That is what bounds them: most costly files are small ones that say something odd outside their pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from . import jpeg, png, tiff
from .colour import SRGB, Colours
from .errors import MAX_PIXELS, PictureError, check_size, damaged, unreadable

# Bytes; real pictures are far below, and these decoders slow, or fond of copies.
_MOST_BYTES = {"WebP": 50_000_000, "AVIF": 32_000_000, "HEIF": 32_000_000}
_WEBP_PIXELS = 25_000_000
_AVIF_PIXELS, _HEIF_PIXELS = 32_000_000, 50_000_000
_RICH_PIXELS = 24_000_000  # of the two, with more than 8 bits, full colour resolution, or transparency
_MOST_DECODED = 400_000_000
_RLE_PIXELS = _RLE_BYTES = 4_000_000
_GIF_EXTRAS = 100_000

_OTHERS = (
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\0\0\x01\0", "an icon"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"PK\x03\x04", "an archive"),
    (b"\x1a\x45\xdf\xa3", "a video"),
)
_NAMES = {"HEIF": "HEIC", "WEBP": "WebP"}  # as people know them
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


@dataclass(frozen=True)
class Reading:
    """How the numbers of a decoded picture are to be read.

    Attributes:
        colours: what the file says about its colours.
        orientation: 1 to 8, as EXIF counts.
        white: the value of 16-bit grey that means white.
        inverted: 0 means white, in 16-bit grey.
    """

    colours: Colours = SRGB
    orientation: int = 1
    white: int = 65535
    inverted: bool = False


AS_IT_IS = Reading()


@dataclass(frozen=True)
class Container:
    """A file that may be decoded.

    Attributes:
        format: Pillow's name of the format.
        data: the file, rebuilt if it held more than its pixels need.
        pixels: how many its header says; 0 if only its decoder knows.
        most_pixels: how many its decoder may be given.
        reading: how the numbers are meant, as far as the file says outside what its decoder reads.
        exif_by_decoder: the orientation stands in the EXIF data that the decoder finds.
    """

    format: str
    data: bytes
    pixels: int = 0
    most_pixels: int = MAX_PIXELS
    reading: Reading = AS_IT_IS
    exif_by_decoder: bool = False


def read_container(data: bytes, name: str) -> Container:
    """Tell the format, check what can be checked before decoding, and leave out what pixels do not need.

    Args:
        data: the whole file.
        name: what the messages call it.

    Raises:
        PictureError: another format, damage that shows already, or more of anything than is decoded here.
    """
    reader = _reader(data)
    if reader is None:
        raise unreadable(name, _kind(data))
    try:
        return reader(data, name)
    except PictureError:
        raise
    except (IndexError, struct.error) as error:
        raise damaged(name, "its header ends too early") from error
    except ValueError as error:
        raise damaged(name, error) from error


def _reader(data: bytes) -> Callable[[bytes, str], Container] | None:
    if data.startswith(jpeg.MAGIC):
        return _jpeg
    if data.startswith(png.MAGIC):
        return _png
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff
    if data[:2] == b"BM":
        return _bmp
    if data[4:8] == b"ftyp" and _brands(data) & (_AVIF_BRANDS | _HEIF_BRANDS):
        return _isobmff
    return None


def _kind(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "a video"
    start = data[:64].lstrip()
    return next((kind for magic, kind in _OTHERS if data.startswith(magic) or start.startswith(magic)), "")


def _jpeg(data: bytes, name: str) -> Container:
    header = jpeg.read_header(data, name)
    check_size(name, header.width, header.height)
    jpeg.check_cost(header, name)
    reading = Reading(Colours(icc=header.profile), tiff.orientation_of(header.exif))
    pixels = header.width * header.height
    return Container("JPEG", header.stripped, pixels, reading=reading)


def _png(data: bytes, name: str) -> Container:
    header = png.read_header(data, name)
    check_size(name, header.width, header.height)
    pixels, most = header.width * header.height, min(MAX_PIXELS, int(_MOST_DECODED / header.pixel_bytes))
    check_pixels(name, pixels, most, f"PNG of {header.bits} bits a pixel")
    reading = Reading(header.colours, tiff.orientation_of(header.exif))
    return Container("PNG", header.stripped, pixels, most, reading)


def _gif(data: bytes, name: str) -> Container:
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    start, control, steps = at, b"", 0
    while data[at] != 0x2C:
        if data[at] != 0x21:
            raise ValueError("no picture follows its header")
        label, begin = data[at + 1], at
        at += 2
        while data[at]:
            at += 1 + data[at]
            steps += 1
        at += 1
        if label == 0xF9:
            control = data[begin:at]
        if steps > _GIF_EXTRAS:
            raise PictureError(
                f"{name} is a GIF with over {_GIF_EXTRAS} pieces of text; save it as PNG, or without comments"
            )
    width, height = struct.unpack_from("<HH", data, 6)
    left, top, wide, high = struct.unpack_from("<HHHH", data, at + 1)
    width, height = max(width, left + wide), max(height, top + high)
    check_size(name, width, height)
    return Container("GIF", b"".join((data[:start], control, memoryview(data)[at:])), width * height)


def _webp(data: bytes, name: str) -> Container:
    _check_bytes(name, data, "WebP")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        packed = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    check_size(name, width, height)
    check_pixels(name, width * height, _WEBP_PIXELS, "WebP")
    return Container("WEBP", data, width * height, _WEBP_PIXELS, exif_by_decoder=True)


def _tiff(data: bytes, name: str) -> Container:
    directory = tiff.read_directory(data)
    tiff.check_directory(name, directory)
    width, height = directory.number(256), directory.number(257)
    check_size(name, width, height)
    share = 4 + tiff.decoded_bytes(directory) / (width * height)  # Pillow's own copy, and a strip that may be all
    most = min(MAX_PIXELS, int(_MOST_DECODED / share))
    bits = directory.number(258, 1)
    check_pixels(name, width * height, most, f"TIFF of {directory.number(277, 1)} x {bits} bits")
    # Twelve bits may be stored as such, or in sixteen beside a note of the largest value.
    note = directory.number(281)
    white = note if bits == 16 and note in (1023, 4095, 16383) else (1 << bits) - 1 if bits < 16 else 65535
    reading = Reading(
        Colours(icc=tiff.profile_of(directory)),
        directory.number(tiff.ORIENTATION, 1),
        white,
        inverted=tiff.is_inverted(directory),
    )
    return Container("TIFF", tiff.only_pixels(directory), width * height, most, reading)


def _bmp(data: bytes, name: str) -> Container:
    if struct.unpack_from("<I", data, 14)[0] >= 40:
        width, height = struct.unpack_from("<ii", data, 18)
        if struct.unpack_from("<I", data, 30)[0] in (1, 2):
            check_pixels(name, width * abs(height), _RLE_PIXELS, "run-length coded BMP")
            if len(data) > _RLE_BYTES:
                raise PictureError(
                    f"{name} is a run-length coded BMP of {len(data) / 1e6:.0f} MB; the limit is "
                    f"{_RLE_BYTES // 10**6} MB. Save it as PNG"
                )
    else:
        width, height = struct.unpack_from("<HH", data, 18)
    check_size(name, width, abs(height))
    return Container("BMP", data, width * abs(height))


def _isobmff(data: bytes, name: str) -> Container:
    kind = "AVIF" if _brands(data) & _AVIF_BRANDS else "HEIF"
    _check_bytes(name, data, kind)
    head = data[:1_000_000]
    # Colours by code numbers; a colour profile, if there is one too, comes first.
    at = head.find(b"colrnclx")
    codes = struct.unpack_from(">HH", head, at + 8) if at >= 0 else None
    if codes is not None and codes[1] in (1, 6, 14, 15):
        codes = (codes[0], 13)  # browsers read video's transfer as that of sRGB in these files
    reading = Reading(Colours(codes=codes))
    if kind == "AVIF":
        rich = any(setup[2:3] and (setup[2] & 0x40 or setup[2] & 0x0C != 0x0C) for setup in _boxes(head, b"av1C"))
        return Container(kind, data, 0, _RICH_PIXELS if rich else _AVIF_PIXELS, reading, exif_by_decoder=True)
    # Its decoder turns it upright by the file's own transformations; what EXIF says is not to be done again.
    deep = any(setup[18:19] and (setup[16] & 3 == 3 or (setup[17] | setup[18]) & 7) for setup in _boxes(head, b"hvcC"))
    rich = deep or b":auxid:1" in head or b"auxiliary:alpha" in head
    return Container(kind, data, 0, _RICH_PIXELS if rich else _HEIF_PIXELS, reading)


def _boxes(head: bytes, kind: bytes) -> list[bytes]:
    """The beginnings of all boxes of a kind."""
    return [content[:24] for content in head.split(kind)[1:]]


def _brands(data: bytes) -> set[bytes]:
    end = min(struct.unpack_from(">I", data)[0], 256, len(data))
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def _check_bytes(name: str, data: bytes, kind: str) -> None:
    most = _MOST_BYTES[kind]
    kind = _NAMES.get(kind, kind)
    if len(data) > most:
        raise PictureError(
            f"{name} has {len(data) / 1e6:.1f} MB; the limit for {kind} is {most // 10**6} MB. Save it as JPEG"
        )


def check_pixels(name: str, pixels: int, most: int, kind: str) -> None:
    """Raise PictureError for more pixels than a format is decoded with."""
    if pixels > most:
        raise PictureError(
            f"{name} has {pixels / 1e6:.1f} megapixels; the limit for {_NAMES.get(kind, kind)} is {most / 1e6:.0f}. "
            "Make it smaller, or save it as JPEG"
        )
