"""Where unseen scenes move, over all clips: envelope heads trained in folds by scene, each judged on what it never saw.

    python studies/folds.py PAIRS --data SCENES --shares 0.5 --data CLIPS --shares 0.5 -o OUT [--steps 150]

PAIRS is a folder of measured pairs (`gid data clips`); the data are prepared sets (`gid data prepare`, the clips with
`--include-held-out`). Scenes in alphabetical order are dealt to the folds in turn, with all their clips. Every fold is
one run of `gid train envelope` with the same options, fixed beforehand, without its scenes; a run that was interrupted
goes on. The fixed split that the embedded weights were scored on is one split of five scenes; this says how much of
its score is the choice of scenes.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gid.data.videos import Pair, load_pairs, scene_of
from gid.diffusion.photo_encoder import PhotoEncoder, envelope_from_log
from gid.evaluation import metrics
from gid.evaluation.baselines import baseline_energy
from gid.motion.strength import isotropic
from gid.training.envelope import EnvelopeTrainingConfig, train_envelope

logger = logging.getLogger("benchmarks.folds")
BASELINES = ("edge strength", "greenness")
MOTION_SIZE = (64, 112)


def folds_of(clips: Iterable[str], count: int) -> list[set[str]]:
    """Clips left out by each fold: scenes in alphabetical order, dealt in turn.

    Raises:
        ValueError: fewer than 2 folds, or more folds than scenes.
    """
    clips = set(clips)
    scenes = sorted({scene_of(clip) for clip in clips})
    if not 2 <= count <= len(scenes):
        raise ValueError(f"{count} folds asked for; use 2 to {len(scenes)}, the number of scenes")
    return [{clip for clip in clips if scene_of(clip) in set(scenes[i::count])} for i in range(count)]


def measured_energy(pair: Pair) -> Tensor:
    """(h, w) what the envelope head predicts: rms displacement, a fraction of sqrt(width * height)."""
    moving = isotropic(pair.volume.coefficients[1:], pair.volume)
    return (2 * moving.abs().square().sum(dim=(0, 1))).sqrt()


def judged(pairs: Sequence[Pair], predict: Callable[[Tensor], Tensor]) -> dict[str, tuple[float, float, float]]:
    """By clip: mean correlation, leakage and strength over its start frames."""
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for pair in pairs:
        truth, energy = measured_energy(pair), predict(pair.photo.float() / 255)
        found[pair.clip].append(
            (
                metrics.motion_energy_correlation(energy, truth),
                metrics.background_leakage(energy, truth),
                float(energy.mean() / truth.mean()),
            )
        )
    return {clip: _means(each) for clip, each in found.items()}


def _means(rows: Iterable[Sequence[float]]) -> tuple[float, float, float]:
    columns = [[value for value in column if not math.isnan(value)] for column in zip(*rows, strict=True)]
    first, second, third = (statistics.fmean(column) if column else math.nan for column in columns)
    return first, second, third


def heads_of(folders: Sequence[Path]) -> Callable[[Tensor], Tensor]:
    """The envelope that the heads of training runs predict, their logs averaged as in the embedded weights."""
    encoders = [PhotoEncoder.from_pretrained(folder / "photo_encoder").eval() for folder in folders]

    @torch.inference_mode()
    def predict(photo: Tensor) -> Tensor:
        logs = [log for log in (encoder(photo[None]).log_envelope for encoder in encoders) if log is not None]
        return envelope_from_log(torch.stack(logs).mean(0))[0, 0]

    return predict


def with_edges(predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An envelope times the root of edge strength: what has no texture cannot be seen to move."""
    return lambda photo: predict(photo) * baseline_energy("edge strength", photo, MOTION_SIZE).sqrt()


def table(rows: dict[str, dict[str, tuple[float, float, float]]], folds: Sequence[set[str]]) -> list[str]:
    """Markdown: correlation of every clip by every row, then means and medians over clips and over scenes."""
    names, clips = list(rows), sorted(next(iter(rows.values())))
    where = {clip: index for index, fold in enumerate(folds) for clip in fold}
    lines = [
        "| clip | fold | " + " | ".join(names) + " | leakage | strength |",
        "|---|---:|" + "---:|" * (len(names) + 2),
    ]
    for clip in clips:
        cells = [f"{rows[name][clip][0]:.2f}" for name in names]
        _, leakage, strength = rows[names[0]][clip]
        lines.append(f"| {clip} | {where[clip] + 1} | " + " | ".join(cells) + f" | {leakage:.2f} | {strength:.2f} |")
    lines += [
        "",
        "| | correlation, clips | correlation, scenes | leakage, median of scenes |",
        "|---|---:|---:|---:|",
    ]
    for name in names:
        scenes: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for clip, values in rows[name].items():
            scenes[scene_of(clip)].append(values)
        by_scene = [_means(values) for values in scenes.values()]
        leakages = [leakage for _, leakage, _ in by_scene if not math.isnan(leakage)]
        lines.append(
            f"| {name} | {statistics.fmean(v[0] for v in rows[name].values()):.2f} | "
            f"{statistics.fmean(v[0] for v in by_scene):.2f} | "
            f"{statistics.median(leakages):.2f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--shares", type=float, action="append", required=True)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--heads", type=int, default=1, help="runs a fold, with seeds 0, 1, ...")
    parser.add_argument("--adapt-statistics", action="store_true")
    parser.add_argument("--document", type=Path, default=Path("studies/folds.md"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pairs = load_pairs(options.pairs)
    folds = folds_of((pair.clip for pair in pairs), options.folds)
    config = EnvelopeTrainingConfig(
        out=options.out,
        data=tuple(options.data),
        shares=tuple(options.shares),
        steps=options.steps,
        adapt_statistics=options.adapt_statistics,
    )
    together = f"{options.heads} heads together" if options.heads > 1 else "one head"
    edged = f"{together}, x root of edges"
    rows: dict[str, dict[str, tuple[float, float, float]]] = {together: {}, edged: {}}
    for index, fold in enumerate(folds):
        left = [pair for pair in pairs if pair.clip in fold]
        runs = [options.out / f"fold-{index + 1}" / f"head-{seed}" for seed in range(options.heads)]
        for seed, out in enumerate(runs):
            if not (out / "photo_encoder" / "config.json").is_file():
                train_envelope(replace(config, out=out, seed=seed, exclude=tuple(sorted(fold))))
        rows[together] |= judged(left, heads_of(runs))
        rows[edged] |= judged(left, with_edges(heads_of(runs)))
    for name in BASELINES:
        rows[name] = judged(pairs, lambda photo, name=name: baseline_energy(name, photo, MOTION_SIZE))  # type: ignore[misc]
    (options.out / "table.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = [
        "# Folds by scene",
        "",
        f"{len(rows[BASELINES[0]])} clips of {len({scene_of(p.clip) for p in pairs})} scenes, {len(pairs)} photos; "
        f"{options.folds} folds, envelope heads for each: {options.heads}, {options.steps} steps of",
        f"{config.batch_size}, trained on the other scenes' clips and on procedural scenes. Made by",
        "`python studies/folds.py`, which says how. Correlation of motion energy, by clip; leakage and strength are",
        "those of the first column.",
        "",
        *table(rows, folds),
    ]
    options.document.write_text("\n".join(text) + "\n", encoding="utf-8")
    logger.info("\n".join(text))


if __name__ == "__main__":
    main()
