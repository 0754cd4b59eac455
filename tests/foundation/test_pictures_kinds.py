"""Pictures of every kind of number: deep, shallow, floating, inverted, inks, with transparency, with much metadata."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundation.pictures import Photo, load_photo, read_photo
from tests.foundation.making_pictures import CASES, chunk, encoded, grey_tiff, needs_cases, png, scene, tiff

# -- more or fewer than 8 bits, other colour models -----------------------------------------------------------------


def test_16_bit_grey_keeps_its_precision() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (20, 24), dtype=np.uint16)
    for data in (png(values), grey_tiff(values), grey_tiff(values, order=">"), grey_tiff(values, big=True)):
        np.testing.assert_allclose(load_photo(data), np.broadcast_to(values / 65535, (3, 20, 24)), atol=1e-6)
    np.testing.assert_array_equal(read_photo(png(values)).array()[..., 1], np.rint(values / 257))


def test_16_bit_grey_shrinks_by_averages() -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (2500, 2500), dtype=np.uint16)
    photo = read_photo(png(noise), 256)
    assert photo.array().shape == (256, 256, 3)
    assert photo.tensor().mean() == pytest.approx(noise.mean() / 65535, abs=0.002)


def test_16_bit_colour() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (20, 24, 3)).astype(np.uint16)
    fields = {258: (3, (16, 16, 16)), 262: (3, (2,)), 277: (3, (3,))}
    for data in (png(values), tiff(values.tobytes(), 24, 20, fields)):
        np.testing.assert_allclose(load_photo(data).permute(1, 2, 0), values / 65535, atol=1.01 / 255)


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_may_be_zero(order: str) -> None:
    grey = np.arange(20 * 24, dtype=np.uint16).reshape(20, 24) * 130
    np.testing.assert_allclose(load_photo(grey_tiff(grey, 0, order))[0], 1 - grey / 65535, atol=1e-6)
    floats = (grey / 65535).astype(np.float32)
    np.testing.assert_allclose(load_photo(grey_tiff(floats, 0, order))[0], 1 - floats, atol=1e-6)
    eight = (grey // 257).astype(np.uint8)
    np.testing.assert_array_equal(read_photo(grey_tiff(eight, 0, order)).array()[..., 0], 255 - eight)


def test_twelve_bits_reach_from_black_to_white() -> None:
    values = np.linspace(0, 4095, 16 * 16).astype(np.uint16).reshape(16, 16)
    bits = np.unpackbits(values.astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 4:]
    packed = tiff(np.packbits(bits.ravel()).tobytes(), 16, 16, {258: (3, (12,)), 262: (3, (1,))})
    noted = grey_tiff(values, fields={281: (3, (4095,))})
    for data in (packed, noted):
        np.testing.assert_allclose(load_photo(data)[0], values / 4095, atol=1e-6)


def test_floating_point_is_read_by_one_rule(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 24)).astype(np.float32)
    for source in (grey_tiff(values), grey_tiff(values, order=">"), values, Image.fromarray(values)):
        np.testing.assert_allclose(load_photo(source)[0], values, atol=1e-6)
    for wrong in (values * 255, values - 0.5, np.where(values > 0.5, np.nan, values).astype(np.float32)):
        for source in (grey_tiff(wrong), wrong, Image.fromarray(wrong)):
            with pytest.raises(ValueError, match=r"floats must be in \[0, 1\]"):
                load_photo(source)


def test_whole_numbers_of_32_bits() -> None:
    values = np.arange(400, dtype=np.int32).reshape(20, 20) * 160
    np.testing.assert_allclose(load_photo(grey_tiff(values))[0], values / 65535, atol=1e-6)
    for wrong in (values - 1, values * 1000):
        with pytest.raises(ValueError, match="they must be from 0 to 65535"):
            load_photo(grey_tiff(wrong))


def test_black_and_white() -> None:
    stripes = np.zeros((24, 40), bool)
    stripes[:, ::3] = True
    expected = np.repeat(stripes[..., None] * np.uint8(255), 3, -1)
    image = Image.fromarray(stripes)
    for data in (encoded(image, "PNG"), encoded(image, "TIFF", compression="group4"), encoded(image, "BMP")):
        np.testing.assert_array_equal(read_photo(data).array(), expected)


def test_cmyk_without_profile() -> None:
    image = Image.fromarray(scene()).convert("CMYK")
    np.testing.assert_allclose(read_photo(encoded(image, "TIFF")).array().astype(int), scene(), atol=1)
    difference = np.abs(read_photo(encoded(image, "JPEG", quality=98)).array().astype(int) - scene())
    assert difference.mean() < 3


def test_lab() -> None:
    # L* = 50 without colour is light of 0.1842 by CIE's definition; sRGB writes it as 119.
    lab = Image.merge("LAB", [Image.new("L", (20, 20), value) for value in (round(50 * 2.55), 128, 128)])
    np.testing.assert_allclose(read_photo(encoded(lab, "TIFF")).array()[3, 3].astype(int), (119, 119, 119), atol=2)


# -- transparency ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "array"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    alpha = np.linspace(0, 255, 40).astype(np.uint8)[None].repeat(24, 0)
    rgba = np.dstack([scene(), alpha])
    share = alpha[..., None] / 255
    expected = scene() * share + 255 * (1 - share)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    source = rgba if kind == "array" else encoded(rgba, kind, **options)
    np.testing.assert_allclose(read_photo(source).array().astype(int), expected, atol=1)


def test_what_is_transparent_has_no_colour() -> None:
    # Noise under full transparency must not shine through when a picture is shrunk.
    rgba = np.random.default_rng(0).integers(0, 256, (1200, 1600, 4), dtype=np.uint8)
    rgba[..., 3] = 0
    rgba[:, 800:] = (0, 0, 255, 255)
    small = read_photo(rgba, 160).array().astype(int)
    assert (small[:, :78] == 255).all()
    assert (small[:, 82:] == (0, 0, 255)).all()
    assert (small[..., 2] >= 254).all()  # blue and white have both all of it, and so has every mixture


@pytest.mark.parametrize("deep", [False, True])
def test_one_value_may_be_transparent(deep: bool) -> None:
    values = np.full((20, 20), 1000 if deep else 100, np.uint16 if deep else np.uint8)
    values[:, 10:] = 2000 if deep else 200
    mark = chunk(b"tRNS", struct.pack(">H", int(values[0, 0])))
    photo = read_photo(png(values, mark))
    assert (photo.array()[:, :10] == 255).all()
    assert photo.tensor()[0, 0, 15] == pytest.approx(values[0, 15] / (65535 if deep else 255), abs=1e-6)


def test_bmp_whose_fourth_byte_nobody_filled_in() -> None:
    data = bytearray(encoded(np.dstack([scene(), np.zeros((24, 40), np.uint8)]), "BMP"))
    struct.pack_into("<I", data, 30, 3)  # bit fields, all zero: blue, green, red, alpha
    data[54:54] = bytes(12)
    struct.pack_into("<I", data, 10, 66)
    assert (read_photo(bytes(data)).array()[5, 5] != 255).any()


# -- metadata -------------------------------------------------------------------------------------------------------


def test_much_text_is_no_damage() -> None:
    text = "".join(np.random.default_rng(0).choice(list("0123456789abcdef"), 1_200_000))
    packed = encoded(scene(), "PNG")
    at = packed.index(b"IDAT") - 4
    for content in (
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(text.encode())),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(text.encode())),
        chunk(b"tEXt", b"workflow\0" + text.encode()) * 80,
        chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(50_000_000))),
    ):
        for place in (at, len(packed) - 12):
            photo = read_photo(packed[:place] + content + packed[place:])
            np.testing.assert_array_equal(photo.array(), scene())


def test_gif_with_a_long_comment() -> None:
    flat = scene() // 128 * 255
    comment = b"\x21\xfe" + (b"\xff" + b"x" * 255) * 20_000 + b"\0"
    data = encoded(Image.fromarray(flat).quantize(16), "GIF")
    at = 13 + (3 << ((data[10] & 7) + 1))
    np.testing.assert_array_equal(read_photo(data[:at] + comment + data[at:]).array(), flat)


# -- cases that failed ------------------------------------------------------------------------------------------------


@needs_cases
def test_heic_of_the_cases() -> None:
    photo = read_photo(CASES / "heic" / "plain.heic")
    assert photo.size == (480, 320)
    np.testing.assert_allclose(photo.array()[5, 5].astype(int), (220, 30, 30), atol=3)


@needs_cases
def test_inverted_grey_of_the_cases() -> None:
    data = gzip.decompress((CASES / "miniswhite16" / "minwhite16.tif.gz").read_bytes())
    assert read_photo(data).array()[5, 5].tolist() == [30, 30, 30]


@needs_cases
@pytest.mark.parametrize("name", ["icc-alpha/swap_pal.png", "icc-alpha/swap_rgba.png", "icc-rahf/swap_rgb.png"])
def test_swapped_colours_of_the_cases(name: str) -> None:
    np.testing.assert_allclose(read_photo(CASES / name).array()[5, 5].astype(int), (47, 235, 30), atol=2)


@needs_cases
@pytest.mark.parametrize("name", ["icc-alpha/p3_palette.png", "icc-alpha/p3_rgba.png", "icc-rahf/p3.jpg"])
def test_wide_red_of_the_cases(name: str) -> None:
    photo = read_photo(CASES / name)
    assert isinstance(photo, Photo)
    np.testing.assert_allclose(photo.array()[5, 5].astype(int), (255, 0, 0), atol=2)
