"""Readers of human labels, on records written here byte by byte."""

import contextlib
import io
import json
import struct
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rahf.data.prompt_tables import read_prompts
from rahf.data.rapidata import parse_row, rapidata_samples
from rahf.data.richhf import RichHF, find_image, parse_record
from rahf.data.samples import RecordError, Sample
from rahf.data.tfrecords import masked_crc32c, parse_example, read_records


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def chunk(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: dict[str, bytes | float | list[int]]) -> bytes:
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = chunk(1, chunk(1, value))
        elif isinstance(value, float):
            feature = chunk(2, chunk(1, struct.pack("<f", value)))
        else:
            feature = chunk(3, chunk(1, b"".join(varint(item & (1 << 64) - 1) for item in value)))
        entries += chunk(1, chunk(1, name.encode()) + chunk(2, feature))
    return chunk(1, entries)


def crc32c_bitwise(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c_bitwise(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)


def record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "png")
    return out.getvalue()


def labels(filename: str, words: str, **changes: bytes | float) -> bytes:
    grid = np.zeros((512, 512), np.uint8)
    grid[10:20, 30:50] = 255
    fields: dict[str, bytes | float | list[int]] = {
        "filename": filename.encode(),
        "aesthetics_score": 0.25,
        "artifact_score": 0.5,
        "misalignment_score": 0.75,
        "overall_score": 1.0,
        "artifact_map": png(grid),
        "misalignment_map": png(grid.T.copy()),
        "prompt_misalignment_label": words.encode(),
        **changes,
    }
    return example(fields)


def test_checksum_of_the_standard() -> None:
    """RFC 3720, B.4: 32 zero bytes, and the usual check string, unmasked."""
    assert crc32c_bitwise(bytes(32)) == 0x8A9136AA
    assert crc32c_bitwise(b"123456789") == 0xE3069283
    for data in (b"", b"123456789", bytes(range(256)) * 5):
        assert masked_crc32c(data) == struct.unpack("<I", masked(data))[0]


def test_records_and_features(tmp_path: Path) -> None:
    payloads = [example({"a": b"x\xff", "b": 0.5, "c": [1, -2, 300]}), b"", example({})]
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(map(record, payloads)))
    assert list(read_records(path)) == payloads
    assert parse_example(payloads[0]) == {"a": [b"x\xff"], "b": [0.5], "c": [1, -2, 300]}
    unpacked = chunk(1, chunk(1, chunk(1, b"n") + chunk(2, chunk(3, varint(1 << 3) + varint(7)))))
    assert parse_example(unpacked) == {"n": [7]}


@pytest.mark.parametrize("kept", [5, 14, 30, -2])
def test_a_file_cut_short_names_the_record(tmp_path: Path, kept: int) -> None:
    first, second = record(example({"a": b"1"})), record(example({"a": b"x" * 40}))
    path = tmp_path / "cut.tfrecord"
    path.write_bytes(first + second[:kept])
    reader = read_records(path)
    assert next(reader) == example({"a": b"1"})
    with pytest.raises(RecordError, match=r"cut\.tfrecord record 1: the file ends within"):
        next(reader)


@pytest.mark.parametrize("place", [0, 9, 20, -1])
def test_a_flipped_bit_is_found(tmp_path: Path, place: int) -> None:
    whole = bytearray(record(example({"a": b"hello"})))
    whole[place] ^= 4
    path = tmp_path / "bad.tfrecord"
    path.write_bytes(whole)
    with pytest.raises(RecordError, match=r"bad\.tfrecord record 0: the checksum"):
        list(read_records(path))


@pytest.mark.parametrize("payload", [b"\x0a\xff\x01", b"\x0b", b"\x0a\x03\x0a\x01\x80", b"\x0a\x02\x08\x01"])
def test_other_bytes_are_no_example(payload: bytes) -> None:
    with pytest.raises(RecordError, match="no tf"):
        parse_example(payload)


def test_a_record_is_read_whole() -> None:
    found = parse_record(labels("train/a.png", "0 1 1"))
    assert found.filename == "train/a.png"
    assert found.scores == {"aesthetics": 0.25, "plausibility": 0.5, "alignment": 0.75, "overall": 1.0}
    assert found.heatmaps["implausibility"].shape == (512, 512)
    assert found.heatmaps["implausibility"][15, 40] == 1
    assert found.heatmaps["misalignment"][40, 15] == 1
    assert found.word_label == "0 1 1"


def test_damaged_fields_are_named() -> None:
    with pytest.raises(RecordError, match=r"a\.png: field artifact_map is damaged"):
        parse_record(labels("a.png", "1", artifact_map=b"nonsense"))
    with pytest.raises(RecordError, match=r"a\.png: overall_score is 3\.0"):
        parse_record(labels("a.png", "1", overall_score=3.0))
    with pytest.raises(RecordError, match="field filename holds 0 values"):
        parse_record(example({"other": b""}))


