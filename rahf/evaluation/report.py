"""Evaluation: all metrics of the paper with intervals, and a table beside the paper's numbers."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from rahf.data.samples import Sample, SampleSource
from rahf.evaluation.metrics import (
    HEATMAP_METRICS,
    Estimate,
    best_threshold,
    bootstrap,
    estimates_of,
    heatmap_metrics,
    mean_estimate,
    plcc,
    srcc,
    word_counts,
    word_scores_corpus,
    word_scores_per_sample,
)
from rahf.model.config import HEATMAPS, SCORES
from rahf.predictor import Predictor
from rahf.prompts import MISALIGNED

# RichHF-18K test split, the paper's augmented-prompt model (Liang et al. 2024).
PAPER: dict[str, float] = {
    "plausibility plcc": 0.693, "plausibility srcc": 0.681, "aesthetics plcc": 0.600, "aesthetics srcc": 0.589,
    "alignment plcc": 0.474, "alignment srcc": 0.496, "overall plcc": 0.580, "overall srcc": 0.562,
    "implausibility mse": 0.00920, "implausibility mse of clean": 0.00095, "implausibility cc": 0.556,
    "implausibility kld": 1.652, "implausibility sim": 0.409, "implausibility nss": 3.085, "implausibility auc": 0.913,
    "misalignment mse": 0.00304, "misalignment mse of clean": 0.00006, "misalignment cc": 0.212,
    "misalignment kld": 2.933, "misalignment sim": 0.106, "misalignment nss": 1.411, "misalignment auc": 0.841,
    "words precision": 0.613, "words recall": 0.341, "words f1": 0.439,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was predicted and what is true, image by image; nan where a sample has no label.

    scores: (N,2) predicted and actual by name; heatmaps: (N,) of each metric by (name, metric), `clean` (N,) bool by
    name; words: probabilities and labels of each labelled prompt.
    """

    scores: dict[str, np.ndarray]
    heatmaps: dict[str, dict[str, np.ndarray]]
    clean: dict[str, np.ndarray]
    words: list[tuple[np.ndarray, np.ndarray]]


def collect(predictor: Predictor, source: SampleSource, batch_size: int = 8, limit: int | None = None) -> Predictions:
    """Predict every sample, or the first `limit`. Heatmaps are compared at the size of the true ones."""
    count = len(source) if limit is None else min(limit, len(source))
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in SCORES}
    heatmaps: dict[str, list[dict[str, float]]] = {name: [] for name in HEATMAPS}
    clean: dict[str, list[bool]] = {name: [] for name in HEATMAPS}
    words: list[tuple[np.ndarray, np.ndarray]] = []
    counted = predictor.as_labelled()
    for start in tqdm(range(0, count, batch_size), desc="evaluating"):
        samples = [source[index] for index in range(start, min(start + batch_size, count))]
        found = counted.predict_batch([sample.image for sample in samples], [sample.prompt for sample in samples])
        for sample, feedback in zip(samples, found, strict=True):
            for name in SCORES:
                scores[name].append((feedback.scores[name], sample.scores.get(name, math.nan)))
            for name in HEATMAPS:
                heatmaps[name].append(_heatmap_row(feedback.heatmaps[name], sample, name))
                clean[name].append(name in sample.heatmaps and not (sample.heatmaps[name] > 0).any())
            if sample.words is not None:
                actual = np.array([label == MISALIGNED for label in sample.words])
                words.append((np.array([word.probability for word in feedback.words]), actual))
    return Predictions(
        scores={name: np.array(rows).reshape(-1, 2) for name, rows in scores.items()},
        heatmaps={
            name: {metric: np.array([row[metric] for row in rows]) for metric in HEATMAP_METRICS}
            for name, rows in heatmaps.items()
        },
        clean={name: np.array(rows, dtype=bool) for name, rows in clean.items()},
        words=words,
    )


