"""Do edges of motion sit on edges of objects, and what is seen where things part? One table.

    python studies/edges.py PAIRS_OR_CLIPS [--scenes FOLDER] [--weights embedded] [-o studies/edges.md]

Photos: the model's motion of left-out clips, brought to the photo's size by bilinear interpolation and along the
photo's edges (`gid.motion.upsampling`); mean distance in pixels from edges of the motion to the nearest of the photo.
Scenes: exact motion of procedural scenes made coarse (a quarter of the size) and brought back by either; its edges
against those of the exact motion, and error of the motion itself; then true later frames against the rendered ones
where something comes into view (pixels that no pixel of the photo lands on), beside stretching the photo over them.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from gid.data.videos import held_out, measured_pairs
from gid.diffusion.pipeline import load_pipeline
from gid.evaluation.edges import chance_distance, edge_distance, image_edges, motion_edges
from gid.motion.upsampling import PhotoGuide
from gid.rendering.projection import look_up, project
from gid.rendering.renderer import Renderer, compose
from gid.training.renderer_data import Pair, read_pairs, write_pairs

logger = logging.getLogger("benchmarks.edges")
FIRST_SEED = 900_000
COARSE = 4
UNCOVERED = 0.25  # pixels with less of the photo on them have come into view


def upsampled(photo: Tensor, maps: Tensor) -> dict[str, Tensor]:
    """Maps (C, h, w) at the photo's size (3, H, W), both ways."""
    guide = PhotoGuide(photo[None], maps.shape[-2], maps.shape[-1])
    smooth = F.interpolate(maps[None], photo.shape[-2:], mode="bilinear", align_corners=False)
    return {"bilinear": smooth[0], "along the photo's edges": guide(maps[None])[0]}


def peak_motion(coefficients: Tensor) -> Tensor:
    """(2, h, w) root mean square over time of a volume's displacement in x and y."""
    return (2 * coefficients[1:].abs().square().sum(0)).sqrt()


def photo_rows(clips: Path, weights: str) -> dict[str, float]:
    """Mean distance of motion edges to photo edges, in pixels, of each way and by chance."""
    pairs = measured_pairs(clips, clips / "pairs", 1)
    chosen = held_out(pair.clip for pair in pairs)
    first = {pair.clip: pair for pair in reversed(pairs) if pair.clip in chosen}
    pipeline = load_pipeline(weights)
    found = defaultdict(list)
    for pair in tqdm(first.values(), unit="photo"):
        photo = pair.photo.float() / 255
        edges = image_edges(photo)
        volume = pipeline(photo, seed=0).volumes[0]
        for name, motion in upsampled(photo, peak_motion(volume.coefficients)).items():
            found[name].append(edge_distance(motion_edges(motion), edges))
        found["anywhere (chance)"].append(chance_distance(edges))
    return {name: statistics.fmean(values) for name, values in found.items()}


def scene_rows(pairs: list[Pair]) -> dict[str, tuple[float, float]]:
    """Of each way: distance of its motion's edges to those of the exact motion, and rms error near those, in pixels."""
    distances, errors = defaultdict(list), defaultdict(list)
    for pair in pairs:
        height, width = pair.flow.shape[-2:]
        exact = motion_edges(pair.flow)
        if not exact.any():
            continue
        near = F.max_pool2d(torch.from_numpy(exact).float()[None], 9, 1, 4)[0] > 0
        coarse = F.interpolate(pair.flow[None], (height // COARSE, width // COARSE), mode="area")[0]
        for name, motion in upsampled(pair.photo, coarse).items():
            distances[name].append(edge_distance(motion_edges(motion), exact))
            errors[name].append(float((motion - pair.flow)[:, near].square().sum(0).mean().sqrt()))
    return {name: (statistics.fmean(distances[name]), statistics.fmean(errors[name])) for name in distances}


@torch.no_grad()
def disocclusion_rows(pairs: list[Pair], trained: Renderer) -> tuple[dict[str, float], float]:
    """PSNR in dB over pixels that have come into view, of each way; and the share of such pixels."""
    error: dict[str, float] = defaultdict(float)
    count, total = 0.0, 0
    for pair in tqdm(pairs, unit="frame"):
        photo, target = pair.photo[None], pair.target[None]
        flow, importance = pair.flow[None], pair.importance[None]
        projection = project(flow, importance)
        fresh = (projection.landed < UNCOVERED).float()
        count += float(fresh.sum())
        total += fresh.numel()
        draft = compose(photo, projection)
        pictures = {
            "the photo stretched (backward warp)": look_up(photo, flow),
            "renderer, its network left out": draft.picture,
            "renderer": trained.mend(draft, trained.encode(photo), flow, importance),
        }
        for name, picture in pictures.items():
            error[name] += float(((picture - target).square().mean(1, keepdim=True) * fresh).sum())
    decibels = {name: -10 * float(torch.log10(torch.tensor(value / max(count, 1)))) for name, value in error.items()}
    return decibels, count / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--renderer", type=Path, default=Path("gid/weights/renderer"))
    parser.add_argument("--scenes", type=Path, default=Path("runs/renderer-held"), help="where scenes are kept")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path, default=Path("studies/edges.md"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_pairs(options.scenes, range(FIRST_SEED, FIRST_SEED + options.count))
    paths = sorted(options.scenes.glob("*.npz"))[: options.count]
    pairs = [pair for path in paths for pair in read_pairs(path)]
    scenes = scene_rows(pairs)
    fresh, share = disocclusion_rows(pairs, Renderer.from_pretrained(options.renderer).eval())
    photos = photo_rows(options.clips, options.weights)
    text = [
        "# Edges of motion, and what comes into view",
        "",
        f"Left-out photos with weights `{options.weights}`; {len(pairs)} frames of {len(paths)} left-out procedural",
        f"scenes (seeds from {FIRST_SEED}), exact motion. Made by `python studies/edges.py CLIPS`, which explains",
        "the measures.",
        "",
        "| motion upsampled | photos: to the photo's edges, px | scenes: to the true motion's edges, px "
        "| scenes: error near those, px |",
        "|---|---:|---:|---:|",
    ]
    for name, distance in photos.items():
        near = "| – | – |" if name not in scenes else f"| {scenes[name][0]:.2f} | {scenes[name][1]:.3f} |"
        text.append(f"| {name} | {distance:.2f} {near}")
    text += [
        "",
        f"What comes into view is {100 * share:.2f} % of the pixels. PSNR there:",
        "",
        "| way | dB |",
        "|---|---:|",
        *(f"| {name} | {value:.2f} |" for name, value in fresh.items()),
    ]
    options.output.write_text("\n".join(text) + "\n", encoding="utf-8")
    logger.info("\n".join(text))


if __name__ == "__main__":
    main()
