"""The renderer's training stage on two tiny scenes: data, loss, checkpoint, resumption, saved model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gid.rendering.renderer import Renderer
from gid.training.renderer import RendererTrainingConfig, gradient_error, train_renderer
from gid.training.renderer_data import PairCrops, PairsConfig, read_pairs, write_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder, range(3, 6), PairsConfig(width=96, height=64, frames=1, samples=2))
    return folder


def test_pairs_are_written_once_and_read_back(pairs):
    paths = sorted(pairs.iterdir())
    assert [path.suffix for path in paths] == [".npz"] * 3
    before = [path.stat().st_mtime_ns for path in paths]
    write_pairs(pairs, range(3, 6), PairsConfig(width=96, height=64, frames=1, samples=2))
    assert [path.stat().st_mtime_ns for path in paths] == before
    (pair,) = read_pairs(paths[0])
    assert pair.photo.shape == pair.target.shape == (3, 64, 96)
    assert pair.flow.shape == (2, 64, 96)
    assert pair.importance.shape == (1, 64, 96)
    assert pair.photo.min() >= 0
    assert pair.photo.max() <= 1


def test_mirrored_crops_mirror_their_motion(pairs):
    crops = PairCrops(sorted(pairs.iterdir())[:1], 64, seed=0)
    pair = read_pairs(crops.paths[0])[0]
    seen = set()
    for _ in range(12):
        row = crops[0]
        for mirrored in (False, True):
            photo = row["photo"].flip(-1) if mirrored else row["photo"]
            for x in range(33):
                if torch.equal(photo, pair.photo[:, :, x : x + 64]):
                    flow = pair.flow[:, :, x : x + 64]
                    expected = flow.flip(-1) * torch.tensor([-1.0, 1.0]).view(2, 1, 1) if mirrored else flow
                    assert torch.equal(row["flow"], expected)
                    seen.add(mirrored)
    assert seen == {False, True}


def test_gradient_error_of_a_constant_is_zero_and_of_a_ramp_its_slope():
    gate = torch.ones(1, 1, 16, 16)
    assert gradient_error(torch.full((1, 3, 16, 16), 0.3), gate) == 0
    ramp = (torch.arange(16.0) * 0.01).expand(1, 3, 16, 16)
    assert gradient_error(ramp, gate, scales=1) == pytest.approx(0.01, rel=1e-3)


def test_training_resumes_and_saves_a_model(pairs, tmp_path):
    config = RendererTrainingConfig(
        out=tmp_path, data=pairs, scenes=3, crop=64, steps=2, batch_size=2, save_every=1, precision="no", warmup_steps=1
    )
    train_renderer(config)
    folder = train_renderer(replace(config, steps=3))
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == 3
    model = Renderer.from_pretrained(folder)
    assert np.isfinite([float(p.sum()) for p in model.parameters()]).all()
    assert (tmp_path / "samples-000003.png").stat().st_size > 0
