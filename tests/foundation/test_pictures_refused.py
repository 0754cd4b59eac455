"""What is refused, with which words, and what a file can cost at most: nobody's picture may hurt the others."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from foundation import pictures
from foundation.pictures import MAX_BYTES, PictureError, load_photo, read_photo
from tests.foundation.making_pictures import chunk, encoded, grey_tiff, icc_profile, png, profile_chunk, scene, tiff
from tests.foundation.test_pictures import CASES, needs_cases

ROOT = Path(__file__).parents[2]


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
    for kind, limit in (("AVIF", 32), ("HEIF", 50)):
        data = encoded(scene(64, 64), kind)
        small = struct.pack(">II", 64, 64)
        assert small in data
        with pytest.raises(PictureError, match=rf"64\.0 megapixels; the limit for {kind} is {limit}"):
            read_photo(data.replace(small, struct.pack(">II", 8000, 8000)))
        with pytest.raises(PictureError, match=rf"has 33\.0 MB; the limit for {kind} is 32 MB. Save it as JPEG"):
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


# -- small files that cost much ---------------------------------------------------------------------------------------


def test_too_many_pieces() -> None:
    jpeg, gif = encoded(scene(), "JPEG"), encoded(Image.fromarray(scene()).quantize(8), "GIF")
    at = 13 + (3 << ((gif[10] & 7) + 1))
    image = encoded(scene(), "PNG")
    refused = [
        (jpeg[:2] + b"\xff\xe1\0\2" * 20_000 + jpeg[2:], "over 10000 segments"),
        (jpeg[:2] + b"\xff" * 20_000 + jpeg[2:], "over 10000 segments"),
        (gif[:at] + b"\x21\xfe" + b"\1x" * 120_000 + b"\0" + gif[at:], "over 100000 pieces of text"),
        (image[:33] + chunk(b"teSt", b"") * 210_000 + image[33:], "over 200000 pieces"),
    ]
    for data, message in refused:
        with pytest.raises(PictureError, match=message):
            read_photo(data)


def test_jpeg_in_too_many_scans() -> None:
    # The last scan again and again costs a few bytes each time, and a walk over the whole picture.
    for side, repeated in ((1000, 400), (7000, 150)):
        data = encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
        assert read_photo(data).size == (side, side)
        last = data[data.rindex(b"\xff\xda") : -2]
        with pytest.raises(
            PictureError, match=rf"in {repeated + 10} scans, which is too many; save it as a baseline JPEG"
        ):
            read_photo(data[:-2] + last * repeated + data[-2:])


def test_large_progressive_jpeg_without_subsampling() -> None:
    baseline = headers(8000, 8000)["JPEG"].replace(b"\1\x22\0", b"\1\x11\0")
    with pytest.raises(
        PictureError, match="is a progressive JPEG of 64 megapixels with 192 million values; the limit is 150"
    ):
        read_photo(baseline.replace(b"\xff\xc0", b"\xff\xc2"))
    with pytest.raises(PictureError, match="is damaged"):  # as it should be: there is nothing behind the header
        read_photo(baseline)
    with pytest.raises(PictureError, match="of a kind that browsers cannot show"):
        read_photo(baseline.replace(b"\xff\xc0", b"\xff\xc9"))


def test_tiff_with_fields_that_no_picture_has() -> None:
    grey = np.zeros((20, 20), np.uint8)
    many = grey_tiff(grey, fields={273: (4, (8,) * 210_000)})
    with pytest.raises(PictureError, match="field 273 has 210000 values; the limit is 200000 pieces"):
        read_photo(many)
    tiles = grey_tiff(grey, fields={322: (4, (60_000,)), 323: (4, (60_000,)), 324: (4, (8,)), 325: (4, (400,))})
    with pytest.raises(PictureError, match="tiles of 3600 MB; the limit is 100 MB"):
        read_photo(tiles)
    # Fields that pixels do not need may say what they like: they are not read.
    whole = grey_tiff(grey + 7)
    texts = struct.pack("<H", 30_000) + b"".join(struct.pack("<HHII", 40_000, 2, len(whole), 8) for _ in range(30_000))
    start = struct.unpack_from("<I", whole, 4)[0]
    own = whole[start + 2 : start + 2 + 12 * struct.unpack_from("<H", whole, start)[0]]
    data = whole[:4] + struct.pack("<I", len(whole)) + whole[8:]
    count = 30_000 + len(own) // 12
    data += struct.pack("<H", count) + own + texts[2:] + bytes(4)
    assert (read_photo(data).array() == 7).all()


def test_run_length_coded_bmp() -> None:
    def coded(width: int, height: int, runs: bytes) -> bytes:
        palette = bytes(range(256)) * 4
        head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
        return b"BM" + struct.pack("<III", 0, 0, 14 + 40 + 1024) + head + palette + runs

    row = struct.pack("<BBBBBB", 20, 7, 20, 9, 0, 0)
    picture = read_photo(coded(40, 20, row * 20 + b"\0\1"))
    assert picture.array()[:, 0].tolist() != picture.array()[:, 30].tolist()
    with pytest.raises(PictureError, match="the limit for run-length coded BMP is 4"):
        read_photo(coded(5000, 5000, b"\0\1"))
    with pytest.raises(PictureError, match="run-length coded BMP of 5 MB; the limit is 4 MB"):
        read_photo(coded(40, 20, bytes(5_000_000)))


def test_profile_that_unpacks_to_very_much_is_left_out() -> None:
    bomb = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100_000_000)))
    np.testing.assert_array_equal(read_photo(png(scene(), bomb)).array(), scene())


MEMORY = """
import sys
from foundation.pictures import read_photo
def peak():
    return int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) / 1024
