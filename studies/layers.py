"""Pulled scenes with true later frames: layers beside the photo drawn as one, plain splatting and a backward warp.

    python studies/layers.py --first 720000 --scenes 40 -o runs/layers.json

Procedural scenes are displaced so that the 90th percentile of what moves goes 3, 6 and 10 % of the width, or as far as
the scene itself does at its strongest moment. PSNR is taken near what moves, and in holes: where something stood and
the true frame shows the background.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gid.data.scenes import Scene, SceneConfig, generate_scene
from gid.diffusion.pipeline import load_pipeline
from gid.motion.loops import evaluate, time_basis
from gid.motion.spectrum import SpectralVolume
from gid.rendering.animate import layers_of, motion_range, render_displacements
from gid.rendering.projection import look_up, splatting_metric
from gid.rendering.renderer import Renderer
from gid.rendering.splatting import splat

WIDTH, HEIGHT = 512, 288
LEVELS = {"natural": None, "3 %": 0.03, "6 %": 0.06, "10 %": 0.10}


@dataclass(frozen=True)
class Pulled:
    """One scene at one strength: what is given, and the true frame (H, W, 3) uint8 with where it is judged."""

    photo: Tensor
    volume: SpectralVolume
    field: Tensor
    importance: Tensor
    largest: Tensor
    truth: np.ndarray
    near: np.ndarray
    hole: np.ndarray


def scenes(first: int, count: int) -> list[tuple[Scene, int, float]]:
    """Scenes of which a part moves enough, their strongest moment, and how far they go then, in pixels."""
    found: list[tuple[Scene, int, float]] = []
    seed = first
    while len(found) < count:
        scene = generate_scene(seed, SceneConfig(WIDTH, HEIGHT))
        seed += 1
        if not 0.02 < scene.moving().mean() < 0.75:
            continue
        volume = scene.volume
        basis = time_basis(volume, volume.num_frames, volume.fps, 1.0, loop=False)
        size = torch.tensor([WIDTH, HEIGHT]).view(1, 2, 1, 1)
        lengths = torch.cat([evaluate(row[None], volume.coefficients) for row in basis]).mul(size).norm(dim=1)
        moving = lengths.amax(0) > 0.4
        if int(moving.sum()) < 30:
            continue
        reach = torch.quantile(lengths[:, moving], 0.9, dim=1)
        if float(reach.max()) >= 0.7:
            found.append((scene, int(reach.argmax()), float(reach.max())))
    return found


def pulled(scene: Scene, moment: int, factor: float) -> Pulled:
    """The scene with all its motion times ``factor``, at a moment."""
    volume = scene.volume.with_coefficients(scene.volume.coefficients * factor)
    basis = time_basis(volume, volume.num_frames, volume.fps, 1.0, loop=False)
    importance, largest = motion_range(volume.coefficients, basis, (HEIGHT, WIDTH))
    rig = scene._rig
    matrices, grids = rig.matrices, rig.grids
    try:
        rig.matrices = [matrix * np.float32(factor) for matrix in matrices]
        rig.grids = [grid * np.float32(factor) for grid in grids]
        truth = scene.frame(float(moment))
    finally:
        rig.matrices, rig.grids = matrices, grids
    still = scene._tone(scene._compose([(part.rgba, part.x, part.y) for part in scene._parts if not part.chain]))
    moving = scene.moving()
    changed = np.abs(truth.astype(int) - scene.photo.astype(int)).max(-1) > 8
    near = (cv2.dilate(moving.astype(np.uint8), _disc(4)) > 0) | (cv2.dilate(changed.astype(np.uint8), _disc(2)) > 0)
    hole = moving & (np.abs(truth.astype(int) - still.astype(int)).max(-1) < 12)
    photo = torch.from_numpy(scene.photo).permute(2, 0, 1).float() / 255
    field = evaluate(basis[moment][None], volume.coefficients)
    return Pulled(photo, volume, field, importance, largest, truth, near, hole)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def ways(case: Pulled, renderer: Renderer) -> dict[str, Tensor]:
    """The frame (3, H, W) of every way."""
    given = (case.photo, [case.field], renderer, case.importance, case.largest)
    flow = F.interpolate(case.field, (HEIGHT, WIDTH), mode="bilinear") * torch.tensor([WIDTH, HEIGHT]).view(1, 2, 1, 1)
    rank = F.interpolate(case.importance[None, None], (HEIGHT, WIDTH), mode="bilinear")
    return {
        "layers": next(render_displacements(*given, layers_of(case.photo, case.volume)))[0],
        "the photo as one": next(render_displacements(*given))[0],
        "plain splatting": splat(case.photo[None], flow, splatting_metric(rank, 3.0), "softmax")[0],
        "backward warp": look_up(case.photo[None], flow)[0],
        "the photo, still": case.photo,
    }


def psnr(frame: Tensor, truth: np.ndarray, where: np.ndarray) -> float:
    """In dB, over some pixels."""
    shown = frame.clamp(0, 1).permute(1, 2, 0).numpy() * 255
    return float(-10 * np.log10(max(np.square(shown - truth)[where].mean() / 255**2, 1e-10)))


def main() -> None:
    """Print the table, and keep every number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=720_000)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    renderer = load_pipeline("embedded", "cpu").renderer
    results: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for scene, moment, reach in scenes(arguments.first, arguments.scenes):
        for level, share in LEVELS.items():
            case = pulled(scene, moment, 1.0 if share is None else share * WIDTH / reach)
            for way, frame in ways(case, renderer).items():
                holes = psnr(frame, case.truth, case.hole) if case.hole.sum() > 50 else float("nan")
                results[way][level].append((psnr(frame, case.truth, case.near), holes))
    print("| PSNR near movers / in holes | " + " | ".join(LEVELS) + " |")
    for way, levels in results.items():
        means = [np.nanmean(np.array(values), axis=0) for values in levels.values()]
        print(f"| {way} | " + " | ".join(f"{near:.2f} / {hole:.2f}" for near, hole in means) + " |")
    if arguments.output:
        arguments.output.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
