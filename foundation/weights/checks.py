"""Is a folder of weights whole, and of the kind asked for? Reads headers and digests, never a pickle."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

CHECKSUMS = "checksums.json"
INDEX = ".index.json"  # beside weights in several files: which tensor is in which
# A tokenizer's vocabulary is text or a protocol buffer; neither can run anything.
TOKENIZER_FILES = {"vocab.txt", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"}
SUFFIXES = {".json", ".safetensors"}
NOT_A_CONFIGURATION = "is no JSON object"


@dataclass(frozen=True)
class Layout:
    """What a folder of weights consists of.

    Attributes:
        patterns: globs of the files that belong to it, relative to the folder; ``*`` does not cross a slash.
        required: files without which it cannot be loaded. A ``.safetensors`` may be replaced by its index and parts.
    """

    patterns: tuple[str, ...]
    required: tuple[str, ...]

    def holds(self, path: str) -> bool:
        """Whether a file, named relative to the folder, belongs to it and is of a kind that is safe to fetch."""
        parts = PurePosixPath(path).parts
        if {".", ".."} & set(parts):
            return False
        fits = any(
            len(wanted := PurePosixPath(pattern).parts) == len(parts)
            and all(fnmatchcase(part, piece) for part, piece in zip(parts, wanted, strict=True))
            for pattern in (*self.patterns, CHECKSUMS)
        )
        return fits and is_safe(path)


@dataclass(frozen=True)
class WeightsKind:
    """One library's weights: how they are named, laid out and told from others.

    Attributes:
        library: ``gid`` or ``rahf``.
        variable: environment variable that names the weights to use.
        embedded: folder of the weights inside the package.
        marker: JSON file at the top of the folder, which says what it is.
        made_by: command that makes such a folder, for messages.
        layout: marker's content -> layout; raises ValueError that says in half a sentence what it is instead.
    """

    library: str
    variable: str
    embedded: Path
    marker: str
    made_by: str
    layout: Callable[[Mapping[str, Any]], Layout]


def is_safe(path: str) -> bool:
    """Whether a file is of a kind that is fetched and published: JSON, safetensors, a tokenizer's vocabulary."""
    name = PurePosixPath(path)
    return name.suffix in SUFFIXES or name.name in TOKENIZER_FILES


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ValueError if it is damaged or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} {NOT_A_CONFIGURATION} ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} {NOT_A_CONFIGURATION}; fetch it again")
    return value


def describe(config: Mapping[str, Any]) -> str:
    """What a configuration says it belongs to, in words, whoever wrote it."""
    if "_class_name" in config:
        return f"a {config['_class_name']}"
    if isinstance(architectures := config.get("architectures"), list) and architectures:
        return f"a {architectures[0]} of transformers"
    if {"vit_width", "heatmap_stem"} <= set(config):
        return "weights of rahf"
    return "something else"


def check_folder(
    folder: Path, kind: WeightsKind, hashed: Mapping[str, str] | None = None, headers: bool = True
) -> Layout:
    """Check that a folder holds whole weights of this kind, and the files that its ``checksums.json`` lists, if any.

    ``hashed`` are sha256 already computed, by path, which spares reading large files once more. Without ``headers``
    tensors are left to who loads them next, and reads each header anyway.

    Returns the folder's layout. Raises ValueError, in one sentence with the remedy, for a folder without weights, of
    another kind, with files missing, damaged or truncated.
    """
    marker = folder / kind.marker
    if not marker.is_file():
        raise ValueError(missing_marker(str(folder), kind, _other_marker(folder)))
    layout = layout_of(read_json(marker), str(folder), kind)
    lacking = missing_files(layout, lambda path: (folder / path).is_file(), lambda path: read_json(folder / path))
    if lacking:
        raise ValueError(f"{folder} is incomplete: {lacking[0]} is missing; fetch or make the folder again")
    files = [path for path in sorted(folder.rglob("*")) if layout.holds(path.relative_to(folder).as_posix())]
    for path in files:
        if headers or path.suffix != ".safetensors":
            check_file(path)
    if (folder / CHECKSUMS).is_file():
        check_sums(folder, read_json(folder / CHECKSUMS), hashed or {})
    return layout