before = peak()
try:
    print(read_photo(sys.argv[1]).size, peak() - before)
except ValueError as error:
    print('refused', error, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_99_megapixels_of_nothing(tmp_path: Path, kind: str) -> None:
    side = 9950
    if kind == "WEBP":
        path = tmp_path / "zeros.webp"
        path.write_bytes(headers(9900, 10000)["WebP x"])
    else:
        path = tmp_path / f"zeros.{kind.lower()}"
        rows = zlib.compressobj(1)
        if kind == "GIF":
            Image.new("P", (side, side)).save(path)
        else:
            head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
            data = b"".join(rows.compress(bytes(1 + 3 * side)) for _ in range(side)) + rows.flush()
            path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b""))
        assert path.stat().st_size < 2_000_000
    command = [sys.executable, "-c", MEMORY, str(path)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert answer.startswith("refused" if kind == "WEBP" else f"({side}, {side})")
    assert float(answer.split()[-1]) < 600


# -- many at once ---------------------------------------------------------------------------------------------------


def test_two_large_pictures_at_once_and_small_ones_beside_them() -> None:
    large, small = encoded(Image.new("L", (2000, 1500)), "PNG"), encoded(scene(), "PNG")
    done: list[str] = []

    def read(data: bytes, name: str) -> None:
        read_photo(data)
        done.append(name)

    with pictures._Turn(MAX_BYTES), pictures._Turn(MAX_BYTES):
        waiting = threading.Thread(target=read, args=(large, "large"))
        waiting.start()
        read(small, "small")
        waiting.join(0.5)
        assert done == ["small"]
    waiting.join(60)
    assert done == ["small", "large"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_waits_for_nobody() -> None:
    program = (
        "import os, sys; from foundation import pictures; from PIL import Image\n"
        "turns = [pictures._Turn(pictures.MAX_BYTES).__enter__() for _ in range(2)]\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    pictures.read_photo(Image.new('L', (2000, 1500))); os._exit(3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120).returncode == 3


# -- anything at all ------------------------------------------------------------------------------------------------


def originals() -> list[bytes]:
    image, exif = Image.fromarray(scene()), Image.Exif()
    exif[0x0112] = 6
    more: dict[str, Any] = {"exif": exif, "icc_profile": icc_profile()}
    other = image.rotate(180)
    return [
        encoded(image, "JPEG", **more),
        encoded(image.convert("CMYK"), "JPEG", progressive=True),
        encoded(image, "PNG", **more),
        encoded(image.quantize(20), "PNG", transparency=3),
        png(scene()[..., 0].astype(np.uint16) * 257, profile_chunk(icc_profile(b"GRAY"))),
        encoded(image.quantize(20), "GIF", save_all=True, append_images=[other], comment=b"x" * 300),
        encoded(image, "WEBP", save_all=True, append_images=[other], **more),
        encoded(image.convert("RGBA"), "WEBP", lossless=True),
        encoded(image.quantize(20), "BMP"),
        encoded(image, "TIFF", **more),
        encoded(image, "TIFF", compression="tiff_lzw"),
        grey_tiff(scene()[..., 0].astype(np.float32) / 255, 0, ">"),
        encoded(image, "AVIF", exif=exif),
        encoded(image, "HEIF", exif=exif.tobytes()),
    ]


ORIGINALS = originals()
changes = st.lists(
    st.tuples(
        st.sampled_from(["byte", "byte", "remove", "insert", "copy", "cut"]),
        st.integers(0, 1 << 30),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f"])),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(original=st.sampled_from(range(len(ORIGINALS))), near=st.booleans(), edits=changes)
def test_changed_files_are_read_or_refused(original: int, near: bool, edits: list[tuple[str, int, bytes]]) -> None:
    data = bytearray(ORIGINALS[original])
    for kind, place, content in edits:
        at = place % max(1, min(len(data), 200) if near else len(data))
        if kind == "byte":
            data[at : at + 1] = content[:1]
        elif kind == "remove":
            del data[at : at + len(content)]
        elif kind == "insert":
            data[at:at] = content
        elif kind == "copy":
            data[at : at + 8] = data[at // 2 : at // 2 + 8]
        else:
            del data[max(at, 20) :]
    try:
        photo = read_photo(bytes(data), name="a.jpg")
    except PictureError as refusal:
        message = str(refusal)
    else:
        message = "a.jpg "
        assert photo.tensor(32).isfinite().all()
    assert message.startswith("a.jpg ")


@settings(max_examples=60, deadline=None)
@given(start=st.sampled_from([data[:16] for data in ORIGINALS]), rest=st.binary(max_size=300))
def test_anything_behind_the_right_beginning(start: bytes, rest: bytes) -> None:
    with pytest.raises(PictureError):
        read_photo(start + rest)
