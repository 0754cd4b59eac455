"""Words against visual tokens, written out; and the whole small architecture, one image alone and among others."""

import math

import pytest
import torch
import torch.nn.functional as F

from rahf.model.config import PYRAMID
from rahf.model.matching import SENSES, WordMatching
from rahf.model.rahf import RAHF
from rahf.prompts import ByteTokenizer, encode_prompts
from tests.rahf.conftest import TINY

CONFIG = TINY.changed(image_tower=PYRAMID, image_size=64, patch_size=16, word_rows=64)
WIDTH, PATCHES, WORDS = 6, 4, 3


@pytest.fixture
def matching() -> WordMatching:
    torch.manual_seed(1)
    module = WordMatching(WIDTH)
    torch.nn.init.normal_(module.ground)
    return module


def test_both_sides_are_told_what_fits(matching: WordMatching) -> None:
    visual, words = torch.randn(1, 1 + PATCHES, WIDTH), torch.randn(1, WORDS, WIDTH)
    to_visual, to_text = matching(visual, words, torch.ones(1, WORDS, dtype=torch.bool))
    values = F.layer_norm(visual[0, 1:], (WIDTH,))
    odds = {}
    for sense in SENSES:
        key = matching.keys[sense]
        keys = values @ key.weight.T + key.bias
        odds[sense] = torch.stack([keys @ (word - matching.ground[0]) for word in words[0]])  # (words, patches)
    for place in range(WORDS):
        chances = torch.exp(odds["noun"][place]) / torch.exp(odds["noun"][place]).sum()
        told = [*(chances[:, None] * values).sum(dim=0)]
        for sense in SENSES:
            row = odds[sense][place]
            told += [torch.tanh(row.max() / 5), torch.tanh(torch.log(torch.exp(row).sum() / PATCHES) / 5)]
        torch.testing.assert_close(to_text[0, place], matching.to_text(torch.stack(told)), rtol=1e-4, atol=1e-5)
    for place in range(PATCHES):
        column = torch.exp(odds["noun"][:, place])
        named = (column[:, None] * words[0]).sum(dim=0) / column.sum()
        best = torch.stack([torch.tanh(odds[sense][:, place].max() / 5) for sense in SENSES])
        expected = matching.to_visual(torch.cat([named, best]))
        torch.testing.assert_close(to_visual[0, 1 + place], expected, rtol=1e-4, atol=1e-5)
    assert not to_visual[0, 0].any()


def test_padding_tells_the_picture_nothing(matching: WordMatching) -> None:
    visual, words = torch.randn(1, 1 + PATCHES, WIDTH), torch.randn(1, WORDS, WIDTH)
    padded = torch.cat([words, 50 * torch.randn(1, 2, WIDTH)], dim=1)
    mask = torch.tensor([[True] * WORDS + [False] * 2])
    alone, _ = matching(visual, words, mask[:, :WORDS])
    among, _ = matching(visual, padded, mask)
    torch.testing.assert_close(alone, among)


def test_an_image_alone_and_among_others_with_longer_prompts() -> None:
    torch.manual_seed(0)
    model = RAHF(CONFIG).eval()
    prompts = ["a cat", "two red dogs to the left of a very long blue train, highly detailed", "s"]
    images = torch.rand(3, 3, 64, 64)
    tokenizer = ByteTokenizer()
    with torch.no_grad():
        together = model(images, encode_prompts(prompts, CONFIG, tokenizer))
        alone = model(images[:1], encode_prompts(prompts[:1], CONFIG, tokenizer))
    for name, heatmap in alone.heatmaps.items():
        torch.testing.assert_close(together.heatmaps[name][:1], heatmap, rtol=0, atol=1e-5)
    for name, score in alone.scores.items():
        torch.testing.assert_close(together.scores[name][:1], score, rtol=0, atol=1e-5)
    assert math.isfinite(float(together.scores["overall"].sum()))
