"""Every kind of picture a visitor may bring, made with Pillow, against the pixels that went in."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foundation.pictures import load_photo, to_uint8


@pytest.fixture
def picture() -> np.ndarray:
    """40 wide, 24 high, no symmetry."""
    rows, columns = np.mgrid[:24, :40]
    return np.stack([columns * 6, rows * 10, (rows + columns) * 3], -1).astype(np.uint8)


def _as_bytes(photo: torch.Tensor) -> np.ndarray:
    return to_uint8(photo[None])[0]


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tiff"])
def test_lossless_files_come_back_exactly(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    Image.fromarray(picture).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    photo = load_photo(tmp_path / f"a.{suffix}")
    assert photo.shape == (3, 24, 40)
    assert photo.dtype == torch.float32
    np.testing.assert_array_equal(_as_bytes(photo), picture)


def test_pil_and_arrays(picture: np.ndarray) -> None:
    for source in (
        Image.fromarray(picture),
        picture,
        picture.astype(np.float64) / 255,
        picture.astype(np.uint16) * 257,
    ):
        np.testing.assert_array_equal(_as_bytes(load_photo(source)), picture)
    grey = load_photo(picture[..., 0])
    np.testing.assert_array_equal(_as_bytes(grey), np.repeat(picture[..., :1], 3, -1))


def test_cmyk(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "a.tiff")
    np.testing.assert_allclose(_as_bytes(load_photo(tmp_path / "a.tiff")), picture, atol=1)
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    difference = np.abs(_as_bytes(load_photo(tmp_path / "a.jpg")).astype(int) - picture)
    assert difference.mean() < 3


def test_16_bit_grey_keeps_its_precision(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 20 * 20).astype(np.uint16).reshape(20, 20)
    Image.fromarray(values).save(tmp_path / "a.png")
    photo = load_photo(tmp_path / "a.png")
    np.testing.assert_allclose(photo.numpy(), np.broadcast_to(values / 65535, (3, 20, 20)), atol=1e-6)


def test_16_bit_colour(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (20, 24, 3)).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 24, 20, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    photo = load_photo(tmp_path / "a.png").permute(1, 2, 0).numpy()
    np.testing.assert_allclose(photo, values.astype(np.float64) / 65535, atol=1.01 / 255)


def test_palette_and_transparency_over_white(tmp_path: Path, picture: np.ndarray) -> None:
    flat = picture // 128 * 255  # 8 colours: a palette holds them all
    Image.fromarray(flat).quantize(16).save(tmp_path / "p.png")
    np.testing.assert_array_equal(_as_bytes(load_photo(tmp_path / "p.png")), flat)

    alpha = np.linspace(0, 255, picture.shape[1]).astype(np.uint8)[None].repeat(24, 0)
    rgba = np.dstack([picture, alpha])
    Image.fromarray(rgba).save(tmp_path / "t.png")
    share = alpha[..., None] / 255
    expected = picture * share + 255 * (1 - share)
    np.testing.assert_allclose(_as_bytes(load_photo(tmp_path / "t.png")), expected, atol=1)
    np.testing.assert_allclose(_as_bytes(load_photo(rgba)), expected, atol=1)

    paletted = Image.fromarray(flat).quantize(16)
    background = paletted.getpixel((0, 0))
    paletted.save(tmp_path / "pt.png", transparency=background)
    assert _as_bytes(load_photo(tmp_path / "pt.png"))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, picture: np.ndarray, orientation: int) -> None:
    # What a camera stores for each orientation, from the EXIF standard's definition of row 0 and column 0.
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(_as_bytes(load_photo(tmp_path / "a.png")), picture)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 20), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert _as_bytes(load_photo(tmp_path / f"a.{suffix}"))[5, 5].tolist() == [255, 0, 0]


def test_colour_profile_is_applied(tmp_path: Path, picture: np.ndarray) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_allclose(_as_bytes(load_photo(tmp_path / "a.png")), picture, atol=1)
    Image.fromarray(picture).save(tmp_path / "b.png", icc_profile=b"no profile at all")
    np.testing.assert_array_equal(_as_bytes(load_photo(tmp_path / "b.png")), picture)


def test_max_side_keeps_aspect_and_mean(picture: np.ndarray) -> None:
    photo = load_photo(picture, max_side=20)
    assert photo.shape == (3, 12, 20)
    np.testing.assert_allclose(photo.mean((1, 2)), picture.mean((0, 1)) / 255, atol=0.01)
    assert load_photo(picture, max_side=64).shape == (3, 24, 40)


def test_large_jpeg_is_reduced(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 2000), (200, 100, 50)).save(tmp_path / "a.jpg")
    photo = load_photo(tmp_path / "a.jpg", max_side=300)
    assert photo.shape == (3, 200, 300)
    np.testing.assert_allclose(_as_bytes(photo)[100, 100], (200, 100, 50), atol=2)


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(file)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"a\.{suffix} is (truncated or damaged|damaged|not a picture)"):
        load_photo(file)


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4 ..."])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png is"):
        load_photo(tmp_path / "a.png")


def test_missing_and_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photo at"):
        load_photo(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="no photo at"):
        load_photo(tmp_path)
    with pytest.raises(ValueError, match="no photo: give"):
        load_photo(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "message"), [((1, 1), "at least 16"), ((15, 40), "at least 16"), ((200, 40), "4:1"), ((40, 161), "4:1")]
)
def test_size_limits(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", Image.new("RGB", size), np.zeros((size[1], size[0], 3), np.uint8)):
        with pytest.raises(ValueError, match=message):
            load_photo(source)


def test_exactly_four_to_one_is_accepted() -> None:
    assert load_photo(Image.new("RGB", (160, 40))).shape == (3, 40, 160)


@pytest.mark.parametrize("side", [10_001, 20_000])
def test_over_100_megapixels_is_refused_before_decoding(tmp_path: Path, side: int) -> None:
    # Only the header exists: decoding would fail with another message, and take 300 MB and more.
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + empty)
    with pytest.raises(ValueError, match="100"):
        load_photo(tmp_path / "a.png")


def test_bad_arrays() -> None:
    for array, message in (
        (np.zeros((20, 20, 2), np.uint8), "shape"),
        (np.zeros((20, 20, 3), np.int64), "int64"),
        (np.full((20, 20, 3), 2.0), r"\[0, 1\]"),
        (np.full((20, 20, 3), np.nan), r"\[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            load_photo(array)


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(ValueError, match="shape"):
        to_uint8(torch.zeros(3, 4, 4))
