"""The part that holds pictures of things still: its features against the trunk's own, its fit against scipy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.optimize import minimize
from torch import nn

from foundation.efficientnet import EfficientNetLite0
from gid.data.scenes import SceneConfig
from gid.data.shards import write_shards
from gid.diffusion.pipeline import GIDPipeline, load_pipeline
from gid.diffusion.stillness import Stillness, late_norm_channels
from gid.motion.normalization import envelope_of, to_isotropic
from gid.training import stillness as stage
from gid.training.stillness import StillnessTrainingConfig, fitted, shown, train_stillness
from tests.tiny import photo, tiny_pipeline


@pytest.fixture(scope="module")
def trunk() -> EfficientNetLite0:
    """Random weights and random batch statistics."""
    torch.manual_seed(0)
    trunk = EfficientNetLite0().eval()
    for norm in trunk.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 2.0)
    return trunk


def picture(height: int = 64, width: int = 96, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_with_the_trunks_own_statistics_the_last_level_is_the_trunks(trunk: EfficientNetLite0) -> None:
    model = Stillness()
    model.keep_statistics(trunk)
    with torch.no_grad():
        torch.testing.assert_close(model.last_level(trunk, picture()), trunk(picture())[-1])
    norms = [
        m for block in trunk.blocks[trunk.early_blocks :] for m in block.modules() if isinstance(m, nn.BatchNorm2d)
    ]
    assert late_norm_channels() == [norm.num_features for norm in norms]


def test_the_statistics_kept_count_and_the_trunk_stays_as_it_is(trunk: EfficientNetLite0) -> None:
    model = Stillness()
    model.keep_statistics(trunk)
    expected = model.features(trunk, picture())
    changed = EfficientNetLite0().eval()
    changed.load_state_dict(trunk.state_dict())
    for norm in changed.blocks[changed.early_blocks :].modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.add_(1)
    before = {name: value.clone() for name, value in changed.state_dict().items()}
    torch.testing.assert_close(model.features(changed, picture()), expected)
    assert all(torch.equal(value, before[name]) for name, value in changed.state_dict().items())
    with torch.no_grad():
        assert not torch.allclose(changed(picture())[-1].mean((2, 3)), trunk(picture())[-1].mean((2, 3)), rtol=0.05)


def test_features_are_the_mean_over_two_scales(trunk: EfficientNetLite0) -> None:
    model = Stillness()
    model.keep_statistics(trunk)
    whole = picture(128, 192)
    half = F.interpolate(whole, (64, 96), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = (trunk(whole)[-1].mean((2, 3)) + trunk(half)[-1].mean((2, 3))) / 2
    torch.testing.assert_close(model.features(trunk, whole), expected)


def test_the_factor_is_the_odds_between_its_limits() -> None:
    model = Stillness(threshold=-1.0, least=0.2)
    factors = model.factor(torch.tensor([5.0, -1.0, -1.5, -2.0, -30.0])).tolist()
    assert factors == pytest.approx([1.0, 1.0, np.exp(-0.5), np.exp(-1.0), 0.2])
    with pytest.raises(ValueError, match=r"least is 1\.5"):
        Stillness(least=1.5)


def test_untrained_it_changes_nothing(trunk: EfficientNetLite0) -> None:
    assert Stillness()(trunk, picture()).tolist() == [1.0]


def test_the_fit_is_the_minimum_that_scipy_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=generator) * torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0]) + 1
    moves = features[:, 0] + 0.7 * torch.randn(60, generator=generator) > 1.3
    weights = torch.rand(60, generator=generator) + 0.1
    weight, bias = fitted(features, moves, weights, 1e-3)
    unit = features.std(0).clamp_min(0.05 * features.std(0).mean()).double().numpy() * 15
    x, y, w = features.double().numpy() / unit, moves.double().numpy(), weights.double().numpy()
    balance = w / np.where(y > 0, (w * y).sum(), (w * (1 - y)).sum()) / 2

    def loss(theta: np.ndarray) -> float:
        z = x @ theta[:-1] + theta[-1]
        return float((balance * (np.logaddexp(0, z) - y * z)).sum() + 1e-3 * (theta[:-1] ** 2).sum())

    best = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-9})
    found = np.append(weight.double().numpy() * unit, float(bias))
    assert loss(found) == pytest.approx(best.fun, abs=1e-6)
    np.testing.assert_allclose(found, best.x, rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match="one label"):
        fitted(features, torch.ones(60, dtype=torch.bool), weights, 1e-3)


def held_still(pipeline: GIDPipeline, score: float) -> GIDPipeline:
    """The pipeline with a stillness part that gives every picture this score."""
    part = Stillness(threshold=-1.0, least=0.1)
    part.bias.data.fill_(score)
    return GIDPipeline(**{**pipeline.components, "stillness": part}, **settings(pipeline))


def settings(pipeline: GIDPipeline) -> dict[str, object]:
    return {key: pipeline.config[key] for key in ("scales", "envelope", "motion_area", "num_frames", "fps", "name")}


def test_the_pipeline_scales_the_envelope_by_it(tmp_path: Path) -> None:
    plain = tiny_pipeline()
    free, held = plain(photo(), steps=2).volumes[0], held_still(plain, -2.5)(photo(), steps=2).volumes[0]
    rows, columns = free.coefficients.shape[-2:]
    energies = [envelope_of(to_isotropic(volume.real, columns, rows)) for volume in (free, held)]
    assert float(energies[0].max()) > 0
    torch.testing.assert_close(energies[1], energies[0] * float(np.exp(-1.5)), rtol=1e-3, atol=1e-7)
    assert held_still(plain, 3.0)(photo(), steps=2).volumes[0].coefficients.equal(free.coefficients)


def test_whoever_wants_a_still_thing_to_sway_may() -> None:
    plain = tiny_pipeline()
    free = plain(photo(), steps=2).volumes[0].coefficients
    held = held_still(plain, -2.5)
    assert torch.equal(held(photo(), steps=2, hold_still=False).volumes[0].coefficients, free)
    assert not torch.allclose(held(photo(), steps=2).volumes[0].coefficients, free)


def test_it_is_saved_and_loaded_and_may_be_missing(tmp_path: Path) -> None:
    held = held_still(tiny_pipeline(), -2.0)
    held.save_pretrained(tmp_path / "held")
    loaded = load_pipeline(tmp_path / "held", "cpu")
    assert isinstance(loaded.stillness, Stillness)
    assert loaded.stillness.bias.item() == -2.0
    expected = held(photo(), steps=1).volumes[0].coefficients
    torch.testing.assert_close(loaded(photo(), steps=1).volumes[0].coefficients, expected)
    tiny_pipeline().save_pretrained(tmp_path / "plain")
    assert load_pipeline(tmp_path / "plain", "cpu").stillness is None
    index = tmp_path / "plain" / "model_index.json"
    fields = json.loads(index.read_text())
    fields.pop("stillness", None)  # as weights made before this part existed
    index.write_text(json.dumps(fields))
    assert load_pipeline(tmp_path / "plain", "cpu").stillness is None


def test_training_tells_dark_pictures_from_bright_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    random = EfficientNetLite0().eval()
    monkeypatch.setattr(stage, "pretrained_trunk", lambda: random)
    generator = np.random.default_rng(0)
    for folder, level in (("moving", 200), ("still", 20)):
        (tmp_path / folder).mkdir()
        for index in range(6):
            pixels = generator.integers(0, 40, (48, 64, 3)) + level
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{folder}-{index}.png")
    config = StillnessTrainingConfig(tmp_path / "out", tmp_path / "moving", tmp_path / "still", folds=3)
    model = Stillness.from_pretrained(train_stillness(config) / "stillness")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["moving"], report["still"], report["auc"]) == (6, 6, 1.0)
    noise = torch.from_numpy(generator.integers(0, 40, (2, 3, 48, 64))).float()
    unseen = [shown((noise[i] + level) / 255)[None] for i, level in enumerate((200, 20))]
    scores = [float(model.score(model.features(random, pixels))) for pixels in unseen]
    assert scores[0] > 0 > scores[1]
    # Scenes are told apart from photographs; a small flame is motion enough.
    small = SceneConfig(width=128, height=64, num_bands=8)
    (shard,) = write_shards(tmp_path / "rare", 3, small, workers=1, kinds=("candles",))
    assert all(amplitude > stage.STILL_SCENE for _, _, amplitude in stage._scenes(shard, 0))
    with_scenes = replace(config, out=tmp_path / "scenes", rare=(tmp_path / "rare",))
    train_stillness(with_scenes)
    report = json.loads((tmp_path / "scenes" / "report.json").read_text())
    assert (report["moving"], report["still"], report["scenes"]) == (6, 6, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no photograph in"):
        train_stillness(StillnessTrainingConfig(tmp_path / "out", tmp_path / "empty", tmp_path / "still"))
