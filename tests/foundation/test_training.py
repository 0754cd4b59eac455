"""The one training loop: schedules, rows, resuming, averages, and what it refuses."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foundation.batches import ByWeight, InPasses, RowBatches
from foundation.training import TrainingConfig, TrainingRun, learning_rate

TRUTH = torch.tensor([[1.0, -2.0, 0.5]])


class Lines:
    """Rows x (3,) and y (1,) of a linear map, some with noise drawn when they are asked for."""

    def __init__(self, count: int = 12, spoiled: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(count, 3, generator=generator)
        self.y = self.x @ TRUTH.T
        if spoiled is not None:
            self.y[spoiled] = math.nan

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index] + 0.01 * torch.randn(3) + 0.01 * float(np.random.rand()), "y": self.y[index]}


class Fit(nn.Module):
    """Mean squared error of a linear layer behind dropout, which draws random numbers in the objective."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.dropout = nn.Dropout(0.1)
        self.layer = nn.Linear(3, 1)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = (self.layer(self.dropout(batch["x"])) - batch["y"]).abs().mean()
        return error.square(), {"error": error.detach()}


def made(config: TrainingConfig, dataset: Lines | None = None, weights: list[float] | None = None) -> TrainingRun:
    rows = dataset or Lines()
    drawn = InPasses(len(rows), config.batch_size, config.seed)
    chosen = drawn if weights is None else ByWeight(weights, config.batch_size, config.seed)
    objective = Fit().train()
    return TrainingRun(config, objective, list(objective.parameters()), RowBatches(rows, chosen))


def few(out: Path, **changed: Any) -> TrainingConfig:
    settings = {"steps": 6, "batch_size": 4, "warmup_steps": 2, "save_every": 3, "precision": "no", **changed}
    return TrainingConfig(out, **settings)


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights(run: TrainingRun) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.parameters]


def test_rates_rise_then_fall_by_their_formulas(tmp_path: Path) -> None:
    cosine = few(tmp_path, steps=100, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(0, cosine) == pytest.approx(0.1)
    assert learning_rate(50, cosine) == pytest.approx(0.5)
    assert learning_rate(100, cosine) == pytest.approx(0, abs=1e-12)
    root = replace(cosine, schedule="reciprocal_sqrt", warmup_steps=100)
    assert [learning_rate(step, root) for step in (0, 99, 399)] == pytest.approx([0.01, 1, 0.5])
    assert learning_rate(0, replace(cosine, warmup_steps=0)) == pytest.approx(1)
    short = replace(cosine, max_minutes=1.0)
    assert learning_rate(10, short, seconds=30) == pytest.approx(learning_rate(50, cosine))


def test_every_row_comes_once_a_pass() -> None:
    rows = InPasses(10, 4, seed=3)
    drawn = [index for step in range(5) for index in rows(step)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert len(InPasses(3, 8, seed=0)(0)) == 8


def test_rows_by_weight_come_as_often_as_asked() -> None:
    rows = ByWeight([3, 1, 0], 1000, seed=0)
    counts = Counter(rows(0))
    assert counts[0] == pytest.approx(750, abs=60)
    assert counts[2] == 0
    assert rows(0) != rows(1)


def test_processes_share_a_batch() -> None:
    batches = RowBatches(Lines(), InPasses(12, 4, seed=1), collate=list)
    parts = [len(batches(2, process, 2)) for process in (0, 1)]
    assert parts == [2, 2]
    with pytest.raises(ValueError, match="nothing to train on"):
        RowBatches([], InPasses(1, 1, 0))


@pytest.mark.parametrize("draw", [None, [1.0] * 6 + [3.0] * 6])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, draw: list[float] | None) -> None:
    whole = made(few(tmp_path / "whole"), weights=draw)
    whole.train()
    made(few(tmp_path / "parts", save_every=2, steps=4, schedule="reciprocal_sqrt"), weights=draw).train()
    with (tmp_path / "parts" / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "loss": 1.0}) + "\n")  # a line of a step whose state was not saved
    torch.manual_seed(99)
    parts = made(few(tmp_path / "parts", schedule="reciprocal_sqrt"), weights=draw)
    assert parts.step == 4
    parts.train()
    again = made(few(tmp_path / "again", schedule="reciprocal_sqrt"), weights=draw)
    again.train()
    assert all(torch.equal(a, b) for a, b in zip(weights(parts), weights(again), strict=True))
    assert not torch.equal(weights(whole)[0], weights(again)[0])  # another schedule
    with parts.averaged(), again.averaged():
        assert all(torch.equal(a, b) for a, b in zip(weights(parts), weights(again), strict=True))
    strip = [{k: v for k, v in line.items() if k != "seconds"} for line in log(tmp_path / "parts")]
    assert strip == [{k: v for k, v in line.items() if k != "seconds"} for line in log(tmp_path / "again")]


def test_it_learns(tmp_path: Path) -> None:
    run = made(few(tmp_path, steps=400, learning_rate=3e-2, save_every=400, ema_decay=0.9, log_every=100))
    run.objective.dropout.p = 0.0
    run.train()
    lines = log(tmp_path)
    assert [line["step"] for line in lines] == [100, 200, 300, 400]
    assert lines[-1]["loss"] < 0.05 * lines[0]["loss"]
    assert lines[0]["error"] > 0
    torch.testing.assert_close(run.objective.layer.weight.detach(), TRUTH, atol=0.05, rtol=0)


