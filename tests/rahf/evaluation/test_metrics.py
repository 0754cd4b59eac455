"""Metrics against scipy, scikit-like brute force, and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rahf.evaluation import metrics
from rahf.evaluation.report import Predictions, best_word_threshold


def brute_force_judd(predicted: np.ndarray, actual: np.ndarray) -> float:
    """The loop as usually written: one threshold a fixation, from the highest down."""
    saliency, fixated = predicted.ravel(), actual.ravel() > 0
    thresholds = sorted(saliency[fixated], reverse=True)
    pixels, fixations = saliency.size, len(thresholds)
    hits, false_alarms = [0.0], [0.0]
    for place, threshold in enumerate(thresholds):
        above = int((saliency >= threshold).sum())
        hits.append((place + 1) / fixations)
        false_alarms.append((above - place - 1) / (pixels - fixations))
    return float(np.trapezoid([*hits, 1.0], [*false_alarms, 1.0]))


def maps(seed: int, shape: tuple[int, int] = (17, 23), levels: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    predicted = generator.random(shape)
    if levels:
        predicted = np.floor(predicted * levels) / levels
    actual = np.where(generator.random(shape) < 0.2, generator.random(shape), 0.0)
    actual[3, 4] = 0.5
    return predicted, actual


@pytest.mark.parametrize("seed", range(8))
def test_auc_judd_equals_the_loop(seed: int) -> None:
    predicted, actual = maps(seed)
    assert metrics.auc_judd(predicted, actual) == pytest.approx(brute_force_judd(predicted, actual), abs=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_auc_judd_with_ties_is_the_mean_over_jitter(levels: int) -> None:
    predicted, actual = maps(1, (9, 8), levels=levels)
    generator = np.random.default_rng(0)
    jittered = [brute_force_judd(predicted + generator.random(predicted.shape) * 1e-6, actual) for _ in range(3000)]
    error = float(np.std(jittered)) / math.sqrt(len(jittered))
    assert metrics.auc_judd(predicted, actual) == pytest.approx(np.mean(jittered), abs=4 * error)


def test_auc_judd_at_its_ends() -> None:
    actual = np.zeros((10, 10))
    actual[:2] = 1
    assert metrics.auc_judd(actual, actual) == 1
    assert metrics.auc_judd(-actual, actual) == pytest.approx(1 / 40)  # the triangles of twenty fixations
    assert metrics.auc_judd(np.full((10, 10), 0.3), actual) == pytest.approx(0.5 + 1 / 42)
    assert math.isnan(metrics.auc_judd(actual, np.zeros((10, 10))))
    assert math.isnan(metrics.auc_judd(actual, np.ones((10, 10))))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 60), st.integers(0, 4))
def test_correlations_match_scipy(seed: int, count: int, decimals: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.random((2, count)).round(decimals)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert math.isnan(metrics.plcc(a, b))
        return
    assert metrics.plcc(a, b) == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9)
    assert metrics.srcc(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)


def test_heatmap_metrics_match_independent_forms() -> None:
    predicted, actual = maps(3)
    values = metrics.heatmap_metrics(predicted, actual)
    p, q = predicted / predicted.sum(), actual / actual.sum()
    assert values["mse"] == pytest.approx(np.mean((predicted - actual) ** 2))
    assert values["cc"] == pytest.approx(np.corrcoef(predicted.ravel(), actual.ravel())[0, 1])
    assert values["kld"] == pytest.approx(stats.entropy(q.ravel(), p.ravel()), rel=1e-3)
    assert values["sim"] == pytest.approx(1 - np.abs(p - q).sum() / 2)
    assert values["nss"] == pytest.approx(stats.zscore(predicted.ravel(), ddof=1)[actual.ravel() > 0].mean())


def test_a_perfect_and_an_empty_map() -> None:
    _, actual = maps(4)
    perfect = metrics.heatmap_metrics(actual, actual)
    assert (perfect["mse"], perfect["cc"], perfect["sim"]) == (0, pytest.approx(1), pytest.approx(1))
    assert perfect["kld"] == pytest.approx(0, abs=1e-3)
    empty = metrics.heatmap_metrics(actual, np.zeros_like(actual))
    assert empty["mse"] > 0
    assert all(math.isnan(empty[name]) for name in metrics.HEATMAP_METRICS if name != "mse")
    constant = metrics.heatmap_metrics(np.full_like(actual, 0.1), actual)
    assert math.isnan(constant["cc"])
    assert constant["auc"] == pytest.approx(0.5, abs=0.01)


def test_word_scores_of_a_corpus_and_of_samples_differ() -> None:
    rows = [
        metrics.word_counts([True, False, False], [True, True, False]),
        metrics.word_counts([False], [False]),
        metrics.word_counts([True, True], [False, False]),
    ]
    assert rows == [(1, 0, 1), (0, 0, 0), (0, 2, 0)]
    corpus = metrics.word_scores_corpus(np.array(rows))
    assert corpus == {"precision": pytest.approx(1 / 3), "recall": 0.5, "f1": pytest.approx(0.4)}
    each = metrics.word_scores_per_sample(np.array(rows))
    assert each["precision"] == pytest.approx((1 + 1 + 0) / 3)
    assert each["recall"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert each["f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    with pytest.raises(ValueError, match="argument"):
        metrics.word_counts([True], [True, False])


@pytest.mark.parametrize("seed", range(4))
def test_best_threshold_against_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    actual = generator.random(80) < 0.3
    probabilities = np.clip(actual * 0.3 + generator.random(80) * 0.7, 0, 1).round(1)

    def f1(threshold: float) -> float:
        return metrics.word_scores_corpus(np.array([metrics.word_counts(probabilities >= threshold, actual)]))["f1"]

    best = metrics.best_threshold(probabilities, actual)
    assert f1(best) == pytest.approx(max(f1(value) for value in np.unique(probabilities)))


def test_bootstrap_covers_as_a_normal_interval_does() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    estimate = metrics.mean_estimate(np.append(values, np.nan))
    error = values.std(ddof=1) / math.sqrt(400)
    assert estimate.count == 400
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    assert metrics.mean_estimate(np.append(values, np.nan)) == estimate
    assert math.isnan(metrics.mean_estimate(np.array([np.nan])).value)


def test_bootstrap_of_several() -> None:
    counts = np.array([[1, 0, 1], [2, 1, 0]] * 20)
    found = metrics.estimates_of(lambda rows: metrics.word_scores_corpus(counts[rows]), len(counts), resamples=200)
    assert set(found) == {"precision", "recall", "f1"}
    for name, estimate in found.items():
        assert estimate.low <= metrics.word_scores_corpus(counts)[name] <= estimate.high


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="resize one"):
        metrics.mse(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="nothing to compare"):
        metrics.plcc(np.zeros(0), np.zeros(0))


def test_the_word_threshold_is_chosen_over_all_prompts() -> None:
    words = [
        (np.array([0.1, 0.4]), np.array([False, True])),
        (np.array([0.35, 0.2, 0.9]), np.array([True, False, True])),
    ]
    found = best_word_threshold(Predictions({}, {}, {}, words))
    assert found == 0.35
