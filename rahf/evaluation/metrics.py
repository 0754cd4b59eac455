"""The paper's metrics: correlations of scores, saliency metrics of heatmaps, precision and recall of words.

Where a metric is undefined (no variance, an empty map) the result is nan, and averages leave it out and say how many
they are over.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

EPSILON = 1e-8
HEATMAP_METRICS: tuple[str, ...] = ("mse", "cc", "kld", "sim", "nss", "auc")


@dataclass(frozen=True)
class Estimate:
    """A value, its bootstrap interval [low, high], and over how many samples."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


# Scores.


def plcc(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Pearson's linear correlation of two (N,) arrays; nan if either is constant or N < 2."""
    a, b = _pair(predicted, actual)
    if np.ptp(a) == 0 or np.ptp(b) == 0:  # rounding would leave a little variance
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def srcc(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Spearman's rank correlation of two (N,) arrays, ties at their mean rank; nan if either is constant."""
    a, b = _pair(predicted, actual)
    return plcc(rankdata(a), rankdata(b))


# Heatmaps. `predicted` and `actual` are (H,W), not negative; `actual` > 0 marks the fixations.


def mse(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Mean squared error over pixels."""
    a, b = _pair(predicted, actual)
    return float(((a - b) ** 2).mean())


def cc(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Linear correlation over pixels."""
    return plcc(predicted, actual)


def kld(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Kullback-Leibler divergence of the actual from the predicted map, both normalised to sum 1; lower is better."""
    a, b = _distributions(predicted, actual)
    return float((b * np.log(EPSILON + b / (a + EPSILON))).sum())


def sim(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Histogram intersection of the maps, both normalised to sum 1; in [0, 1]."""
    a, b = _distributions(predicted, actual)
    return float(np.minimum(a, b).sum())


def nss(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Mean z-score (unbiased deviation) of the prediction at the fixations; 0 is chance. nan without variance."""
    a, b = _pair(predicted, actual)
    at = a[b > 0]
    if np.ptp(a) == 0 or not len(at):
        return float("nan")
    return float((at.mean() - a.mean()) / a.std(ddof=1))


def auc_judd(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Area under the ROC curve whose thresholds are the predicted values at the F fixations (Judd et al. 2009).

    Between two thresholds Judd's curve is a straight line where the full ROC curve is a step. The triangles between
    them add up to r / 2F, r being the part of the other pixels above the lowest fixation, so that
        AUC-Judd = (Mann-Whitney area) + r / 2F,
    which needs ranks only. For ties it is the exact expectation over the random jitter that is usually added to break
    them. nan without fixations or without other pixels.
    """
    a, b = _pair(predicted, actual)
    fixated, others = a[b > 0], np.sort(a[b <= 0])
    if not len(fixated) or not len(others):
        return float("nan")
    below, not_above = np.searchsorted(others, fixated, "left"), np.searchsorted(others, fixated, "right")
    area = float((below + not_above).mean()) / 2 / len(others)
    # Of pixels tied with the lowest fixations, t of them, each lies above one of these but for a chance of 1 / (t + 1).
    tied = int((fixated == fixated.min()).sum())
    equal = int((not_above - below)[fixated.argmin()])
    above = len(others) - int(not_above.min()) + equal * tied / (tied + 1)
    return area + above / len(others) / (2 * len(fixated))


def heatmap_metrics(predicted: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """All of HEATMAP_METRICS for one image; for an empty actual map only `mse`, the others nan."""
    values = dict.fromkeys(HEATMAP_METRICS, float("nan"))
    values["mse"] = mse(predicted, actual)
    if (actual > 0).any():
        values |= {
            "cc": cc(predicted, actual),
            "kld": kld(predicted, actual),
            "sim": sim(predicted, actual),
            "nss": nss(predicted, actual),
            "auc": auc_judd(predicted, actual),
        }
    return values


# Words. Counts are (N,3) rows of true positives, false positives, false negatives; a misaligned word is a positive.


def word_counts(predicted: Iterable[bool], actual: Iterable[bool]) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of one prompt. Raises ValueError if lengths differ."""
    pairs = [(bool(p), bool(a)) for p, a in zip(predicted, actual, strict=True)]
    return (
        sum(p and a for p, a in pairs),
        sum(p and not a for p, a in pairs),
        sum(a and not p for p, a in pairs),
    )


def word_scores_corpus(counts: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 over all words of all prompts together: the paper's."""
    hits, extra, missed = np.asarray(counts, dtype=float).reshape(-1, 3).sum(axis=0)
    precision, recall = _ratio(hits, hits + extra), _ratio(hits, hits + missed)
    return {"precision": precision, "recall": recall, "f1": _ratio(2 * hits, 2 * hits + extra + missed)}


def word_scores_per_sample(counts: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of each prompt, averaged: not comparable with the corpus-level ones.

    A prompt in which neither truth nor prediction marks a word counts as 1; a ratio over nothing otherwise as 0.
    """
    table = np.asarray(counts, dtype=float).reshape(-1, 3)
    hits, extra, missed = table.T
    clean = table.sum(axis=1) == 0

    def mean(over: np.ndarray, of: np.ndarray) -> float:
        ratio = np.divide(over, of, out=np.zeros_like(of), where=of > 0)
        return float(np.where(clean, 1.0, ratio).mean()) if len(ratio) else float("nan")

    return {
        "precision": mean(hits, hits + extra),
        "recall": mean(hits, hits + missed),
        "f1": mean(2 * hits, 2 * hits + extra + missed),
    }


def best_threshold(probabilities: np.ndarray, actual: np.ndarray) -> float:
    """The threshold on (N,) word probabilities that gives the best corpus-level F1; choose it on validation data."""
    p, truth = _pair(probabilities, actual)
    order = np.argsort(-p, kind="stable")
    values, hits = p[order], np.cumsum(truth[order] > 0)
    f1 = 2 * hits / (np.arange(1, len(p) + 1) + max((truth > 0).sum(), 1))
    last_of_ties = np.append(values[1:] != values[:-1], True)
    return float(values[np.argmax(np.where(last_of_ties, f1, -1.0))])


# Uncertainty.


def bootstrap(
    statistic: Callable[[np.ndarray], float], count: int, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """`statistic` of the sample indices (count,), with its percentile interval over resamples with replacement."""
    if count < 1:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    generator = np.random.default_rng(seed)
    drawn = np.array([statistic(generator.integers(0, count, count)) for _ in range(resamples)])
    drawn = drawn[~np.isnan(drawn)]
    value = statistic(np.arange(count))
    if not len(drawn):
        return Estimate(value, float("nan"), float("nan"), count)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), count)


def mean_estimate(values: np.ndarray, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean of the entries that are not nan, with its bootstrap interval and their number."""
    kept = np.asarray(values, dtype=float)
    kept = kept[~np.isnan(kept)]
    return bootstrap(lambda indices: float(kept[indices].mean()), len(kept), resamples, seed)


def estimates_of(
    statistic: Callable[[np.ndarray], Mapping[str, float]], count: int, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Bootstrap every entry of a statistic that gives several."""
    names = list(statistic(np.arange(count)))
    return {
        name: bootstrap(lambda indices, name=name: statistic(indices)[name], count, resamples, seed)  # type: ignore[misc]
        for name in names
    }


def _pair(predicted: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(predicted), np.asarray(actual)
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} of the prediction and {b.shape} of the truth differ; resize one")
    if not a.size:
        raise ValueError("there is nothing to compare: the arrays are empty")
    return a.astype(np.float64).ravel(), b.astype(np.float64).ravel()


def _distributions(predicted: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = _pair(predicted, actual)
    return a / (a.sum() + EPSILON), b / (b.sum() + EPSILON)


def _ratio(over: float, of: float) -> float:
    return float(over / of) if of > 0 else 0.0
