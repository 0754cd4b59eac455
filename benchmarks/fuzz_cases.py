"""The kinds of cases of `fuzz.py`: whole material of each, ways to damage it, and what is tried with the result."""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common  # noqa: F401 - puts the repository on the path
import numpy as np
from PIL import Image

Material = Any
MAGIC_PNG = b"\x89PNG\r\n\x1a\n"
SIGNS = (
    "ab z,.?!\":;()[]{}<>|-_=+'\\/%#\n\t\r"
    "\u200b\u200d\u00ad\ufeff\u3000\u2028\u0301\u2014\u2026\u718a\u7ea2\u306e\u30fc\u30a2\ud55c\u0627\U0001f43b"
)
FRAGMENTS = (
    *("<lora:a:1>", "--ar 16:9", "--no ", "(x:1.3)", "((", "::2", "BREAK", "https://a.b", "__x__", "embedding:", "$$"),
)
WORST = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\0\0")
NUMBERS = ("0", "-1", "nan", "inf", "1e308", "1e-308", "9" * 400, "1.5", "", "x", "\u0663", " 7 ", "2", str(2**63))
SHAPES: tuple[Any, ...] = ([4, 4, 6, 9], [2**62, 4], [0, 3456], [], [16, 4, 10**5, 10**5], "F32", "I8", "F64", -1)


def damaged(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """One to eight faults: bits, bytes, runs, lengths, cuts, and parts of another file."""
    content = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3, 8])):
        if not content:
            break
        # Heads decide most, so they are hit more often.
        place = rng.randrange(min(len(content), 200) if rng.random() < 0.5 else len(content))
        fault = rng.randrange(8)
        if fault == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif fault == 1:
            content[place] = rng.randrange(256)
        elif fault == 2:
            content[place : place + 4] = rng.choice(WORST)
        elif fault == 3:
            content[place : place + rng.randint(1, 40)] = b""
        elif fault == 4:
            content[place:place] = rng.randbytes(rng.randint(1, 40))
        elif fault == 5:
            content[place:place] = content[place : place + rng.randint(1, 400)]
        elif fault == 6 and other:
            start = rng.randrange(len(other))
            content[place : place + 60] = other[start : start + 60]
        elif fault == 7 and rng.random() < 0.3:
            del content[place:]
    return bytes(content)


def text_of(rng: random.Random, longest: int = 200) -> str:
    """Letters of several scripts, punctuation, and the syntax of generators."""
    parts = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.5:
            parts.append("".join(rng.choices(SIGNS, k=rng.randint(1, 12))))
        elif kind < 0.8:
            parts.append(rng.choice(FRAGMENTS))
        else:
            parts.append("".join(chr(rng.randrange(0x30000)) for _ in range(rng.randint(1, 4))))
    text = rng.choice(["", " "]).join(parts)
    return (text * rng.choice([1, 1, 1, 30]))[: longest * rng.choice([1, 1, 10, 300])]


# -- pictures ----------------------------------------------------------------------------------------------------------


