"""Recognition of single sprites: parts of the grid, what is trained, and what another run takes over."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rahf.data.sprites import Sprite, SpriteLibrary
from rahf.model.checkpoints import CheckpointError
from rahf.model.config import PYRAMID
from rahf.model.rahf import RAHF
from rahf.model.towers import RECOGNITION, load_recognition
from rahf.prompts import ByteTokenizer
from rahf.training.recognition import SIDE, RecognitionConfig, single_object, train_recognition
from tests.rahf.conftest import TINY

CONFIG = TINY.changed(image_tower=PYRAMID, image_size=128, patch_size=16, word_rows=64)


def sprite(noun: str, place: int) -> Sprite:
    pixels = np.zeros((40, 40, 4), np.uint8)
    rows, columns = np.mgrid[:40, :40]
    round_one = (rows - 20) ** 2 + (columns - 20) ** 2 < (14 + place) ** 2
    pixels[round_one if noun == "ball" else (columns > rows), :] = [200, 40 + 20 * place, 30, 255]
    return Sprite(noun, pixels, f"{noun}{place}.png")


@pytest.fixture(scope="module")
def library() -> SpriteLibrary:
    return SpriteLibrary([sprite(noun, place) for noun in ("ball", "tent") for place in range(4)])


def fresh(seed: int = 0) -> RAHF:
    torch.manual_seed(seed)
    return RAHF(CONFIG).eval()


def test_a_part_takes_the_positions_of_its_corner() -> None:
    model = fresh()
    torch.nn.init.normal_(model.pyramid.positions)
    picture = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        whole, part = model.encode_image(picture), model.encode_part(picture, (0, 0))
        moved = model.pyramid.part(picture[..., :64, :64], (3, 2))
        positions = model.pyramid.positions.reshape(8, 8, -1)[3:7, 2:6].reshape(1, 16, -1)
        expected = model.pyramid.tokens(picture[..., :64, :64], positions)
    torch.testing.assert_close(whole, part)
    torch.testing.assert_close(moved, expected)
    with pytest.raises(ValueError, match="only efficientnet"):
        RAHF(TINY).encode_part(picture, (0, 0))


def test_single_objects_are_what_they_say(library: SpriteLibrary) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        sample = single_object(library.split("train"), ("plain",), generator)
        (thing,) = sample.objects
        assert sample.image.shape == (SIDE, SIDE, 3)
        assert thing.noun in ("ball", "tent")
        assert 0.02 < thing.mask.mean() < 0.9


def test_only_recognition_is_trained_and_taken_over(library: SpriteLibrary, tmp_path: Path) -> None:
    model, before = fresh(), fresh().state_dict()
    config = RecognitionConfig(tmp_path, steps=2, batch_size=4, warmup_steps=1, log_every=2)
    train_recognition(model, library, ByteTokenizer(), config)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith(RECOGNITION) for name in changed)
    training, numbers = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert training["grounding"] > 0
    assert 0 <= numbers["noun"] <= 1
    other = load_recognition(fresh(1), str(tmp_path))
    for name, tensor in other.state_dict().items():
        source = model if name.startswith(RECOGNITION) else fresh(1)
        torch.testing.assert_close(tensor, source.state_dict()[name])
    with pytest.raises(CheckpointError, match="does not fit"):
        load_recognition(RAHF(TINY), str(tmp_path))


def test_a_resumed_run_equals_an_uninterrupted_one(library: SpriteLibrary, tmp_path: Path) -> None:
    few = {"batch_size": 2, "warmup_steps": 1, "save_every": 2, "log_every": 1, "schedule": "reciprocal_sqrt"}
    whole = RecognitionConfig(tmp_path / "whole", steps=4, **few)
    parts = RecognitionConfig(tmp_path / "parts", steps=4, **few)
    train_recognition(fresh(), library, ByteTokenizer(), whole)
    train_recognition(fresh(), library, ByteTokenizer(), replace(parts, steps=2))
    train_recognition(fresh(), library, ByteTokenizer(), parts)
    first, second = (RAHF.from_pretrained(config.out) for config in (whole, parts))
    for (name, expected), found in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(expected, found), name


@pytest.mark.parametrize("name", ["steps", "batch_size", "save_every", "log_every"])
def test_impossible_settings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=name):
        RecognitionConfig(tmp_path, **{name: 0})
