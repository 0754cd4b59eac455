"""RichHF-18K: labels from TFRecords, joined to images and prompts that are kept elsewhere.

The records hold no image and no prompt: `filename` points into Pick-a-Pic v1. Images are looked up under a folder by
that name, prompts in a table (`rahf.data.prompt_tables`).
"""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from foundation.decoding import jpeg, png
from foundation.decoding.errors import DAMAGE, PictureError
from foundation.decoding.formats import read_container
from foundation.decoding.pixels import open_image
from foundation.pictures import SUFFIXES, load_photo
from rahf.data.prompt_tables import assign_prompts, normal_name
from rahf.data.samples import RecordError, Sample
from rahf.data.tfrecords import Feature, parse_example, read_records
from rahf.prompts import parse_labels, split_words

logger = logging.getLogger(__name__)

SCORE_FIELDS = {
    "aesthetics_score": "aesthetics",
    "artifact_score": "plausibility",
    "misalignment_score": "alignment",
    "overall_score": "overall",
}
MAP_FIELDS = {"artifact_map": "implausibility", "misalignment_map": "misalignment"}
MAX_MAP_SIDE = 2048  # theirs have 512


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
        payloads = [payload for path in records for payload in read_records(path)]
        names = [_text(parse_example(payload), "filename", "a record") for payload in payloads]
        texts = assign_prompts(names, prompts)
        stems = Counter(PurePosixPath(normal_name(name)).stem for name in dict.fromkeys(names))
        for payload, name in zip(payloads, names, strict=True):
            alone = stems[PurePosixPath(normal_name(name)).stem] == 1
            self._add(payload, name, find_image(self.images, name, alone), texts.get(name), mismatch)
        if not self._items:
            raise ValueError(
                f"no record has an image under {images} and a prompt ({len(self.without_image)} have not, "
                f"{len(self.skipped)} have word labels that do not fit)"
            )
        logger.info("%d records, %d without image or prompt", len(self._items), len(self.without_image))

    def _add(self, payload: bytes, filename: str, path: Path | None, prompt: str | None, mismatch: str) -> None:
        if path is None or prompt is None:
            self.without_image.append(filename)
            return
        try:
            _labels(_text(parse_example(payload), "prompt_misalignment_label", filename), prompt, filename)
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
        image = (load_photo(path).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        words = _labels(record.word_label, prompt, record.filename)
        return Sample(record.filename, image, prompt, record.heatmaps, record.scores, words)


def find_image(folder: Path, filename: str, by_bare_name: bool = True) -> Path | None:
    """The image of a record below `folder`: under its whole name, or its last part, with any image suffix.

    by_bare_name: whether the last part will do; not where several records share it. Composed and decomposed letters
    are the same. Raises RecordError for a name that points outside the folder.
    """
    inside = PurePosixPath(filename.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or not inside.name:
        raise RecordError(f"{filename}: the name points outside the image folder")
    for name in (inside, PurePosixPath(inside.name)) if by_bare_name else (inside,):
        for suffix in (inside.suffix, *SUFFIXES):
            for form in ("NFC", "NFD"):
                path = folder / unicodedata.normalize(form, str(name.with_suffix(suffix)))
                if os.path.isfile(path):  # which takes a name too long for one that is not there
                    return path
    return None


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
    where = f"{name}: field {key}"
    if not value.startswith((jpeg.MAGIC, png.MAGIC)):
        raise RecordError(f"{where} is damaged (no PNG or JPEG)")
    try:
        with open_image(read_container(value, where), where) as image:
            size = image.size
            if max(size) <= MAX_MAP_SIDE:
                return np.asarray(image.convert("L"), dtype=np.float32) / 255
    except PictureError as error:
        raise RecordError(str(error)) from error
    except DAMAGE as error:
        raise RecordError(f"{where} is damaged ({error})") from error
    raise RecordError(f"{where} has {size} pixels; {MAX_MAP_SIDE} a side are the limit")
