"""The evaluation report: a model beside its baselines on held-out clips, as a table, JSON and pictures."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from foundation.files import write_text
from gid.data.videos import Pair
from gid.evaluation import metrics
from gid.evaluation.baselines import BASELINES, baseline_energy
from gid.evaluation.rendering import judge_loop
from gid.evaluation.sheets import as_picture, contact_sheet, heatmap, labelled, save_picture, sliced
from gid.motion.spectrum import SpectralVolume

logger = logging.getLogger(__name__)

# Column of the table, and how its numbers are written.
COLUMNS = {
    "correlation": ("correlation", "{:.2f}"),
    "weighted": ("weighted by confidence", "{:.2f}"),
    "inside": ("inside what moves", "{:.2f}"),
    "leakage": ("leakage (median)", "{:.2f}"),
    "spectral_distance": ("spectral distance, dB", "{:.1f}"),
    "spectral_shape": ("after the best factor a clip, dB", "{:.1f}"),
    "strength": ("strength", "{:.2f}"),
    "direction": ("direction", "{:.2f}"),
    "coherence": ("coherence length", "{:.3f}"),
    "agreement": ("error of agreement", "{:.2f}"),
    "seam": ("seam", "{:.2f}"),
    "diversity": ("diversity", "{:.2f}"),
}


# Pairs and the model's motions of each -> further rows: name -> volumes of each pair.
Ablations = Callable[
    [Sequence[Pair], Sequence[Sequence[SpectralVolume]]], Mapping[str, Sequence[Sequence[SpectralVolume]]]
]


class MotionModel(Protocol):
    """What is evaluated: `GIDPipeline`, or anything called like it."""

    def __call__(self, photo: Tensor, *, seed: int) -> Any:
        """Photo (3, H, W) in [0, 1] -> an object whose `volumes[0]` is a SpectralVolume."""
        ...


@dataclass(frozen=True)
class Row:
    """One line of the table: means over scenes (leakage: median), each a mean over clips, starts and seeds; or NaN."""

    name: str
    scores: Mapping[str, float]
    correlation_by_scene: Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """The whole evaluation.

    Attributes:
        rows: the model first, then the baselines, then the measured motion itself.
        bands: per row, mean amplitude (K,) in each frequency band, in thousandths of the image side.
        frequencies: (K,) Hz.
        settings: seeds, number of clips and pairs.
        rendering: mean scores of the rendered loops (`RenderingScores`), if they were rendered.
    """

    rows: Sequence[Row]
    bands: Mapping[str, Sequence[float]]
    frequencies: Sequence[float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    rendering: Mapping[str, float] = field(default_factory=dict)

    def markdown(self) -> str:
        """The tables for a README: scores, correlation by scene, amplitude by band."""
        scenes = sorted(self.rows[0].correlation_by_scene)
        parts = [
            _table(["", *(title for title, _ in COLUMNS.values())], [_score_cells(row) for row in self.rows]),
            "Correlation of motion energy, by scene:",
            _table(
                ["", *scenes],
                [
                    [row.name, *(_number(row.correlation_by_scene.get(s, math.nan), "{:.2f}") for s in scenes)]
                    for row in self.rows
                    if row.correlation_by_scene
                ],
            ),
            "Mean amplitude by band (thousandths of the image side):",
            _table(
                ["Hz", *(f"{frequency:.1f}" for frequency in self.frequencies)],
                [[name, *(f"{1000 * value:.2f}" for value in values)] for name, values in self.bands.items()],
            ),
        ]
        if self.rendering:
            cells = [[name.replace("_", " "), _number(value, "{:.3g}")] for name, value in self.rendering.items()]
            parts += ["Rendered loops:", _table(["", "mean"], cells)]
        return "\n\n".join(parts) + "\n"

    def to_json(self) -> str:
        """Everything, with numbers that do not apply as null."""
        content = _without_nan(asdict(self))
        return json.dumps(content, indent=2, allow_nan=False) + "\n"


def evaluate(
    pipeline: MotionModel,
    pairs: Sequence[Pair],
    seeds: Sequence[int] = (0, 1, 2),
    out_dir: str | Path | None = None,
    reference_pairs: Sequence[Pair] | None = None,
    render: Callable[[Tensor, SpectralVolume], Tensor] | None = None,
    name: str = "model",
    ablations: Callable[[Sequence[Pair], Sequence[Sequence[SpectralVolume]]], Mapping[str, Sequence[Any]]]
    | None = None,
) -> Report:
    """Compare a model's motion with the measured one, beside baselines that need no learning.

    Args:
        pipeline: called as `pipeline(photo, seed=...).volumes[0]`.
        pairs: held-out clips.
        seeds: each is sampled for each pair.
        out_dir: where report.md, report.json, spectrum.png and one sheet a scene go; made if missing. None: nowhere.
        reference_pairs: training clips; their mean energy map is one more baseline, and their mean amplitude spectrum
            stands in for the spectrum that the other baselines lack.
        render: photo and volume -> frames (N, 3, H, W) of a loop; judged on the first seed of each pair.
        name: the model's row.
        ablations: pairs and sampled motions -> further rows, name -> volumes of each pair; they stand in for baselines
            of the same name.

    Returns:
        The report.

    Raises:
        ValueError: no pairs or no seeds.
    """
    if not pairs or not seeds:
        raise ValueError(f"{len(pairs)} pairs and {len(seeds)} seeds: at least one of each is needed")
    sampled = _sample(pipeline, pairs, seeds)
    rows = [_model_row(name, pairs, sampled)]
    spectrum = None if reference_pairs is None else _mean([p.volume.band_amplitudes() for p in reference_pairs])
    maps: dict[str, list[Tensor]] = {
        key: [baseline_energy(key, _photo(p), _map_size(p)) for p in pairs] for key in BASELINES
    }
    if reference_pairs:
        mean_map = _mean([p.volume.resize(*_map_size(pairs[0])).motion_energy() for p in reference_pairs])
        maps["mean training map"] = [mean_map] * len(pairs)
    others = {} if ablations is None else ablations(pairs, sampled)
    rows += [_baseline_row(key, pairs, energies, spectrum) for key, energies in maps.items() if key not in others]
    rows += [_model_row(key, pairs, volumes) for key, volumes in others.items()]
    rows.append(_measured_row(pairs))
    bands = {
        name: _mean([v.band_amplitudes() for volumes in sampled for v in volumes]).tolist(),
        "measured": _mean([p.volume.band_amplitudes() for p in pairs]).tolist(),
    }
    rendering: dict[str, float] = {}
    slices: list[np.ndarray] = []
    if render is not None:
        rendering, slices = _rendering(render, pairs, sampled)
    report = Report(
        rows,
        bands,
        pairs[0].volume.frequencies.tolist(),
        {"seeds": list(seeds), "pairs": len(pairs), "clips": sorted({p.clip for p in pairs})},
        rendering,
    )
    if out_dir is not None:
        _write(report, pairs, sampled, Path(out_dir))
        if slices:
            save_picture(Path(out_dir) / "slices.png", contact_sheet(slices, columns=4))
    return report


# -- measuring ----------------------------------------------------------------------------------------------------


def _sample(pipeline: MotionModel, pairs: Sequence[Pair], seeds: Sequence[int]) -> list[list[SpectralVolume]]:
    with torch.inference_mode():
        return [
            [pipeline(_photo(pair), seed=seed).volumes[0].to("cpu") for seed in seeds]
            for pair in tqdm(pairs, desc="predicting motion", unit="photo")
        ]


def _model_row(name: str, pairs: Sequence[Pair], sampled: Sequence[Sequence[SpectralVolume]]) -> Row:
    scores = []
    for pair, volumes in zip(pairs, sampled, strict=True):
        each = [_volume_scores(volume, pair) for volume in volumes]
        merged = {key: _nan_mean([one[key] for one in each]) for key in each[0]}
        scores.append({**merged, "diversity": metrics.diversity(volumes)})
    return _row(name, pairs, scores)


def _energy_scores(energy: Tensor, pair: Pair) -> dict[str, float]:
    truth = pair.volume.motion_energy()
    scores = {
        "correlation": metrics.motion_energy_correlation(energy, truth),
        "leakage": metrics.background_leakage(energy, truth),
    }
    if pair.confidence is not None:
        scores["weighted"] = metrics.weighted_correlation(energy, truth, pair.confidence)
        scores["inside"] = metrics.inside_correlation(energy, truth, pair.confidence)
    return scores


def _volume_scores(predicted: SpectralVolume, pair: Pair) -> dict[str, float]:
    measured = pair.volume
    energy, truth = predicted.motion_energy(), measured.motion_energy()
    return {
        **_energy_scores(energy, pair),
        "spectral_distance": metrics.log_spectral_distance(predicted.band_amplitudes(), measured.band_amplitudes()),
        "spectral_shape": metrics.spectral_shape_distance(predicted.band_amplitudes(), measured.band_amplitudes())[0],
        "strength": float(energy.mean() / truth.mean()) if float(truth.mean()) > 0 else math.nan,
        "direction": metrics.direction_agreement(predicted, measured),
        "coherence": metrics.coherence_length(predicted) if bool(energy.any()) else math.nan,
        "agreement": metrics.agreement_error(predicted, measured) if bool(energy.any()) else math.nan,
        "seam": metrics.seam_ratio(predicted.resize(32, 56).trajectories()) if bool(energy.any()) else math.nan,
    }


def _baseline_row(name: str, pairs: Sequence[Pair], energies: Sequence[Tensor], spectrum: Tensor | None) -> Row:
    scores = []
    for pair, energy in zip(pairs, energies, strict=True):
        one = _energy_scores(energy, pair)
        if spectrum is not None:
            amplitude = torch.zeros_like(spectrum) if name == "still" else spectrum
            one["spectral_distance"] = metrics.log_spectral_distance(amplitude, pair.volume.band_amplitudes())
            one["spectral_shape"] = metrics.spectral_shape_distance(amplitude, pair.volume.band_amplitudes())[0]
        scores.append(one)
    return _row(name, pairs, scores)


def _measured_row(pairs: Sequence[Pair]) -> Row:
    """What a perfect prediction scores; leakage is not 0, for near zero is not zero."""
    scores = [_volume_scores(pair.volume, pair) for pair in pairs]
    return _row("measured", pairs, scores)


def _row(name: str, pairs: Sequence[Pair], scores: Sequence[Mapping[str, float]]) -> Row:
    by_scene: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair, one in zip(pairs, scores, strict=True):
        for key, value in one.items():
            by_scene[pair.scene][key].append(value)
    means = {scene: {key: _nan_mean(values) for key, values in keys.items()} for scene, keys in by_scene.items()}
    total = {key: _nan_mean([one[key] for one in means.values() if key in one]) for key in COLUMNS}
    # A ratio without upper bound: one scene where a map is nearly empty would decide its mean.
    leakages = [one["leakage"] for one in means.values() if not math.isnan(one["leakage"])]
    total["leakage"] = statistics.median(leakages) if leakages else math.nan
    return Row(name, total, {scene: one["correlation"] for scene, one in means.items()})


def _rendering(
    render: Callable[[Tensor, SpectralVolume], Tensor],
    pairs: Sequence[Pair],
    sampled: Sequence[Sequence[SpectralVolume]],
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Mean scores of the rendered loops, and photo and X-t slice of the first loop of each scene."""
    results, slices, seen = [], [], set()
    with torch.inference_mode():
        for pair, volumes in tqdm(list(zip(pairs, sampled, strict=True)), desc="rendering", unit="loop"):
            frames = render(_photo(pair), volumes[0])
            results.append(asdict(judge_loop(_photo(pair), volumes[0], frames)))
            if pair.scene not in seen:
                seen.add(pair.scene)
                slices += sliced(_photo(pair), volumes[0].motion_energy(), frames)
    means = {key: float(np.mean([one[key] for one in results])) for key in results[0]}
    # Of what must hold for every loop, the worst one is told.
    means["worst_seam"] = max(one["seam"] for one in results)
    means["worst_first_frame_psnr"] = min(one["first_frame_psnr"] for one in results)
    means["worst_still_error"] = max(one["still_error"] for one in results)
    return means, slices


