"""Colours that a file declares, against closed formulas and against a real browser."""

from __future__ import annotations

import base64
import io
import logging
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foundation.pictures import load_photo, read_photo
from tests.browsing import needs_browser
from tests.foundation.making_pictures import (
    P3_CORNERS,
    SRGB_CORNERS,
    chunk,
    codes_chunk,
    corners_chunk,
    encoded,
    gamma_chunk,
    icc_profile,
    png,
    profile_chunk,
    same_white,
    srgb_encoded,
    srgb_light,
)

SRGB_CHUNK = chunk(b"sRGB", b"\0")
SWAPPED = SRGB_CORNERS[:2] + SRGB_CORNERS[4:6] + SRGB_CORNERS[2:4] + SRGB_CORNERS[6:]  # red is green, green is red


def colours() -> np.ndarray:
    """(16, 20, 3) uint8: fields of 4 x 4 pixels with many colours, inside and at the rim of what can be shown."""
    values = np.random.default_rng(3).integers(0, 256, (4, 5, 3))
    values[0, :3] = [(255, 0, 0), (0, 0, 0), (255, 255, 255)]
    values[1, :2] = [(10, 10, 10), (128, 128, 128)]
    return np.kron(values, np.ones((4, 4, 1))).astype(np.uint8)


def expected_from(light: np.ndarray, corners: tuple[float, ...] = SRGB_CORNERS) -> np.ndarray:
    return srgb_encoded(same_white(light, corners))


# -- profiles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corners", [P3_CORNERS, SWAPPED])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF", "HEIF"])
def test_profile_in_every_format(kind: str, corners: tuple[float, ...]) -> None:
    options: Any = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        "HEIF": {"quality": 100, "chroma": 444},
    }.get(kind, {})
    pixels = np.kron(colours(), np.ones((4, 4, 1))).astype(np.uint8)
    photo = read_photo(encoded(pixels, kind, icc_profile=icc_profile(corners=corners), **options))
    expected = expected_from((pixels / 255) ** 2.19921875, corners)  # the profile holds its gamma in steps of 1/256
    # Lossy formats are compared where fields have settled; out of the screen's reach they may differ more.
    lossy = kind in ("JPEG", "AVIF", "HEIF")
    difference = np.abs(photo.array() - expected)[8::16, 8::16]
    assert np.median(difference) < 1.5
    assert difference.max() < (12 if lossy else 2)


@pytest.mark.parametrize("mode", ["RGBA", "P", "transparent P", "L", "LA"])
def test_profile_in_every_mode(mode: str) -> None:
    pixels = colours()
    rgb = Image.fromarray(pixels)
    options: dict[str, Any] = {}
    grey = rgb.convert("L")
    if mode == "RGBA":
        image = rgb.convert("RGBA")
    elif mode.endswith("P"):
        image = rgb.quantize(64, dither=Image.Dither.NONE)
        pixels = np.asarray(image.convert("RGB"))
    else:
        image = grey.convert(mode)
        pixels = np.repeat(np.asarray(grey)[..., None], 3, -1)
    expected = expected_from((pixels / 255) ** 2.19921875, SWAPPED)
    if mode == "transparent P":
        options["transparency"] = image.getpixel((9, 1))
        clear = np.asarray(image) == options["transparency"]
        expected[clear] = 255
    data = encoded(image, "PNG", icc_profile=icc_profile(corners=SWAPPED), **options)
    for source in (data, Image.open(io.BytesIO(data))):
        assert np.abs(read_photo(source).array() - expected).max() < 2


def test_half_transparent_colours_are_converted_before_they_are_laid_over_white() -> None:
    rgba = np.full((20, 20, 4), (200, 40, 30, 128), np.uint8)
    data = encoded(rgba, "PNG", icc_profile=icc_profile(corners=SWAPPED))
    opaque = expected_from((rgba[..., :3] / 255) ** 2.19921875, SWAPPED)
    expected = opaque * 128 / 255 + 255 * 127 / 255
    assert np.abs(read_photo(data).array() - expected).max() < 2