def constant_predictions(train: SampleSource, test: SampleSource, limit: int | None = None) -> Predictions:
    """What predicting the training set's mean scores, mean heatmaps and no misaligned word gives on `test`."""
    size = 64
    train_samples = [train[index] for index in range(min(len(train), limit or len(train)))]
    means = {
        name: float(np.mean([s.scores[name] for s in train_samples if name in s.scores] or [math.nan]))
        for name in SCORES
    }
    maps = {
        name: np.mean([_resize(s.heatmaps[name], (size, size)) for s in train_samples if name in s.heatmaps], axis=0)
        for name in HEATMAPS
    }
    samples = [test[index] for index in range(min(len(test), limit or len(test)))]
    return Predictions(
        scores={
            name: np.array([(means[name], sample.scores.get(name, math.nan)) for sample in samples]) for name in SCORES
        },
        heatmaps={
            name: {
                metric: np.array([row[metric] for row in [_heatmap_row(maps[name], s, name) for s in samples]])
                for metric in HEATMAP_METRICS
            }
            for name in HEATMAPS
        },
        clean={
            name: np.array([name in s.heatmaps and not (s.heatmaps[name] > 0).any() for s in samples])
            for name in HEATMAPS
        },
        words=[
            (np.zeros(len(s.words)), np.array([label == MISALIGNED for label in s.words]))
            for s in samples
            if s.words is not None
        ],
    )


def summarise(predictions: Predictions, word_threshold: float = 0.5, resamples: int = 1000) -> dict[str, Estimate]:
    """Every metric by name, with its 95% bootstrap interval over images."""
    found: dict[str, Estimate] = {}
    for name, rows in predictions.scores.items():
        known = rows[~np.isnan(rows).any(axis=1)]
        for metric, measure in (("plcc", plcc), ("srcc", srcc)):
            found[f"{name} {metric}"] = bootstrap(
                lambda chosen, known=known, measure=measure: measure(known[chosen, 0], known[chosen, 1]),  # type: ignore[misc]
                len(known),
                resamples,
            )
    for name, metrics in predictions.heatmaps.items():
        clean = predictions.clean[name]
        found[f"{name} mse"] = mean_estimate(metrics["mse"], resamples)
        found[f"{name} mse of clean"] = mean_estimate(metrics["mse"][clean], resamples)
        for metric in HEATMAP_METRICS[1:]:
            found[f"{name} {metric}"] = mean_estimate(metrics[metric], resamples)
    counts = np.array([word_counts(p >= word_threshold, actual) for p, actual in predictions.words]).reshape(-1, 3)
    if len(counts):
        for prefix, score in (("words", word_scores_corpus), ("words per sample", word_scores_per_sample)):
            several = estimates_of(lambda rows, score=score: score(counts[rows]), len(counts), resamples)  # type: ignore[misc]
            found |= {f"{prefix} {name}": estimate for name, estimate in several.items()}
    return found


def best_word_threshold(predictions: Predictions) -> float:
    """The threshold at which the corpus-level F1 of all words is highest."""
    chances, actual = (np.concatenate(parts) for parts in zip(*predictions.words, strict=True))
    return best_threshold(chances, actual)


def table(columns: Mapping[str, Mapping[str, Estimate]]) -> str:
    """A Markdown table: one row a metric, one column a model, the paper's numbers at the end.

    The paper's are on another test set (RichHF-18K) and stand there for orientation only.
    """
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    lines = ["| metric | " + " | ".join(columns) + " | paper, RichHF-18K |", "|---" * (len(columns) + 2) + "|"]
    for name in names:
        cells = [_cell(column.get(name), name) for column in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {_number(PAPER.get(name), name)} |")
    return "\n".join(lines)


def to_json(summary: Mapping[str, Estimate]) -> dict[str, Any]:
    """Plain values; nan as None."""
    return {
        name: {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in asdict(estimate).items()}
        for name, estimate in summary.items()
    }


def _heatmap_row(predicted: np.ndarray, sample: Sample, name: str) -> dict[str, float]:
    if name not in sample.heatmaps:
        return dict.fromkeys(HEATMAP_METRICS, math.nan)
    actual = sample.heatmaps[name]
    return heatmap_metrics(_resize(predicted, actual.shape), actual)


def _resize(heatmap: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if heatmap.shape == shape:
        return heatmap
    tensor = torch.from_numpy(np.ascontiguousarray(heatmap, dtype=np.float32))[None, None]
    grown = F.interpolate(tensor, size=tuple(shape), mode="bilinear", antialias=True, align_corners=False)
    return grown[0, 0].numpy()


def _cell(estimate: Estimate | None, name: str) -> str:
    if estimate is None or math.isnan(estimate.value):
        return "–"
    return f"{_number(estimate.value, name)} [{_number(estimate.low, name)}, {_number(estimate.high, name)}]"


def _number(value: float | None, name: str) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.5f}" if "mse" in name else f"{value:.3f}"
