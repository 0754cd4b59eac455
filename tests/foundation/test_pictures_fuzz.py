"""Anything at all: files that were changed at random are read, or refused in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from foundation.pictures import PictureError, read_photo
from tests.foundation.making_pictures import (
    encoded,
    grey_tiff,
    icc_profile,
    png,
    profile_chunk,
    scene,
)


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
