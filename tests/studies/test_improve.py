"""The study of the tools: what counts as right, masks that are moved, and the table."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def improve() -> ModuleType:
    path = Path(__file__).parents[2] / "studies" / "improve.py"
    spec = importlib.util.spec_from_file_location("studies_improve", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def entry(objects: bool, colours: bool | None, counts: bool, plausibility: float = 0.5) -> dict[str, object]:
    return {
        "objects": objects,
        "colours": colours,
        "counts": counts,
        "scores": {"plausibility": plausibility},
        "changed": True,
        "calls": 50,
        "seconds": 1.0,
    }


def test_a_picture_is_right_if_nothing_is_wrong(improve: ModuleType) -> None:
    assert improve.right(entry(True, None, True)) == 1.0
    assert improve.right(entry(True, False, True)) == 0.0
    assert improve.right(entry(True, True, False)) == 0.0


def test_a_moved_mask_keeps_its_size(improve: ModuleType) -> None:
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[5:12, 20:50] = True
    places = {tuple(improve.moved(mask, seed).nonzero()[0].tolist()) for seed in range(20)}
    assert len(places) > 10
    assert all(int(improve.moved(mask, seed).sum()) == 7 * 30 for seed in range(20))


def test_an_interval_holds_the_mean(improve: ModuleType) -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 400)
    mean, low, high = improve.interval(values)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert low < mean < high


def test_differences_are_paired_by_prompt(improve: ModuleType, tmp_path: Path) -> None:
    """Repair mends every second wrong picture; a method that is missing somewhere is left out there."""
    for number in range(40):
        wrong = number % 2 == 0
        methods = {"plain": entry(not wrong, None, True), "repair": entry(not wrong or number % 4 == 0, None, True)}
        if number < 10:
            methods["words"] = methods["plain"]
        (tmp_path / f"{number:04d}.json").write_text(json.dumps({"prompt": "a cat", "methods": methods}))
    lines = improve.table(tmp_path).splitlines()
    plain, repaired, words = (next(line for line in lines if line.startswith(f"| {name} |")) for name in
        ("plain", "repair", "words"))  # fmt: skip
    assert plain.startswith("| plain | 40 | 0.50 (")
    assert repaired.startswith("| repair | 40 | 0.75 (")
    assert words.startswith("| words | 10 |")
    change = next(line for line in lines if line.startswith("| repair - plain |"))
    assert "+0.250" in change
    assert "+0.500" in change
    assert change.endswith("| helps |")
    same = next(line for line in lines if line.startswith("| words - plain |"))
    assert same.endswith("| no difference shown |")
