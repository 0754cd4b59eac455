"""The motion that weights give to photographs no one has trained on: a sheet, a table, one criterion.

    python studies/generalisation.py PHOTOS -o OUT [--weights embedded] [--docs docs]

PHOTOS is a folder of photographs with a manifest.csv (file, moves yes/no, category, author, licence, package). On those
that should not move, mean motion must stay under a fifth of that on those that should. Motion is the root mean square
over time of each pixel's displacement, in thousandths of the picture's side, at the strength the app chooses (auto).

Written to OUT: table.md, table.json, sheet.webp, and with --docs also DOCS/generalisation.md and .webp. What a look at
the sheet shows is kept in a file of notes (photo, note) beside the document, for no number names a failure so well.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from foundation.pictures import load_photo
from gid.diffusion.loading import resolve_weights
from gid.diffusion.pipeline import GIDPipeline, load_pipeline
from gid.evaluation.remembered import Remembered, fingerprint
from gid.evaluation.sheets import contact_sheet, heatmap, labelled, sliced
from gid.motion.spectrum import SpectralVolume
from gid.motion.strength import automatic_strength
from gid.rendering.animate import animate

logger = logging.getLogger("benchmarks.generalisation")
LIMIT = 0.2
SIDE = 256  # of rendered frames: enough for a slice
FRAMES = 50
TILE = (168, 112)
BRIGHT = 6.0  # thousandths of the side shown brightest in every map, so that photographs compare
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Photograph:
    """One line of the manifest."""

    file: str
    moves: bool
    category: str
    author: str
    licence: str
    package: str

    @property
    def name(self) -> str:
        return Path(self.file).stem


@dataclass(frozen=True)
class Result:
    """Motion in thousandths of the side: mean over the picture as predicted and as shown, and the share that moves."""

    name: str
    moves: bool
    category: str
    predicted: float
    strength: float
    shown: float
    share: float


def read_manifest(folder: Path) -> list[Photograph]:
    """The photographs of a folder. Raises ValueError if its manifest or a photograph is missing."""
    path = folder / "manifest.csv"
    if not path.is_file():
        raise ValueError(f"{path} is missing; it lists file, moves, category, author, licence and package")
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    keys = ("file", "category", "author", "licence", "package")
    photographs = [Photograph(moves=row["moves"] == "yes", **{key: row[key] for key in keys}) for row in rows]
    missing = [p.file for p in photographs if not (folder / p.file).is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}")
    return photographs


def measure(photograph: Photograph, volume: SpectralVolume) -> Result:
    """Figures of one predicted motion."""
    energy = 1000 * volume.motion_energy()
    strength = automatic_strength(volume)
    return Result(
        photograph.name,
        photograph.moves,
        photograph.category,
        float(energy.mean()),
        strength,
        float(energy.mean()) * strength,
        float((strength * energy > 1).float().mean()),
    )


def tiles(
    photograph: Photograph, photo: Tensor, volume: SpectralVolume, result: Result, pipeline: GIDPipeline
) -> list[Picture]:
    """Photo, map of motion, X-t slice of the rendered loop (time downwards)."""
    energy = volume.motion_energy() * (1000 * result.strength)
    frames = torch.cat(
        list(
            animate(
                photo,
                volume,
                pipeline.renderer,
                num_frames=FRAMES,
                strength=result.strength,
                speed=150 / FRAMES,
            )
        )
    )
    marked, line = sliced(photo, energy, frames)
    title = photograph.name if photograph.moves else f"{photograph.name} (still)"
    chosen = [
        labelled(fitted(marked), title),
        labelled(fitted(heatmap(energy, photo, BRIGHT)), f"{result.shown:.2f}  x{result.strength:.2f}"),
        fitted(line, crop=False),
    ]
    return [framed(tile, verdict(result) == "") for tile in chosen]


def fitted(picture: Picture, crop: bool = True) -> Picture:
    """A picture at the tile's size: its centre, or squeezed."""
    width, height = TILE
    if crop:
        scale = max(width / picture.shape[1], height / picture.shape[0])
        size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        top, left = (size[1] - height) // 2, (size[0] - width) // 2
        return picture[top : top + height, left : left + width]
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def framed(picture: Picture, good: bool) -> Picture:
    """A copy with a red edge where the criterion fails."""
    picture = picture.copy()
    if not good:
        cv2.rectangle(picture, (0, 0), (picture.shape[1] - 1, picture.shape[0] - 1), (230, 40, 40), 2)
    return picture


_moving_mean = 0.0


def verdict(result: Result) -> str:
    """What the numbers alone call a failure, beside the mean motion of what should move; empty if none."""
    if not result.moves and result.shown > LIMIT * _moving_mean:
        return "moves"
    return "hardly moves" if result.moves and result.shown < LIMIT * _moving_mean else ""


def criterion(results: Sequence[Result], shown: bool = True) -> tuple[float, float, float]:
    """Mean motion of what should move, of what should not, and their ratio."""
    values = {
        kind: statistics.fmean([r.shown if shown else r.predicted for r in results if r.moves == kind])
        for kind in (True, False)
    }
    return values[True], values[False], values[False] / values[True] if values[True] else float("inf")


