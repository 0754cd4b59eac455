"""The ablation table on left-out clips, from reports of `gid evaluate`, and what a smaller K loses.

    gid evaluate CLIPS -o OUT --name "K = 16, as trained"               # with the rows that need no other weights
    gid evaluate CLIPS -o OTHER --weights FOLDER --name "without ..."   # once for each other set of weights
    python studies/ablations.py OUT OTHER... [--pairs PAIRS] [--clips VIDEOS]

With --pairs, what a distance between two spectra is worth: that of real clips from each other. With --clips, measured
trajectories of left-out videos are cut after K bands: what is left out, as a share of the displacement and in pixels of
a 512-pixel picture.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from foundation.video import read_video
from gid.data.videos import FPS, NUM_FRAMES, clip_name, clips_in, held_out, load_pairs, scene_of
from gid.evaluation.merging import merged, read_report
from gid.evaluation.spectra import spectra_table
from gid.motion.flow import FlowConfig, measure, to_volume
from gid.motion.spectrum import SpectralVolume
from gid.motion.strength import isotropic

logger = logging.getLogger("benchmarks.ablations")
CUTS = (4, 8, 16, 24)
ALL_BANDS = 75
WIDTH = 512


def lost(volume: SpectralVolume, bands: int) -> tuple[float, float]:
    """What a volume loses when cut after `bands`: rms of the rest over that of all, and its mean in moving px."""
    power = 2 * isotropic(volume.coefficients, volume).abs().square().sum(1)
    whole, rest = power[1:].sum(0), power[bands:].sum(0)
    moving = whole > 0.01 * torch.quantile(whole.flatten(), 0.95)
    share = math.sqrt(float(rest.sum()) / max(float(whole.sum()), 1e-30))
    return share, float(rest.sqrt()[moving].mean()) * WIDTH


def truncation_rows(folder: Path, count: int) -> list[str]:
    """Markdown rows of what each K loses on the first clip of each left-out scene."""
    paths = {clip_name(path): path for path in clips_in(folder)}
    scenes: dict[str, Path] = {}
    for name in sorted(held_out(paths)):
        scenes.setdefault(scene_of(name), paths[name])
    rows = ["| clip | " + " | ".join(f"K = {k}" for k in CUTS) + " |", "|---|" + "---:|" * len(CUTS)]
    found: list[list[tuple[float, float]]] = []
    for scene, path in tqdm(list(scenes.items())[:count], unit="clip"):
        frames, fps = read_video(path)
        trajectories: Tensor | object = measure(frames, 0, True, FlowConfig()).trajectories
        size = (frames.shape[2], frames.shape[1])
        volume = to_volume(trajectories, size, fps, True, min(ALL_BANDS, len(frames) // 2), NUM_FRAMES, FPS)  # type: ignore[arg-type]
        losses = [lost(volume, k) for k in CUTS]
        found.append(losses)
        rows.append(f"| {scene} | " + " | ".join(f"{100 * s:.0f} % ({p:.2f} px)" for s, p in losses) + " |")
    if found:
        means = torch.tensor(found).mean(0)
        rows.append("| **mean** | " + " | ".join(f"{100 * s:.0f} % ({p:.2f} px)" for s, p in means.tolist()) + " |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("reports", type=Path, nargs="+", help="folders of gid evaluate; the first gives the baselines")
    parser.add_argument("--pairs", type=Path, help="folder of measured pairs, for distances between real spectra")
    parser.add_argument("--clips", type=Path, help="folder of the videos themselves, for what a smaller K loses")
    parser.add_argument("--count", type=int, default=5, help="how many scenes of them")
    parser.add_argument("-o", "--output", type=Path, default=Path("studies/ablations.md"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    reports = [read_report(path) for path in options.reports]
    report = merged(reports[0], reports[1:])
    text = [
        "# Ablations on left-out clips",
        "",
        f"{len(report.settings['clips'])} clips ({', '.join(report.settings['clips'])}), {report.settings['pairs']} "
        f"photos, seeds {', '.join(map(str, report.settings['seeds']))}. Written by `python studies/ablations.py`,",
        "which says how. *Spectral distance* is that of the clip's mean spectrum, in dB a band; *after the best",
        "factor* is what remains of it when the clip's motion is scaled as a whole: the difference between them is",
        "strength, the rest the shape of the spectrum.",
        "",
        report.markdown().partition("Rendered loops:")[0].rstrip(),
        "",
        "*Without frequency attention*, where listed, is the same denoiser before that stage, one seed. *Short",
        "training* is a pair of equal short trainings, one seed, which only compare with each other: 150 steps each of",
        "`gid train autoencoder` (with `--no-adaptive` in one) and `gid train denoiser` on 250 scenes and the twelve",
        "training clips, no attention, the shipped photo encoder. Not here: K = 24 as trained: the weights have",
        "16 bands, and so had the model that made the clips. Rows *before smoothing* were taken when samples were",
        "not yet made to hold together (`gid.motion.coherence`; now that is *without coherence*) and faded at 0.05.",
    ]
    if options.pairs:
        text += [
            "",
            "## What a perfect spectrum could reach",
            "",
            "A photo does not tell how hard the wind blew nor in which band: distances between measured clips, by the",
            "same measure. A model that knew all that a photo shows would still be about as far from a clip as a like",
            "scene is.",
            "",
            *spectra_table(load_pairs(options.pairs)),
        ]
    if options.clips:
        text += [
            "",
            "## What a smaller K loses",
            "",
            "Measured trajectories of left-out clips cut after K bands (the constant one included): root mean square",
            f"of what is left out over that of all motion, and its mean where things move, in pixels of {WIDTH}. The",
            "clips were made by a model of 16 bands: what lies above is measurement noise and rendering, not motion.",
            "",
            *truncation_rows(options.clips, options.count),
        ]
    options.output.write_text("\n".join(text) + "\n", encoding="utf-8")
    logger.info("\n".join(text))


if __name__ == "__main__":
    main()
