"""What a file can cost at most: nobody's picture may hurt the others."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundation import pictures
from foundation.pictures import MAX_BYTES, PictureError, read_photo
from tests.foundation.making_pictures import (
    PNG_MAGIC,
    chunk,
    encoded,
    grey_tiff,
    headers,
    png,
    scene,
)

ROOT = Path(__file__).parents[2]


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
    for side, repeated in ((1000, 400), (5000, 180)):
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
for path in sys.argv[1:]:
    try:
        print(*read_photo(path).size)
    except ValueError as error:
        print('refused', error)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_99_megapixels_of_nothing(tmp_path: Path) -> None:
    side = 9950
    rows = zlib.compressobj(1)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = b"".join(rows.compress(bytes(1 + 3 * side)) for _ in range(side)) + rows.flush()
    (tmp_path / "zeros.png").write_bytes(PNG_MAGIC + head + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    Image.new("P", (side, side)).save(tmp_path / "zeros.gif")
    (tmp_path / "zeros.webp").write_bytes(headers(side, side)["WebP x"])
    files = [tmp_path / f"zeros.{suffix}" for suffix in ("png", "gif", "webp")]
    assert max(file.stat().st_size for file in files) < 2_000_000
    command = [sys.executable, "-c", MEMORY, *map(str, files)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert answer[:2] == [f"{side} {side}"] * 2
    assert answer[2].startswith("refused zeros.webp has 99.0 megapixels; the limit for WebP is 25.")
    assert float(answer[3]) < 600  # MB


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
