"""How far apart the spectra of real clips are: what a distance from a clip's spectrum is worth.

A photo does not tell how hard the wind blew nor in which band, so a model can hardly come closer to one clip's line
spectrum than that clip's like. Distances are those of the report: `metrics.log_spectral_distance` in dB a band, and
what is left of it after the best factor.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gid.data.videos import Pair, held_out, scene_of
from gid.evaluation import metrics

Distance = tuple[float, float]


def distance(a: Tensor, b: Tensor) -> Distance:
    """Both distances of spectrum (K,) `a` from `b`."""
    return metrics.log_spectral_distance(a, b), metrics.spectral_shape_distance(a, b)[0]


def between(a: Tensor, b: Tensor) -> Distance:
    """The mean of both directions, as one is no truer than the other."""
    there, back = distance(a, b), distance(b, a)
    return (there[0] + back[0]) / 2, (there[1] + back[1]) / 2


def spectra_table(pairs: Sequence[Pair]) -> list[str]:
    """Markdown: distances of a clip's spectrum from what is more and more unlike it.

    Raises:
        ValueError: fewer than two scenes.
    """
    clips: dict[str, Tensor] = {}
    halves: dict[str, Distance] = {}
    starts: dict[str, Distance] = {}
    for name in sorted({pair.clip for pair in pairs}):
        own = [pair for pair in pairs if pair.clip == name]
        clips[name] = torch.stack([pair.volume.band_amplitudes() for pair in own]).mean(0)
        halves[name] = _mean(_halves(pair) for pair in own)
        starts[name] = _mean(distance(pair.volume.band_amplitudes(), clips[name]) for pair in own)
    scenes: dict[str, list[str]] = defaultdict(list)
    for name in clips:
        scenes[scene_of(name)].append(name)
    if len(scenes) < 2:
        raise ValueError(f"{len(scenes)} scene given; distances between scenes need two")
    left = held_out(clips)
    training = [clips[name] for name in clips if name not in left]
    rows: list[tuple[str, Distance]] = [
        ("another start frame of the clip", _mean(starts.values())),
        ("the left half of its picture from the right half", _mean(halves.values())),
    ]
    for names in scenes.values():
        rows += [
            (f"{a} from {b}, a like scene", between(clips[a], clips[b]))
            for index, a in enumerate(names)
            for b in names[index + 1 :]
        ]
    others = [between(clips[a], clips[b]) for a in clips for b in clips if a < b and scene_of(a) != scene_of(b)]
    rows.append(("any other scene, mean", _mean(others)))
    if training and left:
        mean = torch.stack(training).mean(0)
        apart = _mean(distance(mean, clips[name]) for name in left)
        rows.append(("left-out clips from the mean of the training clips", apart))
    lines = ["| a clip's spectrum from | dB a band | after the best factor |", "|---|---:|---:|"]
    return lines + [f"| {name} | {whole:.1f} | {shape:.1f} |" for name, (whole, shape) in rows]


def _halves(pair: Pair) -> Distance:
    amplitude = pair.volume.coefficients.abs().square().sum(1).sqrt()
    middle = amplitude.shape[-1] // 2
    return between(amplitude[..., :middle].mean((1, 2)), amplitude[..., middle:].mean((1, 2)))


def _mean(values: Iterable[Distance]) -> Distance:
    found = [value for value in values if not any(map(math.isnan, value))]
    return statistics.fmean(v[0] for v in found), statistics.fmean(v[1] for v in found)