def test_grey_profile() -> None:
    ramp = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (20, 1))
    expected = srgb_encoded((ramp / 255) ** 1.0)
    for data in (
        encoded(ramp, "PNG", icc_profile=icc_profile(b"GRAY", gamma=1.0)),
        encoded(ramp, "TIFF", icc_profile=icc_profile(b"GRAY", gamma=1.0)),
        png(ramp.astype(np.uint16) * 257, profile_chunk(icc_profile(b"GRAY", gamma=1.0))),
    ):
        assert np.abs(read_photo(data).array()[..., 1] - expected).max() < 2


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_ink_profile(kind: str) -> None:
    inks = np.zeros((16, 64, 4), np.uint8)
    inks[..., 3] = np.repeat(np.linspace(0, 230, 8).astype(np.uint8), 8)
    inks[:8, :, 0] = 200  # the profile says that only black counts
    profile = icc_profile(b"CMYK", cmyk_to_lightness=True)
    data = encoded(
        Image.fromarray(inks, "CMYK"), kind, icc_profile=profile, **({"quality": 100} if kind == "JPEG" else {})
    )
    lightness = 100 * (1 - inks[..., 3] / 255)
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    difference = np.abs(read_photo(data).array() - srgb_encoded(light)[..., None])[:, 4::8]
    assert difference.max() < 4


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile at all",
        icc_profile()[:200],
        icc_profile(b"GRAY"),
        icc_profile(b"CMYK", cmyk_to_lightness=True),
        b"",
    ],
)
def test_profile_that_cannot_be_used_is_left_out(profile: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="foundation.decoding.colour"):
        photo = read_photo(png(colours(), profile_chunk(profile)), name="garden.png")
    np.testing.assert_array_equal(photo.array(), colours())
    assert "the colour profile of garden.png is unusable" in caplog.text


# -- PNG's own notes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 0.55556, 0.3, 0.6])
def test_gamma(gamma: float) -> None:
    pixels = colours()
    expected = srgb_encoded((pixels / 255) ** (1 / gamma))
    assert np.abs(read_photo(png(pixels, gamma_chunk(gamma))).array() - expected).max() <= 1
    deep = pixels[..., 0].astype(np.uint16) * 257
    np.testing.assert_allclose(load_photo(png(deep, gamma_chunk(gamma)))[0] * 255, expected[..., 0], atol=0.01)


def test_gamma_of_common_screens_is_taken_for_srgb() -> None:
    for gamma in (0.45455, 0.44, 0.47):
        np.testing.assert_array_equal(read_photo(png(colours(), gamma_chunk(gamma))).array(), colours())


def test_gamma_with_corners() -> None:
    for corners in (P3_CORNERS, SRGB_CORNERS):
        data = png(colours(), gamma_chunk(0.45455), corners_chunk(corners))
        expected = expected_from((colours() / 255) ** 2.2, corners)
        assert np.abs(read_photo(data).array() - expected).max() <= 1


@pytest.mark.parametrize(
    "chunks",
    [
        (corners_chunk(P3_CORNERS),),
        (SRGB_CHUNK, gamma_chunk(1.0), corners_chunk(P3_CORNERS)),
        (gamma_chunk(0.0),),
        (codes_chunk(1, 13), profile_chunk(icc_profile(corners=SWAPPED)), gamma_chunk(1.0)),
        (codes_chunk(2, 2),),
        (chunk(b"cICP", bytes((12, 13, 0))),),
        (chunk(b"gAMA", b"\0"),),
        (gamma_chunk(0.45), corners_chunk((0.0,) * 8)),
    ],
)
def test_notes_that_change_nothing(chunks: tuple[bytes, ...]) -> None:
    photo = read_photo(png(colours(), *chunks))
    if chunks[0].startswith(b"\0\0\0\4gAMA") and len(chunks) == 2:  # corners without sense: the gamma alone holds
        assert np.abs(photo.array() - srgb_encoded((colours() / 255) ** (1 / 0.45))).max() <= 1
    else:
        np.testing.assert_array_equal(photo.array(), colours())


def test_profile_wins_over_gamma_and_codes_over_profile() -> None:
    profile = profile_chunk(icc_profile(corners=SWAPPED))
    by_profile = expected_from((colours() / 255) ** 2.19921875, SWAPPED)
    for data in (png(colours(), profile, gamma_chunk(1.0)), png(colours(), profile, SRGB_CHUNK)):
        assert np.abs(read_photo(data).array() - by_profile).max() < 2
    by_codes = expected_from(srgb_light(colours()), P3_CORNERS)
    assert np.abs(read_photo(png(colours(), codes_chunk(12, 13), profile)).array() - by_codes).max() <= 1


