"""Visible motion of pictures whose brightness the test sets."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from foundation.video import write_video
from gid.evaluation.metrics import inside_correlation, weighted_correlation
from gid.evaluation.visible import VisibleScores, brightness, compare, visible_motion, visible_table, written


def _flicker(amplitude: np.ndarray, count: int = 60, cycles: int = 4, drift: float = 0.0) -> np.ndarray:
    """(T, H, W) brightness 100 + amplitude * sine, and a drift of the light of all of it."""
    wave = np.sin(2 * np.pi * cycles * np.arange(count) / count)
    light = drift * np.linspace(0, 1, count)
    return (100 + amplitude[None] * wave[:, None, None] + light[:, None, None]).astype(np.float32)


def _amplitude(height: int = 72, width: int = 128) -> np.ndarray:
    amplitude = np.zeros((height, width))
    amplitude[20:50, 30:60] = 8.0
    amplitude[30:40, 40:50] = 20.0
    return amplitude


def test_visible_motion_is_the_deviation_over_time() -> None:
    found = visible_motion(_flicker(_amplitude(), drift=30.0))
    np.testing.assert_allclose(found, _amplitude() / math.sqrt(2), atol=1e-3)


def test_a_clip_is_like_itself() -> None:
    clip = _flicker(_amplitude())
    scores = compare(clip, clip)
    assert scores.correlation == pytest.approx(1)
    assert scores.strength == pytest.approx(1)
    assert scores.tempo == pytest.approx(0, abs=1e-9)
    assert scores.leakage == pytest.approx(0, abs=1e-6)


def test_half_as_strong_twice_as_fast_and_elsewhere() -> None:
    clip = _flicker(_amplitude())
    half = compare(clip, _flicker(_amplitude() / 2))
    assert half.strength == pytest.approx(0.5, rel=1e-3)
    assert half.correlation == pytest.approx(1, abs=1e-6)
    assert compare(clip, _flicker(_amplitude(), cycles=8)).tempo > 10
    away = compare(clip, _flicker(np.roll(_amplitude(), 50, axis=1)))
    assert away.correlation < 0
    assert away.leakage == math.inf or away.leakage > 100
    assert compare(clip, _flicker(np.zeros((72, 128)))).tempo == 40.0


def test_where_everything_moves_leakage_is_unknown() -> None:
    wave = np.where(np.indices((72, 128)).sum(0) % 16 < 8, 10.0, -9.0)
    clip = _flicker(wave)
    assert math.isnan(compare(clip, clip).leakage)


def test_brightness_is_shrunk_and_cut() -> None:
    frames = (np.full((320, 1024, 3), 50 + index % 3, np.uint8) for index in range(200))
    found = brightness(frames)
    assert found.shape == (150, 160, 512)
    assert found[1].mean() == pytest.approx(51, abs=0.6)
    with pytest.raises(ValueError, match="clip has 1 frames and the loop 2"):
        compare(found[:1], found[:2])


def test_a_table_of_clips(tmp_path: Path) -> None:
    clip = _flicker(_amplitude(), count=20, cycles=2)
    frames = np.repeat(clip.clip(0, 255).astype(np.uint8)[..., None], 3, -1)
    write_video(tmp_path / "flicker.mp4", [frames], 20)
    table = visible_table([tmp_path / "flicker.mp4"], lambda photo, seed: frames, (0, 1))
    assert table["flicker"].correlation > 0.9
    assert table["flicker"].strength == pytest.approx(1, abs=0.15)
    text = written({"a": VisibleScores(0.5, math.nan, 1.0, 2.0, 0.25), "b": VisibleScores(0.7, 0.1, 3.0, 4.0, 0.35)})
    assert "| a | 0.50 | 0.25 | – | 1.00 | 2.00 |" in text
    assert "| mean (median for leakage, strength) | 0.60 | 0.30 | 0.10 | 2.00 | 3.00 |" in text
    with pytest.raises(ValueError, match="0 clips"):
        visible_table([], lambda photo, seed: frames)


def test_correlation_counts_what_can_be_believed() -> None:
    """Against numpy's corrcoef of repeated cells; noise where there is no confidence does not count."""
    generator = np.random.default_rng(0)
    measured = generator.gamma(2.0, size=(12, 16))
    predicted = measured * generator.gamma(3.0, size=(12, 16))
    repeats = generator.integers(1, 4, size=(12, 16))
    a, b = (np.repeat(np.log1p(x / x.mean()).ravel(), repeats.ravel()) for x in (predicted, measured))
    confidence = torch.from_numpy(repeats - 1e-3)
    found = weighted_correlation(torch.from_numpy(predicted), torch.from_numpy(measured), confidence)
    assert found == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)


def test_inside_ignores_what_stands_still() -> None:
    measured = torch.zeros(10, 20)
    measured[:, 10:] = torch.linspace(1, 2, 100).reshape(10, 10)
    predicted = measured.clone()
    predicted[:, :10] = 5.0
    assert inside_correlation(predicted, measured, torch.ones(10, 20)) == pytest.approx(1, abs=0.01)
    assert weighted_correlation(predicted, measured, torch.ones(10, 20)) < 0
    assert math.isnan(inside_correlation(predicted, measured, torch.full((10, 20), 0.05)))
