"""RichHF-18K: labels from TFRecords, joined to images and prompts that are kept elsewhere.

The records hold no image and no prompt: `filename` points into Pick-a-Pic v1. Images are looked up under a folder by
that name, prompts in a table (`filename`, `prompt`) as CSV, JSON or JSON lines.
"""

import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from rahf.data.samples import RecordError, Sample
from rahf.data.tfrecords import Feature, parse_example, read_records
from rahf.images import SUFFIXES, load_image
from rahf.prompts import parse_labels, split_words

logger = logging.getLogger(__name__)

SCORE_FIELDS = {
    "aesthetics_score": "aesthetics",
    "artifact_score": "plausibility",
    "misalignment_score": "alignment",
    "overall_score": "overall",
}
MAP_FIELDS = {"artifact_map": "implausibility", "misalignment_map": "misalignment"}


@dataclass(frozen=True, eq=False)
class RichHFRecord:
    """One record: maps (512,512) float32 in [0, 1], scores in [0, 1], and the word label as it stands in the file."""

    filename: str
    scores: dict[str, float]
    heatmaps: dict[str, np.ndarray]
    word_label: str


def parse_record(payload: bytes) -> RichHFRecord:
    """A record's labels. Raises RecordError that names the record by its filename if a field is absent or damaged."""
    features = parse_example(payload)
    filename = _text(features, "filename", "a record")
    return RichHFRecord(
        filename=filename,
        scores={name: _number(features, key, filename) for key, name in SCORE_FIELDS.items()},
        heatmaps={name: _map(features, key, filename) for key, name in MAP_FIELDS.items()},
        word_label=_text(features, "prompt_misalignment_label", filename),
    )


