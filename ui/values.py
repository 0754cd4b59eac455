"""Values that programs send to the documented endpoints: of the right type, or refused in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradio.data_classes import FileData

from ui import uploads


def finite(name: str, value: Any) -> float:
    """A number. Raises ValueError for text, lists, true and false, nothing, NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {shown(value)}; it must be a number")
    if isinstance(value, int) and abs(value) > 2**53:
        raise ValueError(f"{name} is a number of 16 digits or more; give a smaller one")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; it must be a finite number")
    return value


def whole(name: str, value: Any) -> int:
    """A whole number; 3.0 counts as one. Raises ValueError for anything else."""
    if finite(name, value) != int(value):
        raise ValueError(f"{name} is {value:g}; it must be a whole number")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """True or false. Raises ValueError for anything else, also for 0, 1 and "true"."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {shown(value)}; it must be true or false")
    return value


def text(name: str, value: Any) -> str:
    """A text; nothing is the empty one. Raises ValueError for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}; it must be a text")
    return value


def choice(name: str, value: Any, known: Sequence[str]) -> str:
    """One of some words. Raises ValueError for anything else."""
    if value not in known or not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}; it must be one of {', '.join(map(repr, known))}")
    return value


def upload(value: Any, missing: str) -> str:
    """The path of an uploaded file, as :mod:`ui.gate` has checked it, or of a picture sent as base64 text.

    Raises ValueError with the sentence ``missing`` where there is none, and for anything but a file.
    """
    if value is None:
        raise ValueError(missing)
    if isinstance(value, FileData):
        return uploads.uploaded(value.path)
    if isinstance(value, dict):
        return uploads.uploaded(value.get("path"))
    if isinstance(value, str) and value.startswith("data:"):
        return uploads.stored(value)
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        raise ValueError(uploads.NO_ADDRESSES)
    raise ValueError(uploads.NOT_SENT)


def shown(value: Any) -> str:
    """How a value is told of: short, whatever it is."""
    if isinstance(value, list | tuple | dict):
        return f"a list of {len(value)} values" if not isinstance(value, dict) else "an object"
    said = repr(value[:60] if isinstance(value, str) else value)
    return said if len(said) <= 80 else f"{said[:77]}..."