@pytest.fixture
def richhf(tmp_path: Path) -> dict[str, Any]:
    images = tmp_path / "images" / "train"
    images.mkdir(parents=True)
    for name in ("a", "b", "d"):
        (images / f"{name}.png").write_bytes(png(np.full((20, 24, 3), 90, np.uint8)))
    path = tmp_path / "train.tfrecord"
    rows = [labels("train/a.png", "0 1 1"), labels("train/b.png", "1 1"), labels("train/c.png", "1")]
    path.write_bytes(b"".join(map(record, rows)))
    prompts = {"train/a.png": "a red, cat", "b.png": "one two three", "train/c.png": "x"}
    return {"records": [path], "images": tmp_path / "images", "prompts": prompts}


def test_richhf_joins_and_skips_by_name(richhf: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    data = RichHF(**richhf)
    assert len(data) == 1
    sample = data[0]
    assert (sample.name, sample.prompt, sample.words) == ("train/a.png", "a red, cat", (0, 1, 1))
    assert sample.image.shape == (20, 24, 3)
    assert (data.skipped, data.without_image) == (["train/b.png"], ["train/c.png"])
    assert "train/b.png: 2 word labels came with 3 words" in caplog.text


def test_richhf_refuses_on_request(richhf: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match=r"train/b\.png: 2 word labels came with 3 words"):
        RichHF(**richhf, mismatch="refuse")
    with pytest.raises(ValueError, match="'skip' or 'refuse'"):
        RichHF(**richhf, mismatch="zip")
    with pytest.raises(ValueError, match="no record has an image"):
        RichHF(**{**richhf, "prompts": {}})


def test_images_are_not_looked_up_outside_the_folder(tmp_path: Path) -> None:
    for name in ("../secret.png", "/etc/passwd", "a/../../b.png"):
        with pytest.raises(RecordError, match="outside the image folder"):
            find_image(tmp_path, name)


def test_prompt_tables(tmp_path: Path) -> None:
    for name, text in {
        "p.json": json.dumps({"a.png": "x, y"}),
        "p.csv": 'filename,prompt\na.png,"x, y"\n',
        "p.jsonl": json.dumps({"filename": "a.png", "prompt": "x, y"}) + "\n\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert read_prompts(tmp_path / name) == {"a.png": "x, y"}
    (tmp_path / "q.csv").write_text("name,prompt\na,b\n")
    with pytest.raises(ValueError, match="no column 'filename'"):
        read_prompts(tmp_path / "q.csv")
    (tmp_path / "q.txt").write_text("")
    with pytest.raises(ValueError, match="neither"):
        read_prompts(tmp_path / "q.txt")


def test_prompts_from_a_spreadsheet(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("filename,prompt\na.png,ein Bär\n", encoding="utf-8-sig")
    assert read_prompts(tmp_path / "p.csv") == {"a.png": "ein Bär"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.csv", "filename,prompt\nB\xe4r.png,a\n".encode("latin-1"), "not UTF-8"),
        ("p.csv", b"filename,prompt\na.png,cat\nb.png\n", "line 3 of .* has no prompt"),
        ("p.jsonl", b'{"filename": "a.png", "prompt": null}', "line 1 of .* has no prompt"),
        ("p.jsonl", b'{"filename": "a.png"}', "no column 'prompt'"),
        ("p.jsonl", b"[1]", "no column 'filename'"),
        ("p.json", b"{", "is not JSON"),
    ],
)
def test_bad_tables_of_prompts(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_prompts(tmp_path / name)
    with pytest.raises(ValueError, match="no table of prompts"):
        read_prompts(tmp_path / f"absent-{name}")


def rapidata_row(**changes: Any) -> dict[str, Any]:
    words = [["A", 0.1], ["red,", 3.2], ["-", 0.0], ["cat.", 1.9], ["[No_mistakes]", 5.0]]
    row: dict[str, Any] = {
        "image": Image.new("RGB", (32, 24)),
        "prompt": "A red, - cat.",
        "word_scores": json.dumps(words),
        "alignment_score_norm": 0.4,
        "coherence_score_norm": 0.9,
        "style_score_norm": 0.6,
        "alignment_heatmap": None,
        "coherence_heatmap": [[0.0, 0.5], [1.0, 0.25]],
    }
    return row | changes


def test_rapidata_meanings() -> None:
    (sample,) = rapidata_samples([rapidata_row()])
    assert sample.scores == {"plausibility": 0.9, "alignment": 0.4, "aesthetics": 0.6}
    assert set(sample.heatmaps) == {"implausibility"}
    assert sample.heatmaps["implausibility"].tolist() == [[0.0, 0.5], [1.0, 0.25]]
    assert sample.words == (1, 0, 1, 1)
    holes = parse_row(rapidata_row(coherence_heatmap=[[None, None]], word_scores=None), "x")
    assert holes.heatmaps == {}
    assert holes.words is None


def test_rapidata_rows_that_contradict_themselves() -> None:
    with pytest.raises(RecordError, match=r"row 0: the scored words \(4\) are not those of the prompt \(2\)"):
        list(rapidata_samples([rapidata_row(prompt="a dog")]))
    row = rapidata_row()
    del row["prompt"]
    with pytest.raises(RecordError, match="row 7: column 'prompt' is absent"):
        parse_row(row, "row 7")


def test_samples_check_themselves() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(RecordError, match="x: 1 word labels came with 2 words"):
        Sample("x", image, "a b", words=(1,))
    with pytest.raises(RecordError, match="outside"):
        Sample("x", image, "a", scores={"overall": 1.5})
    with pytest.raises(RecordError, match="beauty"):
        Sample("x", image, "a", scores={"beauty": 0.5})
    with pytest.raises(RecordError, match="uint8"):
        Sample("x", image.astype(np.float32), "a")


def endless(number: int, length: int) -> bytes:
    """A field whose number never ends."""
    return varint(number << 3) + b"\xff" * length


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\xff" * 1_000_000, "no tf"),
        (endless(1, 1_000_000), "no tf"),
        (chunk(1, chunk(1, chunk(1, b"n") + chunk(2, chunk(3, chunk(1, b"\x80" * 1_000_000))))), "no tf"),
        (varint(1 << 3 | 2) + varint(1 << 62) + b"x", "no tf"),
        (varint(1 << 3 | 2) + b"\xff" * 9 + b"\x7f" + b"x", "no tf"),
        (varint(2 << 3) * 2 * 1_000_000, "over 200000 fields"),
        (chunk(1, chunk(1, chunk(1, b"n") + chunk(2, chunk(3, chunk(1, bytes(1_000_000)))))), "over 200000 fields"),
        (chunk(1, chunk(1, chunk(1, b"n") + chunk(2, chunk(2, chunk(1, bytes(4_000_000)))))), "over 200000 fields"),
    ],
)
def test_records_made_to_cost_time_are_refused(payload: bytes, says: str) -> None:
    with pytest.raises(RecordError, match=says):
        parse_example(payload)


@pytest.mark.parametrize(("length", "says"), [(1 << 25, "ends within the record"), (1 << 62, "it claims 46116860")])
def test_absurd_lengths_are_not_read(tmp_path: Path, length: int, says: str) -> None:
    head = struct.pack("<Q", length)
    (tmp_path / "x.tfrecord").write_bytes(head + masked(head) + b"x" * 100)
    with pytest.raises(RecordError, match=rf"x\.tfrecord record 0: .*{says}"):
        list(read_records(tmp_path / "x.tfrecord"))


def test_numbers_of_64_bits(tmp_path: Path) -> None:
    values = [0, 1, -1, 2**63 - 1, -(2**63)]
    assert parse_example(example({"a": values})) == {"a": values}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_are_an_example_or_refused(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from([labels("a.png", "0 1"), example({"a": [1, 2], "b": 0.5}), b""])))
    for _ in range(data.draw(st.integers(0, 6))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    payload = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=20))
    for read in (parse_example, parse_record):
        with contextlib.suppress(RecordError):
            read(payload)


