"""The list of weight files in weights.md: `python -m gid.weights_table` rewrites it, a test compares it."""

from __future__ import annotations

import hashlib
from pathlib import Path

BEGIN = "<!-- files: written by python -m gid.weights_table -->"
END = "<!-- end of files -->"
FOLDERS = ("gid/weights", "rahf/weights")


def weight_files(root: Path) -> list[Path]:
    """Every file of the embedded weights under the repository's root, sorted by path."""
    files = (path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    return sorted(path for path in files if path.suffix not in {".py", ".pyc"} and path.name[0] != ".")


def table(root: Path) -> str:
    """The markdown table of path, size in bytes and sha256."""
    rows = ["| file | bytes | sha256 |", "|---|---:|---|"]
    for path in weight_files(root):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(f"| `{path.relative_to(root).as_posix()}` | {path.stat().st_size} | `{digest}` |")
    return "\n".join(rows)


def refreshed(text: str, root: Path) -> str:
    """The text with the table between its two marks replaced. Raises ValueError if a mark is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"weights.md has lost its marks {BEGIN!r} and {END!r}; put them around the table")
    return f"{before}{begin}\n\n{table(root)}\n\n{end}{after}"


def main() -> None:
    """Rewrite the table in weights.md of the repository this package lies in."""
    root = Path(__file__).resolve().parent.parent
    document = root / "weights.md"
    document.write_text(refreshed(document.read_text(encoding="utf-8"), root), encoding="utf-8")


if __name__ == "__main__":
    main()