def document(
    results: Sequence[Result], photographs: Sequence[Photograph], notes: dict[str, str], weights: str, picture: str
) -> str:
    """The document: criterion, sheet, table with notes, credits."""
    moving, still, ratio = criterion(results)
    _, _, as_predicted = criterion(results, shown=False)
    count = sum(r.moves for r in results)
    lines = [
        "# Photographs the model has never seen",
        "",
        f"{count} photographs of things that move and {len(results) - count} of things that do not, none of them in "
        f"training; weights `{weights}`, seed 0, automatic strength. Made by",
        "`python studies/generalisation.py PHOTOS -o OUT --docs docs`; the photographs themselves stay outside the",
        "repository.",
        "",
        f"**Mean motion: {moving:.2f} thousandths of the side where things should move, {still:.2f} where they should "
        f"not: a ratio of {ratio:.2f}** (wanted: under {LIMIT}; at strength 1 it is {as_predicted:.2f}).",
        "",
        f"![Photograph, map of motion, X-t slice]({picture})",
        "",
        "Each photograph with the line of its slice in red; its map of motion (all on one scale: yellow is "
        f"{BRIGHT:g} thousandths of the side) with mean motion and chosen strength; and that line of the rendered loop "
        "over time, downwards. Red edges: still things that move more than a fifth of the mean of moving ones, moving "
        "things that move less than that.",
        "",
        "| photograph | kind | mean motion | at strength 1 | strength | share that moves | by the numbers | by eye |",
        "|---|---|---:|---:|---:|---:|---|---|",
    ]
    for r in results:
        kind = r.category if r.moves else f"{r.category}, still"
        lines.append(
            f"| {r.name} | {kind} | {r.shown:.2f} | {r.predicted:.2f} | {r.strength:.2f} | {r.share:.2f} "
            f"| {verdict(r)} | {notes.get(r.name, '')} |"
        )
    lines += [
        "",
        "## Credits",
        "",
        "The sheet contains small versions of these photographs; as it joins works under CC BY-SA, it is itself under",
        "CC BY-SA 4.0, unlike the rest of the repository.",
        "",
        *(f"- {p.name}: {p.author}, {p.licence} (package `{p.package}`)" for p in photographs),
    ]
    return "\n".join(lines) + "\n"


def read_notes(path: Path) -> dict[str, str]:
    """Notes of a person who looked: lines of photo,note."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as lines:
        return {row["photo"]: row["note"] for row in csv.DictReader(lines)}


def sample(
    folder: Path, photographs: Sequence[Photograph], pipeline: GIDPipeline, kept: Path, weights: str
) -> list[SpectralVolume]:
    """Predicted motion of every photograph, seed 0; kept, by weights, so that a run may be interrupted."""
    key = fingerprint(resolve_weights(weights), "photographs")
    model = Remembered(lambda photo, seed: pipeline(photo, seed=seed).volumes[0], kept, key)
    volumes = []
    for photograph in tqdm(photographs, desc="predicting motion", unit="photo"):
        photo = load_photo(folder / photograph.file, max_side=512)
        volumes.append(model(photo, seed=0).volumes[0])
    return volumes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--docs", type=Path, help="also write generalisation.md and .webp here")
    parser.add_argument("--notes", type=Path, default=Path("docs/generalisation_notes.csv"))
    parser.add_argument("--words-only", action="store_true", help="new notes beside the numbers of the last run")
    parser.add_argument("--no-sheet", action="store_true", help="numbers only: no rendering")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    photographs = sorted(read_manifest(options.photos), key=lambda p: (not p.moves, p.category, p.name))
    global _moving_mean
    notes = read_notes(options.notes)
    if options.words_only:
        stored = json.loads((options.out / "table.json").read_text(encoding="utf-8"))
        results = [Result(**one) for one in stored["results"]]
        _moving_mean = criterion(results)[0]
        text = document(results, photographs, notes, options.weights, "generalisation.webp")
        ((options.docs or options.out) / "generalisation.md").write_text(text, encoding="utf-8")
        return
    pipeline = load_pipeline(options.weights)
    volumes = sample(options.photos, photographs, pipeline, options.out / "motions", options.weights)
    results = [measure(p, v) for p, v in zip(photographs, volumes, strict=True)]
    _moving_mean = criterion(results)[0]
    options.out.mkdir(parents=True, exist_ok=True)
    text = document(results, photographs, notes, options.weights, "generalisation.webp")
    (options.out / "table.md").write_text(text, encoding="utf-8")
    content = {"criterion": criterion(results), "results": [asdict(r) for r in results]}
    (options.out / "table.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    logger.info(text.partition("## Credits")[0])
    if options.no_sheet:
        return
    pictures: list[Picture] = []
    jobs = list(zip(photographs, volumes, results, strict=True))
    for photograph, volume, result in tqdm(jobs, desc="rendering", unit="loop"):
        photo = load_photo(options.photos / photograph.file, max_side=SIDE)
        pictures += tiles(photograph, photo, volume, result, pipeline)
    sheet = Image.fromarray(contact_sheet(pictures, columns=12, gap=3))
    sheet.save(options.out / "sheet.webp", quality=82)
    if options.docs:
        (options.docs / "generalisation.md").write_text(text, encoding="utf-8")
        sheet.save(options.docs / "generalisation.webp", quality=82)


if __name__ == "__main__":
    main()