@pytest.mark.parametrize(("transfer", "exponent"), [(8, 1.0), (4, 2.2), (5, 2.8), (1, 2.4)])
def test_codes(transfer: int, exponent: float) -> None:
    data = png(colours(), codes_chunk(12, transfer))
    expected = expected_from((colours() / 255) ** exponent, P3_CORNERS)
    assert np.abs(read_photo(data).array() - expected).max() <= 1


def test_codes_of_avif() -> None:
    data = encoded(np.kron(colours(), np.ones((4, 4, 1))).astype(np.uint8), "AVIF", quality=100, subsampling="4:4:4")
    plain = read_photo(data).array()
    at = data.index(b"colrnclx") + 8
    for primaries, transfer in ((12, 13), (12, 1)):  # video's transfer is shown as that of sRGB
        wide = read_photo(data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]).array()
        assert np.abs(wide - expected_from(srgb_light(plain), P3_CORNERS)).max() <= 1
    bare = data[:at] + struct.pack(">HH", 2, 2) + data[at + 4 :]
    np.testing.assert_array_equal(read_photo(bare).array(), plain)


def test_a_large_picture_is_converted_after_it_is_shrunk() -> None:
    pixels = np.full((2200, 3000, 3), (200, 40, 30), np.uint8)
    photo = read_photo(png(pixels, codes_chunk(12, 13)))
    expected = expected_from(srgb_light(np.array((200, 40, 30))), P3_CORNERS)
    assert np.abs(photo.array() - expected).max() <= 1


# -- as a browser shows them ----------------------------------------------------------------------------------------


def shown(page: Any, data: bytes, kind: str = "png") -> np.ndarray:
    """(H, W, 3): what a page reads back of a picture that it drew."""
    address = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    width, height, values = page.evaluate(
        """async (address) => {
            const image = new Image(); image.src = address; await image.decode();
            const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
            const pen = canvas.getContext('2d', {colorSpace: 'srgb'}); pen.drawImage(image, 0, 0);
            const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.width, canvas.height, Array.from(pixels.data)];
        }""",
        address,
    )
    return np.array(values).reshape(height, width, 4)[..., :3]


@needs_browser
def test_as_a_browser_shows_them(browser: Any) -> None:
    page = browser.new_page()
    profile = profile_chunk(icc_profile(corners=SWAPPED))
    codes = ((12, 13), (1, 1), (9, 14), (1, 8), (6, 6), (7, 7), (5, 5))
    notes: dict[str, tuple[bytes, ...]] = {
        "none": (),
        "gamma 1": (gamma_chunk(1),),
        "gamma 0.3": (gamma_chunk(0.3),),
        "gamma 0.43": (gamma_chunk(0.43),),
        "gamma 0.434": (gamma_chunk(0.434),),
        "gamma 0.475": (gamma_chunk(0.475),),
        "gamma 0.478": (gamma_chunk(0.478),),
        "gamma, corners": (gamma_chunk(0.45455), corners_chunk(SRGB_CORNERS)),
        "gamma, wide corners": (gamma_chunk(1), corners_chunk(P3_CORNERS)),
        "corners alone": (corners_chunk(P3_CORNERS),),
        "srgb, gamma": (SRGB_CHUNK, gamma_chunk(1)),
        "profile": (profile,),
        "profile, srgb": (profile, SRGB_CHUNK),
        "profile, gamma": (profile, gamma_chunk(1)),
        "codes, profile": (codes_chunk(1, 13), profile),
        "unknown codes": (codes_chunk(2, 2),),
        "unknown transfer": (codes_chunk(12, 2),),
        **{f"codes {code}": (codes_chunk(*code),) for code in codes},
    }
    for name, chunks in notes.items():
        data = png(colours(), *chunks)
        difference = np.abs(read_photo(data).array().astype(int) - shown(page, data))
        assert difference.max() <= 2, f"{name}: {difference.max()}"
    ramp = np.repeat(np.tile(np.arange(256, dtype=np.uint8), (64, 1))[..., None], 3, -1)
    for transfer in (16, 18):  # high dynamic range: a browser's own choice, followed closely where pictures live
        data = png(ramp, codes_chunk(9, transfer))
        assert np.abs(read_photo(data).array().astype(int) - shown(page, data)).max() <= 4
    page.close()
