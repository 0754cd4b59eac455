"""The generated parts of weights.md: `python -m foundation.weights.table` rewrites them, a test compares them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from foundation.files import write_text
from foundation.weights.known import KNOWN, KnownWeights

BY = "written by python -m foundation.weights.table"
FILES = (f"<!-- files: {BY} -->", "<!-- end of files -->")
CHECKPOINTS = (f"<!-- checkpoints: {BY} -->", "<!-- end of checkpoints -->")
FOLDERS = ("gid/weights", "rahf/weights")
UNKNOWN = "not known here"


def weight_files(root: Path) -> list[Path]:
    """Every file of the embedded weights under the repository's root, sorted by path."""
    files = (path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    return sorted(path for path in files if path.suffix not in {".py", ".pyc"} and path.name[0] != ".")


def files_table(root: Path) -> str:
    """The markdown table of path, size in bytes and sha256."""
    rows = ["| file | bytes | sha256 |", "|---|---:|---|"]
    for path in weight_files(root):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(f"| `{path.relative_to(root).as_posix()}` | {path.stat().st_size} | `{digest}` |")
    return "\n".join(rows)


def checkpoints_table(root: Path) -> str:
    """The markdown table of every set of weights that the code knows; embedded ones only where they are present."""
    rows = [
        "| weights | read by | what | source | revision | bytes | sha256 | licence | trained on | measured quality |",
        "|---|---|---|---|---|---:|---|---|---|---|",
    ]
    for weights in KNOWN:
        if weights.embedded is None or (root / weights.embedded).is_dir():
            rows.append(_row(weights, root))
    return "\n".join(rows)


def refreshed(text: str, root: Path) -> str:
    """The text with the tables between their marks replaced. Raises ValueError if a mark is missing."""
    for (begin, end), table in ((FILES, files_table(root)), (CHECKPOINTS, checkpoints_table(root))):
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found_begin or not found_end:
            raise ValueError(f"weights.md has lost its marks {begin!r} and {end!r}; put them around the table")
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def main() -> None:
    """Rewrite the tables in weights.md of the repository this package lies in."""
    root = Path(__file__).resolve().parents[2]
    document = root / "weights.md"
    write_text(document, refreshed(document.read_text(encoding="utf-8"), root))


def _row(weights: KnownWeights, root: Path) -> str:
    if weights.embedded is not None:
        own = root / weights.embedded
        inner = [root / other.embedded for other in KNOWN if other.embedded and other.embedded != weights.embedded]
        inner = [folder for folder in inner if folder.is_relative_to(own)]  # weights of their own, with their own row
        files = [path for path in weight_files(root) if path.is_relative_to(own)]
        files = [path for path in files if not any(path.is_relative_to(folder) for folder in inner)]
        size, digests = str(sum(path.stat().st_size for path in files)), "each file above"
        revision = "this one"
    else:
        size = str(weights.size) if weights.size is not None else UNKNOWN
        if weights.size is None and weights.parameters is not None:
            size += f" ({weights.parameters:,} parameters)"
        digests = "<br>".join(f"`{path}` `{digest}`" for path, digest in weights.files.items()) or UNKNOWN
        revision = f"`{weights.revision}`" if weights.revision else "none pinned" if weights.repo else "–"
    source = weights.source if weights.repo is None else f"`{weights.repo}` on the Hub"
    cells = (
        f"`{weights.name}`",
        weights.used_by,
        weights.what,
        source,
        revision,
        size,
        digests,
        weights.licence or UNKNOWN,
        weights.data or UNKNOWN,
        weights.quality or "not measured here",
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
