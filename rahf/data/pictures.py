"""Real pictures with prompts and what people said of them: folders with one `.jsonl` table each.

A line is a JSON object with `file` (relative to the tables) and `prompt`; what else it holds depends on the set:
`checks` (yes/no checks of one picture by a person), `annotators` (errors of anatomy by part), `captions` and
`boxes_xywh_orig` of photographs, `generator`, `scene`. Nothing of these sets is part of the project.

Groups for leaving out are fixed here, by name: scenes of checks, prompts of anatomy, generators, and for photographs
fifths by a checksum of the file's name. A picture's twins (same scene or prompt, other sampler or seed) stay together.
"""

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ADHERENCE, OVERALL = "Prompt adherence", "Overall"
FOLDS = 5


@dataclass(frozen=True)
class Picture:
    """One line of a table.

    Attributes:
        set: the table's name.
        file: below the folder of the tables, with forward slashes.
        path: where it lies.
        prompt: what it was made from; the first caption of a photograph.
        labels: everything else that the line holds.
    """

    set: str
    file: str
    path: Path
    prompt: str
    labels: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """The file without its suffix: what features are kept under."""
        return self.file.rsplit(".", 1)[0]

    @property
    def group(self) -> str:
        """What must not be split between training and test: scene, prompt, generator or fifth of the photographs."""
        labels = self.labels
        if "scene" in labels:
            return f"scene {labels['scene']}"
        if "annotators" in labels:
            return f"prompt {self.prompt}"
        if "captions" in labels:
            return f"fifth {fold_of(self.file)}"
        return f"generator {labels.get('generator') or labels.get('task') or self.set}"


def fold_of(file: str) -> int:
    """Which of five folds a file belongs to, by the checksum of its name."""
    return zlib.crc32(Path(file).stem.encode()) % FOLDS


def read_pictures(folder: str | Path, sets: Sequence[str] | None = None) -> list[Picture]:
    """The pictures of all tables in a folder, or of those named, each file once, in the order of the tables.

    Raises ValueError for a folder without tables, a table that is not there, and a line that is no object with `file`.
    """
    folder = Path(folder)
    tables = [folder / f"{name}.jsonl" for name in sets] if sets is not None else sorted(folder.glob("*.jsonl"))
    missing = [table.name for table in tables if not table.is_file()]
    if missing or not tables:
        raise ValueError(f"{folder} holds no {', '.join(missing) or '.jsonl table'}; give the folder of the tables")
    found: dict[str, Picture] = {}
    for table in tables:
        for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            row = _row(line, f"{table.name}, line {number}")
            file = row.pop("file")
            if file is None:  # a table that joins others, such as pairs
                continue
            prompt = str(row.pop("prompt", "") or "")
            found.setdefault(file, Picture(table.stem, file, folder / file, prompt, row))
    return list(found.values())


def anomaly_shares(pictures: Iterable[Picture]) -> dict[str, float]:
    """By file, the part of a picture's anomaly checks that are right, over checks that vary within its scene."""
    return _shares(pictures, lambda check: check["category"] not in (ADHERENCE, OVERALL))


def adherence_checks(pictures: Iterable[Picture]) -> list[tuple[Picture, str, str, bool]]:
    """(picture, element, check, shown) for every adherence check that varies within its scene."""
    pictures = list(pictures)
    varying = _varying(pictures)
    return [
        (picture, check["element"], check["check"], bool(check["ok"]))
        for picture in pictures
        for check in picture.labels["checks"]
        if check["category"] == ADHERENCE and _name(picture, check) in varying
    ]


def severity(picture: Picture) -> float:
    """Sum of the errors of anatomy, persons times severity, mean over the annotators."""
    totals = [sum(e["persons"] * e["severity"] for e in errors) for errors in picture.labels["annotators"]]
    return float(np.mean(totals))


def _shares(pictures: Iterable[Picture], wanted: Any) -> dict[str, float]:
    pictures = list(pictures)
    varying = _varying(pictures)
    shares = {}
    for picture in pictures:
        right = [c["ok"] for c in picture.labels["checks"] if wanted(c) and _name(picture, c) in varying]
        if right:
            shares[picture.file] = float(np.mean(right))
    return shares


def _varying(pictures: Sequence[Picture]) -> set[tuple[str, ...]]:
    seen: dict[tuple[str, ...], set[int]] = {}
    for picture in pictures:
        for check in picture.labels["checks"]:
            seen.setdefault(_name(picture, check), set()).add(int(check["ok"]))
    return {name for name, answers in seen.items() if len(answers) > 1}


def _name(picture: Picture, check: dict[str, Any]) -> tuple[str, ...]:
    return picture.labels["scene"], check["category"], check["element"], check["check"]


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON ({error.msg}); write one object a line") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not a JSON object; write one object a line")
    row.setdefault("file", None)
    if row["file"] is not None and not isinstance(row["file"], str):
        raise ValueError(f"{where}: `file` is {row['file']!r}; give a path relative to the table")
    return row
