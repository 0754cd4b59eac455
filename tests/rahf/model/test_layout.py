"""Counts and places of what words name, against sums written out."""

import logging
from pathlib import Path

import pytest
import torch

from rahf.model.checkpoints import CheckpointError
from rahf.model.config import SMALL, RAHFConfig
from rahf.model.layout import THRESHOLDS, Layout
from rahf.model.rahf import RAHF
from rahf.model.towers import load_fitting

TINY = SMALL.changed(
    image_size=64, vit_width=24, text_width=24, text_heads=2, text_key_width=8, text_mlp=24, text_layers=1
)
TINY = TINY.changed(word_rows=64, heatmap_stem=(8, 8), heatmap_stages=(4,), score_channels=(4,), score_hidden=(4,))


def test_numbers_are_counts_places_and_spread() -> None:
    torch.manual_seed(0)
    layout = Layout(8, 2)
    patches, odds = torch.randn(1, 9, 8), [torch.randn(1, 3, 9) * 5 for _ in range(2)]
    layout.requires_grad_(False)
    numbers = layout.numbers(patches, odds)[0]
    centres = torch.sigmoid(patches[0] @ layout.centre.weight[0] + layout.centre.bias)
    for word in range(3):
        expected = []
        for sense in range(2):
            for level in THRESHOLDS:
                expected.append(sum(centres[p] * torch.sigmoid(odds[sense][0, word, p] - level) for p in range(9)) / 4)
        chances = torch.softmax(odds[0][0, word], dim=0)
        points = [(row, column) for row in (-2 / 3, 0, 2 / 3) for column in (-2 / 3, 0, 2 / 3)]
        row = sum(float(chance) * point[0] for chance, point in zip(chances, points, strict=True))
        column = sum(float(chance) * point[1] for chance, point in zip(chances, points, strict=True))
        spread = sum(
            float(chance) * ((y - row) ** 2 + (x - column) ** 2) for chance, (y, x) in zip(chances, points, strict=True)
        )
        expected += [row, column, spread, centres.sum() / 4]
        torch.testing.assert_close(numbers[word], torch.tensor([float(value) for value in expected]))


def test_a_new_layout_adds_nothing_and_then_learns() -> None:
    layout = Layout(8, 2)
    patches, odds = torch.randn(2, 9, 8), [torch.randn(2, 3, 9) for _ in range(2)]
    added = layout(patches, odds)
    assert added.shape == (2, 3, 8)
    assert not added.any()
    added.sum().backward()
    assert layout.to_text[2].weight.grad is not None
    assert layout.to_text[2].weight.grad.any()


def test_weights_without_a_layout_are_grown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = RAHF(TINY.changed(layout=False))
    old.save_pretrained(tmp_path / "old")
    new = RAHF(TINY)
    with caplog.at_level(logging.INFO):
        load_fitting(new, str(tmp_path / "old"))
    assert "word_matching.layout.centre.weight" in caplog.text
    for name, tensor in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], tensor), name
    other = RAHFConfig(image_size=32, vit_width=8, vit_layers=1, vit_heads=1, vit_mlp=8, text_width=8, text_layers=1)
    other = other.changed(text_decoder_layers=1, text_heads=1, text_mlp=8, vocabulary=16, text_key_width=8)
    small = other.changed(
        heatmap_stem=(4,), heatmap_stages=(4,), score_channels=(4,), score_hidden=(4,), relative_buckets=8
    )
    RAHF(small).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="of another kind"):
        load_fitting(new, str(tmp_path / "other"))
