"""The feature-pyramid tower, the grounding task, and weights in parts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model

from rahf.data.samples import Sample, SceneObject
from rahf.model.checkpoints import INDEX_FILE, CheckpointError, save_parts
from rahf.model.config import PYRAMID, RAHFConfig
from rahf.model.rahf import RAHF
from rahf.model.word_embedding import spelling_hashes
from rahf.prompts import ByteTokenizer
from rahf.training.auxiliary import GROUND, UNKNOWN, Auxiliary, Places, places_of, word_ends
from tests.rahf.conftest import TINY

CONFIG = TINY.changed(image_tower=PYRAMID, image_size=64, patch_size=16, word_rows=64)


@pytest.fixture(scope="module")
def model() -> RAHF:
    torch.manual_seed(0)
    return RAHF(CONFIG).eval()


def test_each_token_answers_for_its_patch(model: RAHF) -> None:
    image = torch.full((1, 3, 64, 64), 0.4)
    changed = image.clone()
    changed[..., 48:, 48:] = 1.0
    moved = (model.pyramid(changed) - model.pyramid(image)).detach().abs().mean(dim=-1)[0, 1:].reshape(4, 4)
    assert float(moved[3, 3]) == float(moved.max())


def test_early_layers_and_statistics_stay_as_pretrained(model: RAHF) -> None:
    model.train()
    before = model.pyramid.trunk.blocks[-1].project[1].running_mean.clone()
    model.pyramid(torch.rand(2, 3, 64, 64)).sum().backward()
    assert torch.equal(model.pyramid.trunk.blocks[-1].project[1].running_mean, before)
    assert model.pyramid.trunk.stem[0].weight.grad is None
    assert model.pyramid.trunk.blocks[-1].project[0].weight.grad is not None
    model.zero_grad()
    model.eval()


@pytest.mark.parametrize("size", [48, 100])
def test_sizes_that_the_pyramid_cannot_halve_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        RAHFConfig(image_tower=PYRAMID, image_size=size)


def sample() -> Sample:
    left, small = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    left[:, :32] = True
    small[:4, 60:] = True  # a sixteenth of its patch: too little
    objects = (SceneObject(left, "cat", "red"), SceneObject(small, "dog"))
    return Sample("s", np.zeros((64, 64, 3), np.uint8), "a red cat", objects=objects)


def test_places_name_what_covers_a_token() -> None:
    bare = Sample("p", np.zeros((64, 64, 3), np.uint8), "a photograph")
    places = places_of([sample(), bare], 4, ["cat", "dog"], ["blue", "red"])
    assert places.nouns[0].reshape(4, 4).tolist() == [[1, 1, GROUND, GROUND]] * 4
    assert places.colours[0].reshape(4, 4).tolist() == [[2, 2, UNKNOWN, UNKNOWN]] * 4
    assert (places.nouns[1] == UNKNOWN).all()
    assert places.centres[0].reshape(4, 4).tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert places.centres[1].isnan().all()


def test_grounding_is_the_mean_of_ground_and_objects(model: RAHF) -> None:
    grounding = Auxiliary(model, ByteTokenizer(), ["cat", "dogs"], ["red"])
    assert grounding.noun_rows[1] == spelling_hashes(torch.tensor([ByteTokenizer().encode("dog")]), 64, False)[0, 0]
    visual = torch.randn(1, 17, CONFIG.text_width)
    nouns = torch.tensor([[GROUND] * 12 + [1, 2, UNKNOWN, UNKNOWN]])
    places = Places(nouns, torch.full_like(nouns, UNKNOWN), torch.full(nouns.shape, torch.nan))
    tokens = F.layer_norm(visual[0, 1:], (CONFIG.text_width,))
    table = torch.cat([torch.zeros(1, CONFIG.text_width), model.word_embedding.spelling.weight[grounding.noun_rows]])
    loss = F.cross_entropy(model.word_matching.keys["noun"](tokens) @ table.T, nouns[0].clamp(min=0), reduction="none")
    expected = (loss[:12].mean() + loss[12:14].mean()) / 2
    torch.testing.assert_close(grounding.grounding(model, visual, places), expected)


def test_spotting_compares_each_patch_with_its_part_of_the_heatmap(model: RAHF) -> None:
    auxiliary = Auxiliary(model, ByteTokenizer(), ["cat"], ["red"])
    visual = torch.randn(2, 17, CONFIG.text_width)
    heatmaps = torch.rand(2, 16, 16)
    chances = torch.sigmoid(auxiliary.implausible(visual[:, 1:])[..., 0]).reshape(2, 4, 4)
    true = heatmaps.reshape(2, 4, 4, 4, 4).mean(dim=(2, 4))
    loss = -(true * chances.log() + (1 - true) * (1 - chances).log())
    torch.testing.assert_close(auxiliary.spotting(visual, heatmaps), loss.mean())
    heatmaps[1] = torch.nan  # not labelled
    torch.testing.assert_close(auxiliary.spotting(visual, heatmaps), loss[0].mean())


def test_words_end_at_their_last_byte(model: RAHF) -> None:
    tokenizer = ByteTokenizer()
    words = [["two", "cats"], ["a", "photo"], ["dog"]]
    ends = word_ends(words, [[0, 1], None, [1]], tokenizer)
    texts = ["two cats", "a photo", "dog"]
    last = [texts[row].encode()[end : end + 1] for row, end in zip(ends.rows, ends.ends, strict=True)]
    assert last == [b"o", b"s", b"g"]
    assert ends.marks.tolist() == [0, 1, 1]
    auxiliary = Auxiliary(model, tokenizer, ["cat"], ["red"])
    context = torch.randn(3, 9, CONFIG.text_width)
    odds = [auxiliary.misaligned(context[row, end]) for row, end in ((0, 2), (0, 7), (2, 2))]
    chances = torch.sigmoid(torch.cat(odds))
    expected = -(torch.log(1 - chances[0]) + torch.log(chances[1]) + torch.log(chances[2])) / 3
    torch.testing.assert_close(auxiliary.judging(context, ends), expected)


def test_weights_in_parts_come_back_whole(model: RAHF, tmp_path: Path) -> None:
    most = 1_500_000
    parts = save_parts(model, CONFIG, tmp_path / "parts", torch.float16, most)
    assert len(parts) > 1
    assert all(part.stat().st_size <= most for part in parts)
    loaded = RAHF.from_pretrained(tmp_path / "parts")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)
    parts[0].unlink()
    with pytest.raises(CheckpointError, match=parts[0].name):
        RAHF.from_pretrained(tmp_path / "parts")


def test_a_damaged_index_and_an_oversized_tensor_are_named(model: RAHF, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than a part"):
        save_parts(model, CONFIG, tmp_path / "small", torch.float32, 200_000)
    assert not list(tmp_path.iterdir())
    folder = tmp_path / "parts"
    save_parts(model, CONFIG, folder, torch.float16, 1_500_000)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": []}))
    with pytest.raises(CheckpointError, match="damaged"):
        RAHF.from_pretrained(folder)


def test_the_auxiliary_layers_can_be_stored_and_gone_on_from(model: RAHF, tmp_path: Path) -> None:
    first, second = (Auxiliary(model, ByteTokenizer(), ["cat", "dog"], ["red"]) for _ in range(2))
    save_model(first, str(tmp_path / "auxiliary.safetensors"))
    load_model(second, tmp_path / "auxiliary.safetensors")
    assert torch.equal(first.misaligned.weight, second.misaligned.weight)
    assert torch.equal(first.noun_rows, second.noun_rows)
