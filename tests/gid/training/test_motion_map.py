"""The motion map's stage, shortened, on clips that the test draws; and its parts against numpy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from foundation.video import write_video
from gid.data.scenes import SceneConfig
from gid.data.shards import write_shards
from gid.diffusion.motion_map import MotionMap
from gid.training.motion_map import (
    MotionMapTrainingConfig,
    amount_of,
    main_components,
    train_motion_map,
    typical_amount,
    visible_scores,
    weighted_correlation,
)
from gid.training.motion_map_data import (
    MeasuredFrame,
    MotionRows,
    Row,
    View,
    scene_frames,
    seen_when_moving,
    table_of,
)


def _clip(path: Path, seed: int, count: int = 40) -> None:
    """A textured disc that swings before a textured wall."""
    generator = np.random.default_rng(seed)
    wall, disc = (cv2.GaussianBlur(generator.normal(size=(144, 256, 3)), (0, 0), 2) for _ in range(2))
    wall, disc = (np.clip(110 + 40 * x / x.std(), 0, 255).astype(np.uint8) for x in (wall, disc))
    y, x = np.mgrid[:144, :256]
    frames = []
    for step in range(count):
        shift = 3 * np.sin(2 * np.pi * 2 * step / count)
        moved = cv2.warpAffine(disc, np.array([[1, 0, shift], [0, 1, 0]]), (256, 144))
        inside = (x - 90 - shift - 40 * (seed % 3)) ** 2 + (y - 70) ** 2 < 40**2
        frames.append(np.where(inside[..., None], moved, wall))
    write_video(path, [np.stack(frames)], 25)


@pytest.mark.slow
def test_a_shortened_run_writes_a_map_that_loads(tmp_path: Path) -> None:
    clips, still = tmp_path / "clips", tmp_path / "still"
    clips.mkdir()
    still.mkdir()
    for seed in range(3):
        _clip(clips / f"disc{seed}_loop.mp4", seed)
    cv2.imwrite(str(still / "wall.png"), np.full((90, 160, 3), 120, np.uint8))
    config = MotionMapTrainingConfig(
        out=tmp_path / "run",
        clips=(clips,),
        still=(still,),
        starts=2,
        components=21,
        width=8,
        members=2,
        steps=3,
        batch_size=2,
        warmup_steps=1,
    )
    assert train_motion_map(config) == tmp_path / "run"
    model = MotionMap.from_pretrained(tmp_path / "run" / "motion_map")
    assert len(model.heads) == 2
    assert not torch.equal(model.heads[0].enter.weight, model.heads[1].enter.weight)
    assert model.get_buffer("projection").shape == (21, 1152)
    # The disc swings by 3 of 256 pixels.
    assert model.config.amount == pytest.approx(3 / np.sqrt(2) / np.sqrt(256 * 144), rel=0.25)
    envelope = model.envelope(torch.rand(3, 90, 160), (32, 64))
    assert envelope.isfinite().all()
    assert (tmp_path / "run" / "data" / "tokens" / "disc0_0@4.npy").is_file()
    assert not (tmp_path / "run" / "data" / "tokens" / "disc0_1@1.npy").exists()
    # What is seen to move lies at the disc, not on the wall: the second disc hangs to the right.
    visible = np.load(tmp_path / "run" / "data" / "visible" / "disc1.npy")
    assert visible[12:22, 24:41].mean() > 5 * visible[:, :8].mean()


def test_without_clips_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name one or more with --clips"):
        train_motion_map(MotionMapTrainingConfig(out=tmp_path))
    with pytest.raises(ValueError, match="fold is 5"):
        MotionMapTrainingConfig(out=tmp_path, fold=5)


def test_weighted_correlation_is_that_of_repeated_cells() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(2, 1, 1, 6, 7))
    weight = generator.integers(0, 4, size=(1, 1, 6, 7))
    expected = np.corrcoef(np.repeat(a.ravel(), weight.ravel()), np.repeat(b.ravel(), weight.ravel()))[0, 1]
    found = weighted_correlation(*(torch.from_numpy(x).double() for x in (a, b, weight)))
    assert float(found) == pytest.approx(expected, abs=1e-6)
    flat = weighted_correlation(torch.ones(1, 1, 4, 4), torch.rand(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    assert float(flat) == pytest.approx(0, abs=1e-3)


def test_components_of_a_layer_are_uncorrelated_and_centred() -> None:
    generator = np.random.default_rng(2)
    mixing = generator.normal(size=(9, 9))
    tokens = [(mixing @ generator.normal(size=(9, 320))).reshape(9, 16, 20).astype(np.float16) for _ in range(20)]
    mean, projection = main_components(tokens, 6)
    assert projection.shape == (6, 9)
    cells = np.concatenate([t[:, ::2, ::2].reshape(9, -1).T.astype(np.float32) for t in tokens])
    components = (cells - mean.numpy()) @ projection.numpy().T
    np.testing.assert_allclose(components.mean(0), 0, atol=1e-3)
    # Layers are of three channels each; the last two components are of the third layer.
    correlation = np.corrcoef(components[:, -3:].T)
    np.testing.assert_allclose(correlation, np.eye(3), atol=0.02)
    assert not projection[-1, :6].any()


def test_views_cut_and_mirror() -> None:
    values = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(View(mirrored=True).of(values), values[:, ::-1])
    np.testing.assert_array_equal(View(0.5, 1, 0).of(values), [[2, 3]])
    flat, sloped = np.ones((36, 64), np.float32), np.eye(36, 64, dtype=np.float32)
    row = Row(MeasuredFrame("a", 0, np.zeros((9, 16, 3), np.uint8), flat, sloped, flat), 1)
    energy, confidence = row.of(row.frame.energy, (37, 21)), row.of(row.frame.confidence, (37, 21))
    assert energy.shape == confidence.shape == (21, 37)
    assert confidence[0, -1] > confidence[0, 0]


def test_what_is_seen_lies_between_the_entries_of_the_table() -> None:
    table = np.sort(np.random.default_rng(6).uniform(0, 40, (1, 9, 5, 7)).astype(np.float32), 1)
    shakes = 0.0875 * 2.0 ** np.arange(9)
    lengths = np.random.default_rng(7).uniform(np.log(0.0875), np.log(22), (1, 5, 7))
    found = seen_when_moving(torch.from_numpy(table), torch.from_numpy(lengths).float())[0].numpy()
    for i, j in np.ndindex(5, 7):
        expected = np.interp(lengths[0, i, j], np.log(shakes), table[0, :, i, j])
        assert found[i, j] == pytest.approx(expected, rel=1e-4)
    least = seen_when_moving(torch.from_numpy(table), torch.full((1, 5, 7), float(np.log(0.0875 / 8))))
    np.testing.assert_allclose(least[0].numpy(), table[0, 0] / 8, rtol=1e-5)


def test_visible_scores_are_those_of_numpy() -> None:
    generator = np.random.default_rng(8)
    photo = np.clip(110 + 60 * cv2.GaussianBlur(generator.normal(size=(72, 128, 3)), (0, 0), 1), 0, 255).astype(
        np.uint8
    )
    table = table_of(photo)
    assert table.shape == (9, 36, 64)
    seen = np.zeros((36, 64), np.float32)
    seen[:, 32:] = table[5][:, 32:]
    log_energy = generator.normal(size=(36, 64)).astype(np.float32)
    mine = seen_when_moving(torch.from_numpy(table)[None], torch.from_numpy(log_energy)[None])[0].numpy()
    correlation, leakage = visible_scores(
        torch.from_numpy(log_energy)[None, None], torch.from_numpy(seen)[None], torch.from_numpy(table)[None]
    )
    expected = np.corrcoef(np.log1p(mine / mine.mean()).ravel(), np.log1p(seen / seen.mean()).ravel())[0, 1]
    assert float(correlation) == pytest.approx(expected, abs=1e-3)
    still = seen < 0.1 * np.quantile(seen, 0.95)
    assert float(leakage) == pytest.approx(mine[still].mean() / mine[~still].mean(), rel=1e-4)


def test_scenes_know_their_motion_and_take_their_share(tmp_path: Path) -> None:
    config = SceneConfig(width=112, height=64)
    write_shards(tmp_path, 6, config, seed=3, shard_size=6, workers=1)
    drawn = scene_frames((tmp_path,), 2)
    assert 1 <= len(drawn) <= 3
    assert all(frame.drawn and frame.energy.max() >= 0.3 and frame.visible.max() > 0 for frame in drawn)
    # Where a scene stands still nothing is seen.
    still = drawn[0].energy == 0
    assert not still.any() or drawn[0].visible[still].max() < 1
    flat = np.ones((36, 64), np.float32)
    real = [MeasuredFrame(name, 0, drawn[0].photo, flat, flat, flat) for name in ("latern", "latern_2", "fern")]
    rows = MotionRows([Row(frame, 0) for frame in [*real, *drawn]], [np.zeros((5, 21, 37), np.float16)] * 9)
    weights = rows.weights(0.25)
    assert weights[0] == pytest.approx(0.75 / 2 / 2)
    assert weights[2] == pytest.approx(0.75 / 2)
    assert sum(weights) == pytest.approx(1)
    with pytest.raises(ValueError, match="give 1 or more"):
        scene_frames((tmp_path,), 0)


def test_amount_is_of_what_moves_most_where_it_can_be_believed() -> None:
    energy = np.full((36, 64), 100.0, np.float32)
    energy[:, :32] = np.linspace(0, 10, 36 * 32).reshape(36, 32)
    confidence = np.zeros((36, 64), np.float32)
    confidence[:, :32] = 0.5
    frame = MeasuredFrame("a", 0, np.zeros((144, 256, 3), np.uint8), energy, confidence, energy)
    assert amount_of(frame) == pytest.approx(9.8 / np.sqrt(256 * 144), rel=1e-3)
    double = MeasuredFrame("b", 0, frame.photo, energy * 4, confidence, energy)
    again = MeasuredFrame("b", 0, frame.photo, energy * 4, confidence, energy)
    assert typical_amount([frame, double, again]) == pytest.approx(2 * amount_of(frame), rel=1e-3)