def picture_files() -> list[bytes]:
    """Small pictures of every format, in the modes that its files have."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    rows, columns = np.mgrid[:48, :64]
    colour = Image.fromarray(np.stack([columns * 4, rows * 5, (rows + columns) * 2], -1).astype(np.uint8))
    deep = Image.fromarray((rows * 1000).astype(np.uint16))
    see_through = colour.convert("RGBA")
    see_through.putalpha(100)
    several = {"save_all": True, "append_images": [colour.rotate(90, expand=False)] * 3}
    exif = Image.Exif()
    exif[274] = 6
    made = [
        *((colour, "JPEG", options) for options in ({}, {"progressive": True}, {"exif": exif}, {"comment": b"x"})),
        (colour.convert("CMYK"), "JPEG", {}),
        *((image, "PNG", {}) for image in (colour, see_through, deep, colour.convert("P"), colour.convert("1"))),
        (colour, "PNG", several),
        *((image, "WEBP", options) for image in (colour, see_through) for options in ({}, {"lossless": True})),
        (colour, "WEBP", several),
        (colour, "AVIF", {}),
        (colour, "HEIF", {}),
        (colour, "GIF", {}),
        (colour, "GIF", several),
        *((image, "BMP", {}) for image in (colour, colour.convert("P"), colour.convert("L"))),
        *((colour, "TIFF", {"compression": kind}) for kind in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
        (deep, "TIFF", {}),
        (Image.fromarray((rows / 48).astype(np.float32)), "TIFF", {}),
    ]
    files = []
    for image, kind, options in made:
        out = io.BytesIO()
        image.save(out, kind, **options)
        files.append(out.getvalue())
    return files


def mended_png(data: bytes) -> bytes:
    """The same chunks with checksums that fit, as far as there are chunks: a checksum keeps most faults out."""
    out, place = bytearray(data[:8]), 8
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        body = data[place + 4 : place + 8 + size]
        if place + 12 + size > len(data):
            break
        out += struct.pack(">I", size) + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + size
    return bytes(out) + data[place:]


def try_picture(files: list[bytes], rng: random.Random, folder: Path) -> None:
    """A damaged picture through the one loader, from a file or from bytes."""
    from foundation.pictures import read_photo

    data = damaged(rng.choice(files), rng, rng.choice(files))
    if data.startswith(MAGIC_PNG) and rng.random() < 0.8:
        data = mended_png(data)
    source: Any = data
    if rng.random() < 0.5:
        source = folder / name_of("pictures")
        source.write_bytes(data)
    photo = read_photo(source)
    shown = photo.tensor(64)
    if not (float(shown.min()) >= 0 and float(shown.max()) <= 1):
        raise AssertionError(f"pixels from {shown.min()} to {shown.max()}")


# -- motion files ------------------------------------------------------------------------------------------------------


def motion_file() -> bytes:
    """A motion file of 4 bands and 6x9 cells."""
    import torch

    from gid.motion.spectrum import SpectralVolume

    coefficients = torch.polar(torch.full((4, 2, 6, 9), 0.01), torch.rand(4, 2, 6, 9, generator=torch.Generator()) * 6)
    with contextlib.ExitStack() as stack:
        import tempfile

        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "a.safetensors"
        SpectralVolume(coefficients, image_size=(90, 60), model="m", seed=1).save(path)
        return path.read_bytes()


def try_motion(whole: bytes, rng: random.Random, folder: Path) -> None:
    """A damaged motion file, or one that claims anything at all; what is read can be saved again."""
    from gid.motion.spectrum import SpectralVolume

    size = struct.unpack("<Q", whole[:8])[0]
    if rng.random() < 0.5:
        data = damaged(whole, rng)
    else:
        header = json.loads(whole[8 : 8 + size])
        tensor, metadata = header["coefficients"], header["__metadata__"]
        for _ in range(rng.randint(1, 4)):
            key = rng.choice([*metadata] * 4 + ["dtype", "shape", "data_offsets"])
            if key in metadata:
                metadata[key] = rng.choice([*NUMBERS, text_of(rng)])
            else:
                tensor[key] = rng.choice(SHAPES)
        text = json.dumps(header, ensure_ascii=False).encode("utf-8", "replace")
        data = struct.pack("<Q", rng.choice([len(text)] * 8 + [2**62, 0])) + text + whole[8 + size :]
        if rng.random() < 0.3:
            values = np.frombuffer(whole[8 + size :], np.float32) * np.float32(10.0 ** rng.randint(-30, 30))
            data = data[: -len(whole) + 8 + size] + values.astype(np.float32).tobytes()
    path = folder / name_of("motion")
    path.write_bytes(data)
    volume = SpectralVolume.load(path)
    if not bool(volume.coefficients.abs().isfinite().all()):
        raise AssertionError("coefficients that are not finite")
    volume.save(path)


# -- tables, prompts, records ------------------------------------------------------------------------------------------


def try_table(_: Material, rng: random.Random, folder: Path) -> None:
    """A table of prompts, written well or badly, and the names of some pictures looked up in it."""
    from rahf.data.prompt_tables import assign_prompts, read_prompts

    names = ("a.png", "b/a.png", "b\\a.png", "cafe\u0301.png", text_of(rng, 20))
    rows = {rng.choice(names): text_of(rng) for _ in range(4)}
    suffix = rng.choice([".csv", ".json", ".jsonl"])
    if suffix == ".csv":
        between = rng.choice([",", ",", ",", ";", "\t"])
        quoted = rng.random() < 0.7
        cells = [("filename", "prompt"), *rows.items()]
        lines = [between.join('"' + cell.replace('"', '""') + '"' if quoted else cell for cell in row) for row in cells]
        text = rng.choice(["\n", "\r\n"]).join(lines)
    elif suffix == ".json":
        odd = rng.choice(["x", None, 3, ["x"], {"a": 1}])
        text = json.dumps({**rows, "c.png": odd}, ensure_ascii=rng.random() < 0.5)
    else:
        records = [{"filename": name, "prompt": prompt} for name, prompt in rows.items()]
        text = "\n".join(json.dumps(record, ensure_ascii=rng.random() < 0.5) for record in records)
    data = text.encode(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]), "replace")
    path = folder / name_of("tables")
    path = path.with_suffix(suffix)
    path.write_bytes(damaged(data, rng) if rng.random() < 0.6 else data)
    try:
        prompts = read_prompts(path)
    finally:
        path.unlink()
    if any(not isinstance(prompt, str) or not prompt for prompt in prompts.values()):
        raise AssertionError("a prompt that is none")
    assign_prompts(["a.png", "b/a.png", "caf\u00e9.png", text_of(rng, 20) or "x"], prompts)


def try_prompt(_: Material, rng: random.Random, folder: Path) -> None:
    """A prompt's words, what a model reads, and how a report shows it."""
    from foundation.lettering import length, missing, shown
    from rahf.prompt_words import prompt_words
    from rahf.prompts import check_prompt

    prompt = text_of(rng)
    words = prompt_words(prompt)
    ends = [0, *(place for word in words for place in (word.start, word.end)), len(prompt)]
    if ends != sorted(ends) or any(not word.text or word.start == word.end for word in words):
        raise AssertionError(f"words out of place in {prompt!r}")
    cleaned = check_prompt(prompt)
    cleaned.encode("utf-8")
    shown(prompt[:300])
    missing(prompt[:300])
    if rng.random() < 0.1:
        length(prompt[:100])