class RichHF:
    """RichHF-18K as a set of samples.

    records: TFRecord files. images: a folder that holds the images under their `filename`, or under its last part, with
    any image suffix. prompts: prompt by filename. mismatch: what to do with a record whose word label does not fit its
    prompt: "skip" it (logged by name) or "refuse" (RecordError). Records without image or prompt are left out.
    Raises ValueError if no record is left.
    """

    def __init__(
        self,
        records: Sequence[str | Path],
        images: str | Path,
        prompts: Mapping[str, str],
        mismatch: str = "skip",
    ) -> None:
        if mismatch not in ("skip", "refuse"):
            raise ValueError(f"mismatch is {mismatch!r}; it must be 'skip' or 'refuse'")
        self.images = Path(images)
        self.skipped: list[str] = []
        self.without_image: list[str] = []
        self._items: list[tuple[bytes, Path, str]] = []
        for payload in (payload for path in records for payload in read_records(path)):
            self._add(payload, prompts, mismatch)
        if not self._items:
            raise ValueError(
                f"no record has an image under {images} and a prompt ({len(self.without_image)} have not, "
                f"{len(self.skipped)} have word labels that do not fit)"
            )
        logger.info("%d records, %d without image or prompt", len(self._items), len(self.without_image))

    def _add(self, payload: bytes, prompts: Mapping[str, str], mismatch: str) -> None:
        features = parse_example(payload)
        filename = _text(features, "filename", "a record")
        path, prompt = find_image(self.images, filename), _lookup(prompts, filename)
        if path is None or prompt is None:
            self.without_image.append(filename)
            return
        try:
            _labels(_text(features, "prompt_misalignment_label", filename), prompt, filename)
        except RecordError as error:
            if mismatch == "refuse":
                raise
            logger.warning("skipped %s", error)
            self.skipped.append(filename)
            return
        self._items.append((payload, path, prompt))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        payload, path, prompt = self._items[index]
        record = parse_record(payload)
        image = (load_image(path).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        words = _labels(record.word_label, prompt, record.filename)
        return Sample(record.filename, image, prompt, record.heatmaps, record.scores, words)


def find_image(folder: Path, filename: str) -> Path | None:
    """The image of a record below `folder`: under its whole name, or its last part, with any image suffix.

    Raises RecordError for a name that points outside the folder.
    """
    inside = PurePosixPath(filename)
    if inside.is_absolute() or ".." in inside.parts:
        raise RecordError(f"{filename}: the name points outside the image folder")
    for name in (inside, PurePosixPath(inside.name)):
        for suffix in (inside.suffix, *SUFFIXES):
            path = folder / name.with_suffix(suffix) if suffix else folder / name
            if path.is_file():
                return path
    return None


def read_prompts(path: str | Path) -> dict[str, str]:
    """Prompts by filename from `.csv` or `.jsonl` with columns `filename` and `prompt`, or a `.json` object.

    Raises ValueError for a missing file, another format, damaged text, absent columns or a line without a prompt.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".json", ".jsonl"):
        raise ValueError(f"{path} is neither .csv, .json nor .jsonl")
    if not path.is_file():
        raise ValueError(f"there is no table of prompts at {path}; give a file with filename and prompt")
    try:
        return _table(path, path.read_text(encoding="utf-8-sig"))  # spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; save it again as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); mend it") from error


def _table(path: Path, text: str) -> dict[str, str]:
    if path.suffix == ".json":
        table = json.loads(text)
        if not isinstance(table, dict):
            raise ValueError(f"{path} must hold one JSON object, filename to prompt")
        return {str(name): str(prompt) for name, prompt in table.items()}
    rows = list(_rows(path.suffix, text))
    for number, row in enumerate(rows, start=1):
        for column in ("filename", "prompt"):
            if not isinstance(row, dict) or column not in row:
                raise ValueError(f"{path} has no column {column!r}; it must have `filename` and `prompt`")
            if not isinstance(row[column], str):
                raise ValueError(f"entry {number} of {path} has no {column}; fill it in, or take the entry out")
    return {row["filename"]: row["prompt"] for row in rows}


def _rows(suffix: str, text: str) -> Iterator[Mapping[str, str]]:
    if suffix == ".csv":
        yield from csv.DictReader(io.StringIO(text))
    else:
        yield from (json.loads(line) for line in text.splitlines() if line.strip())


def _lookup(prompts: Mapping[str, str], filename: str) -> str | None:
    last = PurePosixPath(filename)
    return next((prompts[key] for key in (filename, last.name, last.stem) if key in prompts), None)


def _labels(label: str, prompt: str, name: str) -> tuple[int, ...]:
    try:
        return tuple(parse_labels(label, [word.text for word in split_words(prompt)]))
    except ValueError as error:
        raise RecordError(f"{name}: {error}") from error


def _one(features: Mapping[str, Feature], key: str, name: str) -> bytes | float | int:
    values = features.get(key)
    if not values or len(values) != 1:
        raise RecordError(f"{name}: field {key} holds {len(values or [])} values, not 1")
    return values[0]


def _text(features: Mapping[str, Feature], key: str, name: str) -> str:
    value = _one(features, key, name)
    if not isinstance(value, bytes):
        raise RecordError(f"{name}: field {key} is not text")
    return value.decode("utf-8", errors="replace")


def _number(features: Mapping[str, Feature], key: str, name: str) -> float:
    value = _one(features, key, name)
    if isinstance(value, bytes):
        raise RecordError(f"{name}: field {key} is not a number")
    if not -1e-4 <= value <= 1 + 1e-4:
        raise RecordError(f"{name}: {key} is {value}, outside [0, 1]")
    return float(min(max(value, 0.0), 1.0))


def _map(features: Mapping[str, Feature], key: str, name: str) -> np.ndarray:
    value = _one(features, key, name)
    if not isinstance(value, bytes):
        raise RecordError(f"{name}: field {key} is not an encoded image")
    try:
        with Image.open(io.BytesIO(value)) as image:
            return np.asarray(image.convert("L"), dtype=np.float32) / 255
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise RecordError(f"{name}: field {key} is damaged ({error})") from error