def test_the_average_is_what_the_callbacks_see(tmp_path: Path) -> None:
    run = made(few(tmp_path, ema_decay=0.99))
    seen: list[Tensor] = []

    def save() -> None:
        assert not run.objective.training
        seen.append(run.objective.layer.weight.detach().clone())

    run.train(samples=lambda: np.zeros((4, 6, 3), np.uint8), validate=lambda: {"held_out": float(len(seen))}, save=save)
    assert len(seen) == 2
    assert not torch.equal(seen[-1], run.objective.layer.weight)
    assert run.objective.training
    assert [line["held_out"] for line in log(tmp_path) if "held_out" in line] == [0.0, 1.0]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["samples-000003.png", "samples-000006.png"]
    plain = made(few(tmp_path / "plain", ema_decay=0.0))
    plain.train(save=lambda: seen.append(plain.objective.layer.weight.detach().clone()))
    assert torch.equal(seen[-1], plain.objective.layer.weight)


def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_state(tmp_path: Path) -> None:
    dataset = Lines(20, spoiled=InPasses(20, 4, 0)(4)[0])  # first seen at the fifth step
    with pytest.raises(ValueError, match=r"loss is not finite at step 5 \(loss nan.*lower the learning rate"):
        made(few(tmp_path, save_every=1), dataset).train()
    run = made(few(tmp_path, save_every=1))
    assert run.step == 4
    assert all(bool(torch.isfinite(value).all()) for value in weights(run))


class Cliff(Fit):
    """Finite, with a gradient that is not: the square root at zero."""

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.layer.weight * 0).square().sum().sqrt(), {}


def test_a_gradient_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    objective = Cliff()
    config = few(tmp_path)
    run = TrainingRun(config, objective, list(objective.parameters()), RowBatches(Lines(), InPasses(12, 4, 0)))
    with pytest.raises(ValueError, match="gradient is not finite at step 1"):
        run.train()
    assert bool(torch.isfinite(objective.layer.weight).all())


def test_other_settings_are_refused_and_a_lost_renaming_is_mended(tmp_path: Path) -> None:
    made(few(tmp_path)).train()
    with pytest.raises(ValueError, match="trained with other batch_size, learning_rate"):
        made(few(tmp_path, batch_size=2, learning_rate=1e-2))
    assert made(few(tmp_path, steps=9, workers=0, log_every=2)).step == 6
    (tmp_path / "state").rename(tmp_path / "state.old")  # stopped between the two renamings
    assert made(few(tmp_path)).step == 6
    (tmp_path / "state.old" / "training.json").write_text("{")
    with pytest.raises(ValueError, match="no whole state"):
        made(few(tmp_path))


def test_groups_keep_their_part_of_the_rate(tmp_path: Path) -> None:
    objective = Fit()
    layer = objective.layer
    groups: list[dict[str, Any]] = [{"params": [layer.weight], "lr": 3e-5}, {"params": [layer.bias]}]
    run = TrainingRun(few(tmp_path), objective, groups, RowBatches(Lines(), InPasses(12, 4, 0)))
    run.train()
    slow, fast = (group["lr"] for group in run.optimizer.param_groups)
    assert slow == pytest.approx(0.1 * fast)
    assert fast == pytest.approx(learning_rate(5, run.config))


@dataclass(frozen=True)
class Bigger(TrainingConfig):
    """More fields, as a stage adds them."""

    data: tuple[Path, ...] = ()
    slices: int = 8


def test_paths_may_move(tmp_path: Path) -> None:
    config = Bigger(tmp_path, steps=1, batch_size=4, precision="no", data=(tmp_path / "a",))
    made(config).train()
    assert made(replace(config, data=(tmp_path / "b",))).step == 1
    with pytest.raises(ValueError, match="slices"):
        made(replace(config, slices=2))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("steps", 0, "steps is 0; it must be at least 1"),
        ("batch_size", -2, "at least 1"),
        ("learning_rate", 0.0, "above 0, at most 1"),
        ("learning_rate", math.nan, "not a number"),
        ("gradient_clip", 0.0, "above 0"),
        ("ema_decay", 1.0, "from 0 to"),
        ("save_every", 0, "at least 1"),
        ("log_every", 0, "at least 1"),
        ("precision", "fp8", "no, bf16, fp16"),
        ("schedule", "linear", "cosine, reciprocal_sqrt"),
        ("steps", 2.5, "whole number"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, name: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is") as caught:
        TrainingConfig(tmp_path, **{name: value})
    assert says in str(caught.value)


def test_a_limit_in_minutes_ends_a_run_early(tmp_path: Path) -> None:
    run = made(few(tmp_path, steps=10_000_000, max_minutes=1e-5, save_every=10_000_000))
    run.train()
    assert 0 < run.step < 10_000_000
    assert made(few(tmp_path, steps=10_000_000, max_minutes=1e-5)).step == run.step
