"""Folds by scene: every clip is left out once, with all of its scene."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gid.data.videos import Pair, scene_of
from gid.motion.normalization import envelope_of, to_isotropic
from gid.motion.spectrum import SpectralVolume


@pytest.fixture(scope="module")
def folds() -> ModuleType:
    path = Path(__file__).parents[2] / "studies" / "folds.py"
    spec = importlib.util.spec_from_file_location("benchmark_folds", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_clip_is_left_out_once_with_its_scene(folds: ModuleType) -> None:
    clips = ["candle_2", "candle_3", "cat", "latern", "latern_2", "paper", "tree_0"]
    parts = folds.folds_of(clips, 3)
    assert sorted(clip for part in parts for clip in part) == clips
    assert len({frozenset(map(scene_of, part)) for part in parts}) == 3
    scenes = [set(map(scene_of, part)) for part in parts]
    assert all(a.isdisjoint(b) for a in scenes for b in scenes if a is not b)
    with pytest.raises(ValueError, match="use 2 to 5"):
        folds.folds_of(clips, 6)


def test_a_clip_is_judged_by_the_mean_over_its_start_frames(folds: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(4, 2, 6, 8, dtype=torch.complex64, generator=generator) * 1e-3
    field[..., :4] *= 0.01
    volume = SpectralVolume(field, image_size=(32, 16))
    pairs = [Pair("cat", start, torch.full((3, 16, 32), start, dtype=torch.uint8), volume) for start in (0, 255)]
    truth = folds.measured_energy(pairs[0])
    torch.testing.assert_close(truth, envelope_of(to_isotropic(volume.real, 32, 16))[0])
    # Right on the bright start, upside down on the dark one: correlations of 1 and -1.
    found = folds.judged(pairs, lambda photo: truth if float(photo.max()) > 0.5 else truth.max() - truth)
    assert found["cat"][0] == pytest.approx(0, abs=1e-6)
    assert folds.judged(pairs[1:], lambda photo: 2 * truth)["cat"] == pytest.approx((1.0, 0.01, 2.0), abs=0.01)
