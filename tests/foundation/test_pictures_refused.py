"""What is refused, and with which words: each names what it is, the limit and the remedy."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foundation.pictures import MAX_BYTES, PictureError, load_photo, read_photo
from tests.foundation.making_pictures import (
    CASES,
    encoded,
    headers,
    needs_cases,
    png,
    scene,
)

# -- files ----------------------------------------------------------------------------------------------------------


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    (tmp_path / "to-pipe.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "to-nothing.png").symlink_to(tmp_path / "absent")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    names = ("pipe.png", "to-pipe.png", "to-nothing.png", "loop.png", "folder.png", "absent.png")
    paths: list[Any] = [tmp_path / name for name in names]
    for path in (*paths, Path("/dev/zero"), Path("/dev/null"), Path("a\0b"), "x" * 5000):
        with pytest.raises(PictureError, match=r"no photo at .*, which is not a file; give the path"):
            read_photo(path)


def test_links_to_pictures_may_be_forbidden(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(scene(), "PNG"))
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    assert read_photo(tmp_path / "link.png") == read_photo(tmp_path / "a.png", follow_links=False)
    with pytest.raises(PictureError, match="not a file"):
        read_photo(tmp_path / "link.png", follow_links=False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything may be read here")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(scene(), "PNG"))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(PictureError, match="that may be read; allow reading it"):
        read_photo(tmp_path / "a.png")


def test_size_of_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(PictureError, match=r"huge\.png has 100 MB; the limit is 100"):
        read_photo(tmp_path / "huge.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(PictureError, match=r"empty\.png is empty \(0 bytes\)"):
        read_photo(tmp_path / "empty.png")
    with pytest.raises(PictureError, match="the photo is empty"):
        read_photo(b"")


@pytest.mark.parametrize("source", [None, "", {"path": "/etc/passwd"}, 7])
def test_no_photo(source: Any) -> None:
    with pytest.raises(PictureError, match="no photo: give a picture file"):
        read_photo(source)


# -- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xff\x0a" + bytes(40), "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "a JPEG XL picture"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000 picture"),
        (b"%PDF-1.4 ...", "a PDF document"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\n <svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\0\0\0\x18ftypmp42" + bytes(40), "a video"),
        (b"hello, this is text", ""),
        (b"P6 20 20 255 " + bytes(1200), ""),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "holiday.jpg").write_bytes(content)
    what = f"is {kind}, which is not an image that can be read here" if kind else "is not an image that can be read"
    with pytest.raises(PictureError, match=rf"holiday\.jpg {what}; use JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF"):
        read_photo(tmp_path / "holiday.jpg")


def test_formats_that_pillow_knows_besides_are_refused() -> None:
    for kind in (
        "PPM",
        "TGA",
        "ICO",
        "PCX",
        "SGI",
        "DDS",
        "JPEG2000",
        "EPS",
        "PDF",
        "IM",
        "ICNS",
        "MSP",
        "SPIDER",
        "QOI",
    ):
        image = Image.fromarray(scene(64, 64))
        image = image.convert("1") if kind == "MSP" else image.convert("F") if kind == "SPIDER" else image
        with pytest.raises(PictureError, match=r"not an image that can be read|is damaged"):
            read_photo(encoded(image, kind))


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=needs_cases)])
def test_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 100\n1 0 0 setrgbcolor showpage\n%%EOF\n"
    (tmp_path / "holiday.jpg").write_bytes(text)
    source = CASES / "eps-ghostscript" / "holiday.jpg" if shared else tmp_path / "holiday.jpg"
    for data in (
        source,
        source.read_bytes(),
        b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(text)) + bytes(20) + text,
    ):
        with pytest.raises(PictureError, match="is a PostScript file"):
            read_photo(data)
    assert not (tmp_path / "started").exists()


# -- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((1, 1), "1x1 pixels; each side must be at least 16"),
        ((15, 40), "15x40 pixels; each side must be at least 16"),
        ((200, 40), "200x40 pixels, longer than 4:1"),
        ((40, 161), "40x161 pixels, longer than 4:1"),
    ],
)
def test_small_and_narrow_pictures(size: tuple[int, int], message: str) -> None:
    image = Image.new("RGB", size)
    kinds = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF")
    sources: tuple[Any, ...] = (
        image,
        np.asarray(image),
        torch.zeros(3, size[1], size[0]),
        *(encoded(image, kind) for kind in kinds),
    )
    for source in sources:
        with pytest.raises(PictureError, match=message):
            read_photo(source)
    assert read_photo(Image.new("RGB", (160, 40))).size == (160, 40)


@pytest.mark.parametrize("kind", headers(16, 16))
def test_over_100_megapixels_is_refused_before_decoding(kind: str) -> None:
    with pytest.raises(PictureError, match="12000x9000 pixels, over 100 megapixels; make it smaller first"):
        read_photo(headers(12000, 9000)[kind])


@pytest.mark.parametrize("kind", ["WebP x", "WebP l", "WebP ", "TIFF"])
def test_formats_that_cost_more_have_lower_limits(kind: str) -> None:
    limit = "57" if kind == "TIFF" else "25"
    with pytest.raises(
        PictureError, match=rf"99\.0 megapixels; the limit for .* is {limit}\. Make it smaller, or save it"
    ):
        read_photo(headers(9900, 10000)[kind])


def test_limits_of_the_video_codecs() -> None:
    # The size stands in more than one box; all are changed.
    clear = np.dstack([scene(64, 64), scene(64, 64)[..., :1]])
    variants: list[tuple[str, int, np.ndarray, dict[str, Any]]] = [
        ("AVIF", 32, scene(64, 64), {}),
        ("AVIF", 24, scene(64, 64), {"subsampling": "4:4:4"}),
        ("HEIF", 50, scene(64, 64), {}),
        ("HEIF", 24, scene(64, 64), {"chroma": 444}),
        ("HEIF", 24, clear, {}),
    ]
    for kind, limit, pixels, options in variants:
        data = encoded(pixels, kind, **options)
        name = kind.replace("HEIF", "HEIC")
        small = struct.pack(">II", 64, 64)
        assert small in data
        with pytest.raises(PictureError, match=rf"64\.0 megapixels; the limit for {name} is {limit}"):
            read_photo(data.replace(small, struct.pack(">II", 8000, 8000)))
        with pytest.raises(PictureError, match=rf"has 33\.0 MB; the limit for {name} is 32 MB. Save it as JPEG"):
            read_photo(data + bytes(33_000_000 - len(data)))


def test_deep_pngs_have_lower_limits() -> None:
    data = png(np.zeros((1, 1, 4), np.uint16), size=(9000, 9000))
    with pytest.raises(PictureError, match=r"81\.0 megapixels; the limit for PNG of 64 bits a pixel is 50"):
        read_photo(data)


# -- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF"])
def test_cut_short(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    data = encoded(noise, kind)
    for share in (0.02, 0.5, 0.9):
        (tmp_path / "a.jpg").write_bytes(data[: max(30, int(len(data) * share))])
        with pytest.raises(PictureError, match=r"a\.jpg is damaged"):
            read_photo(tmp_path / "a.jpg")


def test_arrays_and_tensors() -> None:
    refused: list[tuple[Any, str]] = [
        (np.zeros((20, 20, 2), np.uint8), r"has shape \(20, 20, 2\); it must be \(H, W\)"),
        (np.zeros(20, np.uint8), r"has shape \(20,\)"),
        (np.zeros((20, 20, 3), np.int64), "is int64; it must be uint8, uint16 or floats"),
        (np.full((20, 20, 3), 2.0), r"from 2 to 2, outside \[0, 1\]"),
        (np.full((20, 20, 3), np.nan), "not finite"),
        (torch.zeros(1, 20, 20), r"\(1, 20, 20\) torch.float32; it must be \(3, H, W\)"),
        (torch.zeros(3, 20, 20, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(3, 20, 20) + 2, r"outside \[0, 1\]"),
    ]
    for source, message in refused:
        with pytest.raises(PictureError, match=message):
            load_photo(source)
