"""The page about speed, `docs/speed.md`, from the JSON files and plots that the benchmarks left in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import table
from PIL import Image

Record = dict[str, Any]
Points = Sequence[tuple[float, float]]

INTRODUCTION = """# Speed

Measured on {machine}, {threads} threads, torch {torch}. Every ratio is between runs of one process on the same inputs;
times are wall-clock times, the least of several runs. Written by

```sh
python benchmarks/all.py -o benchmark-results --docs docs
```

in which every benchmark is a process of its own that leaves JSON and a plot; each is also a command of its own
(`python benchmarks/NAME.py --help`). For a machine with a CUDA GPU there is `python benchmarks/gpu.py`, which first
checks every kernel against plain torch and then times it beside the bytes it has to move; it has yet to be run on one.
"""

# Beside each name of a result: its heading and what is compared.
SECTIONS = {
    "end_to_end": (
        "A photo to a loop",
        "A fresh process each: imports, weights, motion, frames and H.264 at 512 pixels. `again` is a moved slider.",
    ),
    "shares": (
        "Where the time goes",
        "Stages of two commands as their own `--trace` tells them (`gid --trace animate ...`), by the clock and by the "
        "processor; the machine's load before was {load:.1f}. Then what the imports of `gid animate` are made of: what "
        "diffusers' pipeline and transformers' DINOv2 bring with them is most of it, and is not ours to leave out. A "
        "stronger motion opens more holes, and they are what the decoder mends: 75 frames of the dandelion took 2.4 s "
        "of processor time at the natural strength (0.52) and 3.5 s at 1.5. Threads that wait sleep "
        "(`foundation/threads.py`): while others kept both cores busy, threads that spin took 31 s of processor time "
        "for the ten steps of a motion, sleeping ones 1.2 s.",
    ),
    "app_start": (
        "The app",
        "From `python app.py` to a page and an API that answer, beside an empty page that imports the same libraries.",
    ),
    "splatting": (
        "Softmax splatting",
        "The whole operation at 512x320, from features, flow and metric to averages, beside the same written with "
        "`scatter_add_` on planes and `index_add_` on rows of channels (given in that layout). `difference` is the "
        "largest from ours.",
    ),
    "rendering": (
        "Frames",
        "One frame at 512 pixels: hidden things stay hidden, holes are mended. OpenCV's backward warp of the photo "
        "does neither; it says how fast a warp could be.",
    ),
    "motion": (
        "Motion",
        "The spectral volume of a photo beside the paper's schedule, 250 steps of DDIM with the same networks.",
    ),
    "poke": (
        "Pokes",
        "In chromium without a GPU (SwiftShader); beside it numpy and OpenCV for the same frame, and scipy's adaptive "
        "solver for the same step of the physics.",
    ),
    "training_step": (
        "Training",
        "Forward, backward and update. The renderer's peer splats with plain torch; the denoiser's is its own forward "
        "pass, of which a step costs about three where nothing is wasted.",
    ),
    "rahf_small": (
        "Feedback, embedded size",
        "A picture of 1024 pixels and its prompt to everything, or to scores alone.",
    ),
    "rahf_growth": ("Feedback on several pictures at once", "The embedded size on pictures of 512 pixels."),
    "rahf_public": (
        "Feedback, released size",
        "{parameters:,} parameters, {whole:.2f} TFLOP for everything and {scores:.2f} for the scores alone, beside a "
        "straightforward float32 forward of the described model. The matrix peak is that of a product of two square "
        "matrices, measured between the runs.",
    ),
}


def write(results: Path, docs: Path, machine: str | None = None, note: str = "") -> Path:
    """Write ``docs/speed.md`` and its pictures, ``docs/speed/*.webp``, from the results that are there.

    Raises ValueError if none is.
    """
    found = {name: json.loads((results / f"{name}.json").read_text()) for name in SECTIONS if _is_there(results, name)}
    if not found:
        raise ValueError(f"{results} holds no result; run benchmarks/all.py without --only first")
    first = dict(next(iter(found.values()))["machine"])
    first["machine"] = machine or first["processor"]
    parts = [INTRODUCTION.format(**first), *([note] if note else []), _asked(found)]
    folder = docs / "speed"
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in found.items():
        title, text = SECTIONS[name]
        if name == "rahf_public":
            text = text.format(
                parameters=record["parameters"], whole=record["TFLOP whole"], scores=record["TFLOP scores"]
            )
        if name == "shares":
            text = text.format(load=record["load"])
        parts.append(f"## {title}\n\n{text}\n\n" + "\n\n".join(table(rows) for rows in _tables(name, record) if rows))
        picture = results / f"{name}.png"
        if picture.is_file():
            Image.open(picture).convert("RGB").save(folder / f"{name}.webp", lossless=True)
            parts.append(f"![{title}](speed/{name}.webp)")
    path = docs / "speed.md"
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    return path


def _is_there(results: Path, name: str) -> bool:
    return (results / f"{name}.json").is_file()


def _asked(found: dict[str, Record]) -> str:
    """What was asked for before it was built, and what came of it."""
    rows = [row for name, record in found.items() for row in TARGETS.get(name, _none)(record)]
    rows += [row for name, record in found.items() for row in _growths(name, record)]
    return "## What it should reach\n\n" + table(rows)


def _none(_: Record) -> list[Record]:
    return []


def _row(what: str, wanted: str, value: float, unit: str, reached: bool) -> Record:
    return {"what": what, "wanted": wanted, "found": f"{value:.3g}{unit}", "reached": "yes" if reached else "no"}


def _end_to_end(record: Record) -> list[Record]:
    visits = {row["frames"]: row for row in record["visits"]}
    rows = []
    if 150 in visits:
        for name, most in (("first loop", 15), ("again, stronger", 6)):
            seconds = visits[150][name]
            rows.append(_row(f"150 frames at 512 pixels, {name}", f"{most} s", seconds, " s", seconds <= most))
    peaks = [row["peak_mb"] / 1e3 for row in visits.values()]
    rows.append(_row("peak memory of that process", "2 GB", max(peaks), " GB", max(peaks) <= 2))
    shortest, longest = min(visits), max(visits)
    grown = visits[longest]["peak_mb"] / visits[shortest]["peak_mb"]
    rows.append(_row(f"peak memory, {longest} frames over {shortest}", "flat (1.1)", grown, "", grown <= 1.1))
    return rows


def _app_start(record: Record) -> list[Record]:
    seconds = record["rows"][0]["seconds"]
    return [_row("`python app.py` to a page that answers", "6 s", seconds, " s", seconds <= 6)]


def _shares(record: Record) -> list[Record]:
    seconds = record["totals"]["gid animate"]
    return [_row("`gid animate`, from the command to a loop of 150 frames", "8 s", seconds, " s", seconds <= 8)]


def _splatting(record: Record) -> list[Record]:
    rows = []
    for row in record["wanted"]:
        wanted = row["wanted"] if isinstance(row["wanted"], str) else f"at most {row['wanted']:g}"
        rows.append(_row(f"splatting, {row['case']}", wanted, row["found"], "", row["reached"]))
    return rows


def _rahf_public(record: Record) -> list[Record]:
    by = {row["what"]: row for row in record["rows"]}
    rows = []
    for row in record["wanted"]:
        name, wanted = row["what"], row["wanted"]
        if name not in by:  # "bfloat16: scores are 33% of the whole"
            kind, share = name.split(": scores are ")
            value = float(share.split("%")[0]) / 100
            rows.append(_row(f"feedback, {kind}, scores' part of the whole", wanted, value, "", row["reached"]))
        elif "times" in wanted:
            rows.append(_row(f"feedback, {name}", wanted, by[name]["times faster"], " times", row["reached"]))
        else:
            kind, _, most = wanted.rpartition(" ")
            rows.append(_row(f"feedback, {name}, {kind}", f"at most {most}", by[name][kind], "", row["reached"]))
    return rows


TARGETS: dict[str, Callable[[Record], list[Record]]] = {
    "end_to_end": _end_to_end,
    "shares": _shares,
    "app_start": _app_start,
    "splatting": _splatting,
    "rahf_public": _rahf_public,
}


def _growths(name: str, record: Record) -> list[Record]:
    """Whether what should be linear is."""
    if name == "rendering":
        return [
            _linear(
                f"photo to file over {kind}", [(r[kind], r["seconds"]) for r in record["growth"] if r["over"] == kind]
            )
            for kind in ("pixels", "frames")
        ]
    if name == "splatting":
        ours = [row for row in record["growth"] if row.get("way") == "ours"]
        return [
            _linear(f"splatting over pixels, {way}", [(row["pixels"], row[f"{way}_ms"]) for row in ours])
            for way in ("forward", "backward")
        ]
    return []


def _linear(what: str, points: Points) -> Record:
    """How much more the largest setting costs than the smallest, over how much larger it is."""
    ordered = sorted(points)
    (x0, y0), (x1, y1) = ordered[0], ordered[-1]
    times = (y1 / y0) / (x1 / x0)
    return _row(
        f"growth: {what}, {x1 / x0:.3g} times as much", "at most in proportion (1.15)", times, "", times <= 1.15
    )


def _tables(name: str, record: Record) -> list[list[Record]]:
    """The tables of a section."""
    if name == "end_to_end":
        return [record["visits"]]
    if name == "shares":
        return [record["rows"], record["imports"]]
    if name == "rendering":
        errors = [{"quantity": key, "value": value} for key, value in record["errors"].items()]
        return [record["frame"], errors, record["growth"]]
    if name == "motion":
        growth = record["growth"]
        error = {
            "quantity": "motion: relative difference from float32",
            "value": record["relative_difference_from_float32"],
        }
        return [record["schedules"], [error], [row for row in growth if "peak_mb" in row]]
    if name == "poke":
        return [record["browser"], record["answers"]]
    return [record["rows"]]