def test_maps_are_pictures_of_the_two_kinds_and_no_larger(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("L", (4096, 4096)).save(out, "png")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n"
    for content, says in [
        (out.getvalue(), "has .4096, 4096. pixels; 2048"),
        (script, "is damaged"),
        (b"GIF89a", "is damaged .no PNG or JPEG"),
    ]:
        with pytest.raises(RecordError, match=f"a.png: field artifact_map {says}"):
            parse_record(labels("a.png", "1", artifact_map=content))


def test_a_bare_name_that_several_records_share_finds_nothing(tmp_path: Path) -> None:
    payloads = [labels("train/a.png", "1 1"), labels("test/a.png", "1 1"), labels("train/b.png", "1 1")]
    (tmp_path / "x.tfrecord").write_bytes(b"".join(map(record, payloads)))
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    found = RichHF([tmp_path / "x.tfrecord"], tmp_path, {"a.png": "two words", "b": "two words"})
    assert [found[index].name for index in range(len(found))] == ["train/b.png"]
    assert found.without_image == ["train/a.png", "test/a.png"]


def test_decomposed_names_on_disk_are_found(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "café.png")).touch()
    assert find_image(tmp_path, "train\\café.png") == tmp_path / unicodedata.normalize("NFD", "café.png")
    assert find_image(tmp_path, "x" * 300) is None
