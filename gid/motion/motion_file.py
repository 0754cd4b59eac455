"""Reading a motion file that a stranger may have made: everything is bounded before it costs anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

MOTION_FORMAT = "gid-motion/1"
MAX_HEADER = 1 << 20  # bytes; ours have a few hundred
MAX_VALUES = 1 << 26  # numbers in all: 16 bands of 1024x1024 cells
MAX_FRAMES = 100_000
MAX_SIDE = 100_000  # pixels of the photo
MAX_TEXT = 1000  # letters of a metadata entry
MAX_DISPLACEMENT = 1.0  # root mean square over time, in widths and heights of the picture: farther, all leaves it
FPS = (0.1, 1000.0)
DTYPES = ("F16", "BF16", "F32", "F64")


def read_motion_file(path: str | Path) -> tuple[Tensor, dict[str, Any]]:
    """The real coefficients (K, 4, H, W), float32, of a motion file, and the other fields of a ``SpectralVolume``.

    Raises:
        ValueError: if there is no such file, it is not a motion file, is cut short, or holds what no motion has.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"motion file {path} does not exist; make it with `gid motion` or `gid extract`")
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > MAX_HEADER:
            raise ValueError(f"{path.name} is damaged or not a motion file: its header would have {header} bytes")
        with safe_open(path, framework="pt") as file:
            fields = _fields(path.name, file.metadata() or {})
            if "coefficients" not in file.keys():  # noqa: SIM118 - not a mapping
                raise ValueError(f"{path.name} holds no tensor `coefficients`; make it again")
            stored = file.get_slice("coefficients")
            _check_tensor(path.name, stored.get_shape(), stored.get_dtype())
            coefficients = file.get_tensor("coefficients").float()
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is damaged or not a motion file ({error}); make it again") from error
    _check_numbers(path.name, coefficients)
    return coefficients, fields


def _fields(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata.get("format") != MOTION_FORMAT:
        stated = repr(metadata["format"][:40]) if "format" in metadata else "no format at all"
        raise ValueError(f"{name} is not a motion file: it states {stated}, not {MOTION_FORMAT!r}")
    if len(metadata.get("model", "")) > MAX_TEXT:
        raise ValueError(f"{name} names a model of {len(metadata['model'])} letters; the limit is {MAX_TEXT}")
    frames = _number(name, metadata, "num_frames", int, 2, MAX_FRAMES)
    sides = [_number(name, metadata, key, int, 0, MAX_SIDE) for key in ("image_width", "image_height")]
    seed = _number(name, metadata, "seed", int, 0, 2**64 - 1) if metadata.get("seed") else None
    return {
        "fps": _number(name, metadata, "fps", float, *FPS),
        "num_frames": frames,
        "image_size": (sides[0], sides[1]) if min(sides) > 0 else None,
        "model": metadata.get("model", ""),
        "seed": seed,
    }


def _number(name: str, metadata: Mapping[str, str], key: str, kind: type, low: float, high: float) -> Any:
    text = metadata.get(key)
    if text is None:
        raise ValueError(f"{name} has unreadable metadata: it states no {key}; make it again")
    try:
        value = kind(text)
    except ValueError as error:
        raise ValueError(f"{name} has unreadable metadata: its {key} is {text[:40]!r}; make it again") from error
    if not low <= value <= high:  # NaN is neither
        raise ValueError(f"{name} states a {key} of {text[:40]}; it must be from {low:g} to {high:g}. Make it again")
    return value


def _check_tensor(name: str, shape: list[int], dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"{name} holds coefficients of type {dtype}; they must be floating-point numbers")
    if len(shape) != 4 or shape[1] != 4 or 0 in shape:
        raise ValueError(f"{name} is not usable: its coefficients have shape {tuple(shape)}; they must be (K, 4, H, W)")
    if math.prod(shape) > MAX_VALUES:
        raise ValueError(f"{name} holds {math.prod(shape)} numbers; the limit is {MAX_VALUES}. Make its maps smaller")


def _check_numbers(name: str, coefficients: Tensor) -> None:
    if not bool(torch.isfinite(coefficients).all()):
        raise ValueError(f"{name} is not usable: its coefficients hold NaN or infinity; make it again")
    power = torch.zeros(coefficients.shape[2:], dtype=torch.float64)
    for index, band in enumerate(coefficients):  # Parseval: all but the first stand for their conjugates too
        power += (2 if index else 1) * band.double().square().sum(dim=0)
    farthest = math.sqrt(float(power.max()))
    if farthest > MAX_DISPLACEMENT:
        raise ValueError(
            f"{name} moves a point by {farthest:.3g} times the picture's size; the limit is {MAX_DISPLACEMENT:g}. "
            "Make it again, or scale its coefficients down"
        )
