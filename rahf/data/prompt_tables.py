"""Tables of prompts by file name, and which prompt belongs to which picture: the right one, or a sentence why not.

Names are compared in Unicode's composed form (NFC; macOS stores decomposed ones) and with either slash.
"""

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

NAME, PROMPT = "filename", "prompt"
MAX_BYTES = 256 << 20
MAX_FIELD = 20_000  # letters; the longest prompt that any generator reads has far fewer
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class _Entry:
    """What a table says of one picture, and the line where it says so."""

    line: int | None
    name: Any
    prompt: Any


def normal_name(name: str) -> str:
    """A file's place as it is compared: NFC, forward slashes, no `./` in front."""
    return PurePosixPath(unicodedata.normalize("NFC", name).replace("\\", "/")).as_posix()


def read_prompts(path: str | Path) -> dict[str, str]:
    """Prompts by (normal) file name from `.csv` or `.jsonl` with columns `filename` and `prompt`, or a `.json` object.

    Raises ValueError, with the line where there is one, for a missing file, another format, another separator, damaged
    text, absent columns, a row with too many or too few fields, an entry without name or prompt, one that is no text or
    too long, and a name that stands there twice with two prompts.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json", ".jsonl"):
        raise ValueError(f"{path} is neither .csv, .json nor .jsonl")
    if not path.is_file():
        raise ValueError(f"there is no table of prompts at {path}; give a file with filename and prompt")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size >> 20} MB; a table of prompts may have {MAX_BYTES >> 20}. Divide it")
    text = _decoded(path, path.read_bytes())
    read = {".csv": _from_csv, ".json": _from_json, ".jsonl": _from_json_lines}[suffix]
    prompts: dict[str, _Entry] = {}
    for entry in read(path, text):
        _check(path, entry)
        name = normal_name(entry.name)
        earlier = prompts.setdefault(name, entry)
        if earlier.prompt != entry.prompt:
            raise ValueError(
                f"{_place(path, entry.line)} gives {name[:60]} another prompt than {_place(path, earlier.line)} does; "
                "keep one of them"
            )
    return {name: entry.prompt for name, entry in prompts.items()}


def assign_prompts(files: Iterable[str], prompts: Mapping[str, str]) -> dict[str, str]:
    """The prompt of each picture that has one, by its place below the folder, as it is given.

    A picture's prompt is looked up by its place below the folder, the bare file name, or either without suffix, in this
    order. A shortened name that fits several of the pictures stands for none of them.
    Raises ValueError for names that are the same one, written in two ways, with two prompts.
    """
    table: dict[str, str] = {}
    for name, prompt in prompts.items():
        if table.setdefault(normal_name(name), prompt) != prompt:
            raise ValueError(f"{normal_name(name)[:60]} has two prompts, {prompt[:40]!r} is one; keep one of them")
    keys = {file: names_of(file) for file in files}
    fitting = Counter(key for names in keys.values() for key in names[1:])
    whole = Counter(names[0] for names in keys.values())
    found: dict[str, str] = {}
    for file, names in keys.items():
        for place, key in enumerate(names):
            if key in table and (place == 0 or fitting[key] + whole[key] == 1):
                found[file] = table[key]
                break
    return found


def names_of(file: str) -> list[str]:
    """What a picture may be called in a table, the most exact first: its place, its name, both without suffix."""
    place = PurePosixPath(normal_name(file))
    return list(dict.fromkeys([place.as_posix(), place.name, place.with_suffix("").as_posix(), place.stem]))


def missing_prompt(file: str, prompts: Mapping[str, str]) -> str:
    """Why a picture has no prompt."""
    table = {normal_name(name) for name in prompts}
    shared = next((key for key in names_of(file) if key in table), None)
    if shared is None:
        return f"there is no prompt for {file}"
    return f"there is no prompt for {file}: {shared} fits several pictures; write it with its folder and ending"


def _decoded(path: Path, data: bytes) -> str:
    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"  # spreadsheets put a mark in front
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} of {path} is not UTF-8 text; save it again as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{_place(path, text[: text.index(chr(0))].count(chr(10)) + 1)} holds a NUL; it is no text")
    return text


def _check(path: Path, entry: _Entry) -> None:
    for column, value in ((NAME, entry.name), (PROMPT, entry.prompt)):
        place = _place(path, entry.line)
        if value is None or value == "":
            raise ValueError(f"{place} has no {column}; fill it in, or take the entry out")
        if not isinstance(value, str):
            shown = json.dumps(value)[:40]
            raise ValueError(f"{place} has {shown} as its {column}, which is no text; put it in quotation marks")
        if len(value) > MAX_FIELD:
            raise ValueError(f"{place} has a {column} of {len(value)} letters; the limit is {MAX_FIELD}. Shorten it")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError(f"{place} has a {column} with half of a surrogate pair; write it again")


def _place(path: Path, line: int | None) -> str:
    return f"line {line} of {path}" if line is not None else str(path)


def _from_csv(path: Path, text: str) -> Iterator[_Entry]:
    """Comma-separated values, strictly: what a spreadsheet writes, and nothing that can be read in two ways."""
    head = text.split("\n", 1)[0]
    for separator, called in SEPARATORS.items():
        if {NAME, PROMPT} <= {name.strip(' "\r') for name in head.split(separator)}:
            raise ValueError(f"line 1 of {path} separates its columns by {called}; save it again with commas")
    rows = _csv_rows(path, text)
    _, header = next(rows, (1, []))
    columns = [name.strip() for name in header]
    for column in (NAME, PROMPT):
        if columns.count(column) != 1:
            how = "no column" if column not in columns else "two columns"
            raise ValueError(f"{path} has {how} {column!r}; its first line must name `{NAME}` and `{PROMPT}` once each")
    name, prompt = columns.index(NAME), columns.index(PROMPT)
    for line, row in rows:
        if not any(field.strip() for field in row):
            continue
        if len(row) > len(columns):
            raise ValueError(
                f"line {line} of {path} has {len(row)} fields and the first line {len(columns)}; put a text that holds "
                "commas in quotation marks"
            )
        padded = [*row, *[None] * (len(columns) - len(row))]
        yield _Entry(line, padded[name], padded[prompt])


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line on which each begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    line = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"line {line} of {path} is no row of a CSV table ({error}); mend it") from error
        yield line, row
        line = reader.line_num + 1


def _from_json(path: Path, text: str) -> Iterator[_Entry]:
    table = _loaded(path, text)
    if not isinstance(table, list) or not text.lstrip().startswith("{"):
        raise ValueError(f"{path} must hold one JSON object, filename to prompt")
    for name, prompt in table:
        yield _Entry(_line_of(text, name, prompt), name, prompt)


def _line_of(text: str, name: str, prompt: Any) -> int | None:
    """The line of a JSON object on which a name stands; None where it is written in a way of its own."""
    for ascii_only in (False, True):
        key = json.dumps(name, ensure_ascii=ascii_only)
        value = json.dumps(prompt, ensure_ascii=ascii_only)
        for wanted in (f"{key}: {value}", f"{key}:{value}", key):
            place = text.find(wanted)
            if place >= 0:
                return text.count("\n", 0, place) + 1
    return None


def _from_json_lines(path: Path, text: str) -> Iterator[_Entry]:
    for line, part in enumerate(text.split("\n"), start=1):  # other ends of lines may stand inside a text
        if not part.strip():
            continue
        place = f"line {line} of {path}"
        pairs = _loaded(place, part)
        if not part.lstrip().startswith("{"):
            raise ValueError(f"{place} has no column {NAME!r}; each line is an object with `{NAME}` and `{PROMPT}`")
        names = [name for name, _ in pairs]
        for column in (NAME, PROMPT):
            if names.count(column) != 1:
                how = "no column" if column not in names else "two columns"
                raise ValueError(f"{place} has {how} {column!r}; it must have `{NAME}` and `{PROMPT}`")
        row = dict(pairs)
        yield _Entry(line, row[NAME], row[PROMPT])


def _loaded(place: str | Path, text: str) -> Any:
    """JSON, objects as lists of pairs: a dict would keep the last of two equal names."""
    try:
        return json.loads(text, object_pairs_hook=list)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} of {place}" if isinstance(place, Path) else place
        raise ValueError(f"{where} is not JSON ({error.msg}, letter {error.colno}); mend it") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a hundred thousand brackets
        raise ValueError(f"{place} is not a table of prompts: it holds a number too long or lists too deep") from error
