"""How far motion holds together within objects: sampled, smoothed and measured, as a table and as pictures.

    python studies/coherence.py PAIRS [--photos examples] [--document studies/coherence.md]

PAIRS is a folder of measured pairs (`gid data clips`). For every strength of `gid.motion.coherence`, the agreement of
pixels some way apart is compared with the measured one, on the clips that were trained on and on those that were left
out. The picture shows the displacement of photographs at five moments, its direction as hue and its length as
brightness, without smoothing and with it: one colour is one body. The second picture shows the same photographs pulled
at, by the shapes as sampled for swaying and as a hand meets them.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from foundation.pictures import load_photo, to_uint8
from gid.data.videos import Pair, held_out, load_pairs
from gid.diffusion.pipeline import GIDPipeline, load_pipeline
from gid.evaluation.metrics import AGREEMENT_DISTANCES, agreement_error, motion_agreement, motion_energy_correlation
from gid.motion.coherence import smooth_for_dragging
from gid.motion.spectrum import SpectralVolume
from gid.poking.modes import ModalModel, limit_displacement
from gid.rendering.animate import render_displacements

STRENGTHS = (0.0, 4.0, 16.0, 64.0, 256.0)
MOMENTS = (15, 30, 45, 60, 75)
PULL = (0.1, -0.02)  # of the long side, at the point that moves most
Picture = NDArray[np.uint8]


def sampled(pipeline: GIDPipeline, photo: Tensor, seed: int, strength: float) -> SpectralVolume:
    """Motion of a photo (3, H, W), held together as strongly as told; nothing is held still."""
    pipeline.register_to_config(coherence=strength)
    return pipeline(photo, seed=seed, hold_still=False).volumes[0]


def table(pipeline: GIDPipeline, pairs: Sequence[Pair]) -> list[str]:
    """Markdown: agreement at each distance, its error, and the correlation of motion energy, by strength."""
    left_out = held_out({pair.clip for pair in pairs})
    groups = {
        "trained on": [p for p in pairs if p.clip not in left_out],
        "left out": [p for p in pairs if p.clip in left_out],
    }
    head = ["clips", "strength", *(f"{distance:.3f}" for distance in AGREEMENT_DISTANCES), "error", "correlation"]
    rows = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for group, chosen in groups.items():
        volumes: dict[str, list[SpectralVolume]] = defaultdict(list)
        for pair in tqdm(chosen, desc=group, unit="photo"):
            photo = pair.photo.float() / 255
            for strength in STRENGTHS:
                volumes[f"{strength:g}"].append(sampled(pipeline, photo, 0, strength))
            volumes["measured"].append(pair.volume)
        for name, each in volumes.items():
            by_distance = zip(*(motion_agreement(volume) for volume in each), strict=True)
            cells = [f"{mean(values):.2f}" for values in by_distance]
            error = mean(agreement_error(v, p.volume) for v, p in zip(each, chosen, strict=True))
            energies = ((v.motion_energy(), p.volume.motion_energy()) for v, p in zip(each, chosen, strict=True))
            correlation = mean(motion_energy_correlation(*pair) for pair in energies)
            rows.append("| " + " | ".join([group, name, *cells, f"{error:.3f}", f"{correlation:.2f}"]) + " |")
    return rows


def mean(values: object) -> float:
    """Of what is a number."""
    numbers = [value for value in values if not math.isnan(value)]  # type: ignore[attr-defined]
    return statistics.fmean(numbers) if numbers else math.nan


def directions(volume: SpectralVolume, width: int, height: int) -> list[Picture]:
    """Displacement at five moments as pictures: hue is direction, brightness length."""
    moved = volume.trajectories()[list(MOMENTS)] * torch.tensor([width, height]).view(1, 2, 1, 1)
    x, y = (part.numpy() for part in moved.unbind(1))
    length = np.hypot(x, y)
    hue = (np.arctan2(y, x) / (2 * np.pi)) % 1
    value = np.clip(length / max(float(np.quantile(length, 0.995)), 1e-9), 0, 1)
    colours = hsv_to_rgb(np.stack([hue, np.ones_like(hue), value], -1))
    return [
        np.asarray(Image.fromarray((255 * picture).astype(np.uint8)).resize((width, height))) for picture in colours
    ]


def sheet(pipeline: GIDPipeline, photos: Sequence[Path], side: int = 224) -> Picture:
    """Two lines a photograph: its displacements as sampled, and held together."""
    strength = float(pipeline.config.coherence)
    lines = []
    for path in photos:
        photo = load_photo(path, max_side=512)
        small = load_photo(path, max_side=side)
        height, width = small.shape[1:]
        for chosen in (0.0, strength):
            tiles = [to_uint8(small[None])[0], *directions(sampled(pipeline, photo, 1, chosen), width, height)]
            line = np.concatenate(tiles, 1)
            lines.append(np.pad(line, ((0, 3), (0, 6 * side - line.shape[1]), (0, 0)), constant_values=255))
    return np.concatenate(lines)


def pulled(pipeline: GIDPipeline, photo: Tensor, volume: SpectralVolume) -> Picture:
    """The photo (3, H, W) while its liveliest point is held, pulled aside."""
    model = ModalModel.from_volume(volume)
    gains = np.ones(len(model.shapes))
    energy = model.envelope(gains)
    row, column = divmod(int(energy.argmax()), energy.shape[1])
    at = np.array([[(column + 0.5) / energy.shape[1], (row + 0.5) / energy.shape[0]]])
    q = model.displace(at, np.array([PULL]), gains, gains)
    moved = limit_displacement(np.einsum("j,jchw->chw", q, model.shapes).real)
    field = torch.from_numpy(moved / np.array(model.aspect)[:, None, None]).float()
    length = torch.hypot(field[0] * photo.shape[2], field[1] * photo.shape[1])
    return to_uint8(next(iter(render_displacements(photo, [field[None]], pipeline.renderer, length))))[0]


def pulls(pipeline: GIDPipeline, photos: Sequence[Path]) -> Picture:
    """A line a photograph: itself, pulled by its swaying shapes, and by those that a hand meets."""
    lines = []
    for path in photos:
        photo = load_photo(path, max_side=384)
        volume = pipeline(load_photo(path, max_side=512), seed=0, hold_still=False).volumes[0]
        shapes = (volume, smooth_for_dragging(volume, photo))
        lines.append(np.concatenate([to_uint8(photo[None])[0], *(pulled(pipeline, photo, v) for v in shapes)], 1))
    width = max(line.shape[1] for line in lines)
    return np.concatenate([np.pad(line, ((0, 3), (0, width - line.shape[1]), (0, 0))) for line in lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--photos", type=Path, default=Path("examples"))
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--document", type=Path, default=Path("studies/coherence.md"))
    options = parser.parse_args()
    pipeline = load_pipeline(options.weights)
    shipped = float(pipeline.config.coherence)
    photos = sorted(options.photos.glob("*.jpg"))
    picture = options.document.with_suffix(".webp")
    Image.fromarray(sheet(pipeline, photos)).save(picture, quality=80)
    pull = picture.with_name(f"{picture.stem}_pull.webp")
    Image.fromarray(pulls(pipeline, photos)).save(pull, quality=80)
    text = [
        "# Motion that holds together",
        "",
        "Agreement of pixels that both move, by their distance as a share of the width: 1 as one body, 0 unrelated.",
        "*Error* is the mean absolute difference from the measured clip, *correlation* that of motion energy, which",
        f"the envelope decides. Weights `{options.weights}`, one seed; strength {shipped:g} is in use, chosen on the",
        "clips trained on. Made by `python studies/coherence.py`, which says how.",
        "",
        *table(pipeline, load_pairs(options.pairs)),
        "",
        f"![Displacements as sampled and held together]({picture.name})",
        "",
        "Two lines a photograph: as sampled, and held together. Hue is direction, brightness length, at five moments.",
        "",
        f"![Photographs pulled at their liveliest point]({pull.name})",
        "",
        "A photograph, pulled at its liveliest point by a tenth of its long side: by the shapes as they sway, and as a",
        "hand meets them (`gid.motion.coherence.smooth_for_dragging`).",
    ]
    options.document.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