def layout_of(config: Mapping[str, Any], source: str, kind: WeightsKind) -> Layout:
    """The layout a marker asks for. Raises ValueError if the weights in ``source`` are of another kind."""
    try:
        return kind.layout(config)
    except ValueError as error:
        raise ValueError(
            f"{source} holds {describe(config)}, not weights of {kind.library} ({error}); name weights made by "
            f"{kind.made_by}"
        ) from error


def missing_marker(source: str, kind: WeightsKind, other: Mapping[str, Any] | None) -> str:
    """The sentence for a source without this kind's marker, which may hold something else."""
    if other is not None:
        return (
            f"{source} holds {describe(other)}, not weights of {kind.library} ({kind.marker} is missing); name weights "
            f"made by {kind.made_by}"
        )
    return (
        f"{source} holds no weights of {kind.library} ({kind.marker} is missing); name weights made by {kind.made_by}"
    )


def missing_files(layout: Layout, exists: Callable[[str], bool], read: Callable[[str], Mapping[str, Any]]) -> list[str]:
    """Required files that are not there; an index stands for its weights if all of its parts are there.

    Raises ValueError if an index is damaged or points out of the folder.
    """
    lacking = []
    for path in layout.required:
        if exists(path):
            continue
        index = path + INDEX
        if not path.endswith(".safetensors") or not exists(index):
            lacking.append(path)
            continue
        lacking += [part for part in index_parts(read(index), index) if not exists(part)]
    return lacking


def index_parts(index: Mapping[str, Any], path: str) -> list[str]:
    """The files an index names, relative to the weights' folder. Raises ValueError if they lie outside."""
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{path} names no weights; fetch it again")
    parts = sorted({str(name) for name in names.values()})
    if any("/" in part or "\\" in part or part.startswith(".") for part in parts):
        raise ValueError(f"{path} names files outside its folder; do not use these weights")
    return [str(PurePosixPath(path).parent / part) for part in parts]


def check_file(path: Path) -> None:
    """Check that a file is whole as far as it says itself. Raises ValueError if it is damaged or truncated."""
    if path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".safetensors":
        tensor_shapes(path)


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file. Raises ValueError if it is damaged or truncated."""
    try:
        with safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, ValueError, OSError) as error:  # the latter two: an empty file cannot be mapped
        reason = "truncated" if "incomplete" in str(error).lower() else "no safetensors file"
        raise ValueError(f"{path} is damaged: it is {reason} ({error}); fetch it again") from error


# Digests. The Hub names a large file by its sha256 and a small one by its git blob id, a sha1 of length and content.

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def digest_of(path: Path, like: str) -> str | None:
    """The digest of a file in the form of another one: sha256 (64 hex digits), git blob id (40), None for neither."""
    if _SHA256.fullmatch(like):
        hasher = hashlib.sha256()
    elif _SHA1.fullmatch(like):
        hasher = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        return None
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def checksums(files: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    """The content of checksums.json: sha256 and length of each file by its path in the folder."""
    entries = {name: {"sha256": digest_of(path, "0" * 64), "bytes": path.stat().st_size} for name, path in files}
    return {"format": "weights-checksums/1", "files": dict(sorted(entries.items()))}


def check_sums(folder: Path, listed: Mapping[str, Any], hashed: Mapping[str, str]) -> None:
    """Compare a folder with its checksums.json. Raises ValueError for a file that is missing or differs."""
    files = listed.get("files")
    if not isinstance(files, dict):
        raise ValueError(f"{folder / CHECKSUMS} lists no files; delete it or fetch the folder again")
    for name, entry in files.items():
        path = folder / name
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute() or not isinstance(entry, dict):
            raise ValueError(f"{folder / CHECKSUMS} names {name!r}, which is outside its folder; do not use it")
        if not path.is_file():
            raise ValueError(f"{folder} is incomplete: {name} is listed in {CHECKSUMS} but missing; fetch it again")
        if (hashed.get(name) or digest_of(path, "0" * 64)) != entry.get("sha256"):
            raise ValueError(
                f"{path} is not the file that was published (its sha256 differs from {CHECKSUMS}); fetch it again, or "
                f"delete {CHECKSUMS} if you changed it on purpose"
            )


def _other_marker(folder: Path) -> dict[str, Any] | None:
    for name in ("model_index.json", "config.json"):
        if (folder / name).is_file():
            return read_json(folder / name)
    return None