def record_file() -> bytes:
    """The payload of a record with every kind of feature."""

    def varint(value: int) -> bytes:
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    grid = io.BytesIO()
    Image.new("L", (64, 64), 128).save(grid, "PNG")
    values = {
        **{name: field(2, field(1, struct.pack("<f", 0.5))) for name in ("aesthetics_score", "artifact_score")},
        **{name: field(2, field(1, struct.pack("<f", 0.5))) for name in ("misalignment_score", "overall_score")},
        **{name: field(1, field(1, grid.getvalue())) for name in ("artifact_map", "misalignment_map")},
        "filename": field(1, field(1, b"train/a.png")),
        "prompt_misalignment_label": field(1, field(1, b"0 1 1")),
        "numbers": field(3, field(1, varint(7) + varint(2**63))),
    }
    return field(1, b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in values.items()))


def try_record(payload: bytes, rng: random.Random, folder: Path) -> None:
    """A damaged record with checksums that fit, or a damaged file."""
    from rahf.data.richhf import parse_record
    from rahf.data.tfrecords import masked_crc32c, read_records

    content = damaged(payload, rng)
    if rng.random() < 0.2:
        content = content[:20] + rng.choice([b"\xff", b"\x80", b"\0"]) * rng.randint(1, 300_000) + content[20:]
    length = struct.pack("<Q", rng.choice([len(content)] * 6 + [2**62, 2**25, 0]))
    file = length + struct.pack("<I", masked_crc32c(length)) + content + struct.pack("<I", masked_crc32c(content))
    path = folder / name_of("records")
    path.write_bytes(damaged(file, rng) if rng.random() < 0.2 else file)
    for found in read_records(path):
        parse_record(found)


def nothing() -> None:
    """Kinds without material."""


KINDS: dict[str, tuple[Callable[[], Material], Callable[[Material, random.Random, Path], None]]] = {
    "pictures": (picture_files, try_picture),
    "motion": (motion_file, try_motion),
    "tables": (nothing, try_table),
    "prompts": (nothing, try_prompt),
    "records": (record_file, try_record),
}


def name_of(kind: str) -> str:
    """The file that a case of a kind writes; no other may be left."""
    return {"motion": "case.safetensors"}.get(kind, "case")
