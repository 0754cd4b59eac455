"""A picture that may be read becomes a value, upright, whatever its format."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foundation.pictures import KEPT_SIDE, LARGEST_SIDE, SUFFIXES, load_photo, read_photo
from tests.foundation.making_pictures import encoded, scene

# -- the value ----------------------------------------------------------------------------------------------------


def test_photo_is_read_once_and_says_what_it_is(tmp_path: Path) -> None:
    data = encoded(scene(), "PNG")
    (tmp_path / "garden.png").write_bytes(data)
    photo = read_photo(tmp_path / "garden.png")
    (tmp_path / "garden.png").unlink()
    assert photo.digest == hashlib.sha256(data).hexdigest()
    assert (photo.size, photo.side, photo.name) == ((40, 24), 40, "garden.png")
    np.testing.assert_array_equal(photo.array(), scene())
    np.testing.assert_array_equal(np.asarray(photo.image()), scene())
    tensor = photo.tensor()
    assert (tensor.shape, tensor.dtype) == ((3, 24, 40), torch.float32)
    np.testing.assert_array_equal(tensor.numpy(), scene().transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_every_way_in_gives_the_same_numbers(tmp_path: Path) -> None:
    pixels = scene(80, 60)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels, "PNG"))
    expected = read_photo(path).tensor(32)
    for source in (
        str(path),
        path.read_bytes(),
        Image.open(path),
        pixels,
        torch.from_numpy(pixels / 255).permute(2, 0, 1),
    ):
        np.testing.assert_allclose(load_photo(source, 32), expected, atol=1e-6)
    assert load_photo(read_photo(path), 32).equal(expected)


def test_photos_are_values(tmp_path: Path) -> None:
    data = encoded(scene(80, 60), "PNG")
    first, second = read_photo(data, name="one"), read_photo(data, name="two")
    assert first == second
    assert len({first, second}) == 1
    assert first != read_photo(data, 64)
    assert first != read_photo(encoded(scene(80, 61), "PNG"))
    first.tensor(32)
    copied = pickle.loads(pickle.dumps(first))
    assert copied == first
    assert copied.tensor(32).equal(first.tensor(32))
    for photo in (first, copied):
        with pytest.raises(ValueError, match="read-only"):
            photo.kept[0, 0] = 0
    first.tensor(32).zero_()
    first.tensor().zero_()
    assert first.tensor(32).equal(second.tensor(32))
    assert first.tensor().equal(second.tensor())


def test_photo_is_kept_smaller_but_remembers_its_size() -> None:
    # A ramp stays a ramp: what is kept of it can be foretold.
    columns = np.linspace(0, 255, 6000)
    ramp = np.broadcast_to(np.rint(columns)[None, :, None], (3000, 6000, 3)).astype(np.uint8)
    for kind, options in (("PNG", {"compress_level": 1}), ("JPEG", {"quality": 95}), ("TIFF", {})):
        photo = read_photo(encoded(ramp, kind, **options))
        assert photo.size == (6000, 3000)
        assert photo.array().shape == (KEPT_SIDE // 2, KEPT_SIDE, 3)
        centres = (np.arange(KEPT_SIDE) + 0.5) * 6000 / KEPT_SIDE - 0.5
        np.testing.assert_allclose(
            photo.array()[::97, 8:-8].astype(float),
            np.broadcast_to(np.interp(centres, np.arange(6000), columns)[None, 8:-8, None], (11, KEPT_SIDE - 16, 3)),
            atol=1.6,
        )
    assert load_photo(ramp).shape == (3, LARGEST_SIDE // 2, LARGEST_SIDE)


def test_bands_do_not_show() -> None:
    # Noise through the filter at once, and band by band as a large picture goes.
    noise = np.random.default_rng(0).integers(0, 256, (2600, 4200, 3), dtype=np.uint8)
    at_once = Image.fromarray(noise).resize((2048, 1268), Image.Resampling.BICUBIC)
    difference = np.abs(read_photo(noise).array().astype(int) - np.asarray(at_once))
    assert difference.max() <= 1


def test_sides_are_checked() -> None:
    photo = read_photo(scene())
    for ask in (lambda: photo.tensor(8), lambda: photo.array(8), lambda: load_photo(scene(), 8)):
        with pytest.raises(ValueError, match="max_side is 8; it must be at least 16"):
            ask()
    for side in (15, LARGEST_SIDE + 1):
        with pytest.raises(ValueError, match=f"max_side is {side}; it must be from 16 to {LARGEST_SIDE}"):
            read_photo(scene(), side)
    assert photo.tensor(20).shape == (3, 12, 20)
    assert photo.array(20).shape == (12, 20, 3)
    assert photo.tensor(500).shape == (3, 24, 40)


# -- formats ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_lossless_formats_come_back_exactly(kind: str, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(read_photo(encoded(scene(), kind, **options)).array(), scene())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 97, "subsampling": 0}),
        ("JPEG", {"quality": 97, "subsampling": 0, "progressive": True}),
        ("WEBP", {"quality": 98}),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
        ("HEIF", {"quality": 97, "chroma": 444}),
        ("TIFF", {"compression": "jpeg", "quality": 97}),
    ],
)
def test_lossy_formats_come_back_nearly(kind: str, options: dict[str, Any]) -> None:
    smooth = np.asarray(Image.fromarray(scene(12, 8)).resize((120, 80), Image.Resampling.BICUBIC))
    difference = np.abs(read_photo(encoded(smooth, kind, **options)).array().astype(int) - smooth)
    assert difference.mean() < 3


def test_gif_comes_back_exactly() -> None:
    flat = scene() // 128 * 255
    np.testing.assert_array_equal(read_photo(encoded(Image.fromarray(flat).quantize(16), "GIF")).array(), flat)


def test_suffixes_are_those_of_the_formats() -> None:
    for kind, suffix in (("JPEG", ".jpg"), ("AVIF", ".avif"), ("HEIF", ".heic"), ("TIFF", ".tif"), ("WEBP", ".webp")):
        assert suffix in SUFFIXES
        assert read_photo(encoded(scene(), kind)).size == (40, 24)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (32, 20), colour) for colour in ("red", "blue", "green")]
    options: Any = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_allclose(read_photo(data).array()[5, 5].astype(int), (255, 0, 0), atol=2)


def test_second_picture_of_a_stereo_jpeg_is_left_alone() -> None:
    pair = [Image.new("RGB", (32, 20), colour) for colour in ("red", "blue")]
    data = encoded(pair[0], "MPO", save_all=True, append_images=pair[1:], quality=95)
    np.testing.assert_allclose(read_photo(data).array()[5, 5].astype(int), (254, 0, 0), atol=2)


# -- orientation --------------------------------------------------------------------------------------------------


def stored_for(picture: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores for each orientation, from the EXIF standard's definition of row 0 and column 0."""
    turned = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    return np.ascontiguousarray(turned)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    picture = np.kron(scene(10, 6), np.ones((16, 16, 1))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exact = kind in ("PNG", "WEBP", "TIFF")
    options: Any = {"WEBP": {"lossless": True}, "JPEG": {"quality": 97}, "AVIF": {"quality": 95}}.get(kind, {})
    photo = read_photo(encoded(stored_for(picture, orientation), kind, exif=exif, **options))
    assert photo.size == (160, 96)
    np.testing.assert_allclose(photo.array().astype(int), picture, atol=0 if exact else 24)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_not_turned_twice(orientation: int) -> None:
    # As phones do: the container says how to turn it, and EXIF says so once more.
    picture = np.kron(scene(10, 6), np.ones((16, 16, 1))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored_for(picture, orientation), "HEIF", quality=95, exif=exif.tobytes())
    assert struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) in data
    assert orientation == 1 or b"irot" in data or b"imir" in data
    photo = read_photo(data)
    assert photo.size == (160, 96)
    np.testing.assert_allclose(photo.array().astype(int), picture, atol=24)