# -- writing ------------------------------------------------------------------------------------------------------


def write_tables(report: Report, folder: Path) -> None:
    """Write report.md and report.json into a folder, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("report.md", report.markdown()), ("report.json", report.to_json())):
        write_text(folder / file, text)


def _write(report: Report, pairs: Sequence[Pair], sampled: Sequence[Sequence[SpectralVolume]], folder: Path) -> None:
    write_tables(report, folder)
    save_picture(folder / "spectrum.png", spectrum_plot(report.bands, report.frequencies))
    scenes: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        scenes[pair.scene].append(index)
    for scene, indices in scenes.items():
        tiles = [tile for index in indices for tile in _tiles(pairs[index], sampled[index])]
        save_picture(folder / f"{scene}.png", contact_sheet(tiles, columns=len(tiles) // len(indices)))


def _tiles(pair: Pair, volumes: Sequence[SpectralVolume]) -> list[np.ndarray]:
    """Photo | measured energy | predicted energy of each seed, with correlations."""
    photo, truth = as_picture(pair.photo), pair.volume.motion_energy()
    tiles = [labelled(photo, pair.name), labelled(heatmap(truth, photo), "measured")]
    for index, volume in enumerate(volumes):
        energy = volume.motion_energy()
        correlation = metrics.motion_energy_correlation(energy, truth)
        tiles.append(labelled(heatmap(energy, photo), f"predicted {index + 1}: {correlation:.2f}"))
    return tiles


def spectrum_plot(bands: Mapping[str, Sequence[float]], frequencies: Sequence[float]) -> np.ndarray:
    """Amplitude spectra (K,) against frequency, log scale, as a picture (H, W, 3) uint8."""
    figure = Figure(figsize=(6, 3.5), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, values in bands.items():
        axes.semilogy(frequencies[1:], [max(1000 * v, 1e-4) for v in values[1:]], marker="o", label=name)
    axes.set(xlabel="frequency, Hz", ylabel="mean amplitude, thousandths of the side")
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


# -- small helpers ------------------------------------------------------------------------------------------------


def _photo(pair: Pair) -> Tensor:
    return pair.photo.float() / 255


def _map_size(pair: Pair) -> tuple[int, int]:
    height, width = pair.volume.coefficients.shape[-2:]
    return height, width


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(0)


def _nan_mean(values: Sequence[float]) -> float:
    valid = [value for value in values if not math.isnan(value)]
    return sum(valid) / len(valid) if valid else math.nan


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else form.format(value)


def _score_cells(row: Row) -> list[str]:
    return [row.name, *(_number(row.scores[key], form) for key, (_, form) in COLUMNS.items())]


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([lines[0], rule, *lines[1:]])


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
