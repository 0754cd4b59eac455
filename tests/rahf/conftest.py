"""Tiny real models for the tests of rahf."""

from collections.abc import Iterator

import pytest
import torch

from rahf.model.config import RAHFConfig
from rahf.model.rahf import RAHF

TINY = RAHFConfig(
    image_size=32,
    patch_size=8,
    vit_width=24,
    vit_layers=2,
    vit_heads=4,
    vit_mlp=32,
    tokenizer="bytes",
    vocabulary=384,
    text_width=32,
    text_key_width=8,
    text_heads=4,
    text_mlp=48,
    text_layers=2,
    text_decoder_layers=2,
    dropout=0.0,
    max_text_tokens=256,
    max_new_tokens=40,
    heatmap_stem=(32, 16),
    heatmap_stages=(16, 8),
    score_channels=(16, 4),
    score_hidden=(8,),
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only lose time to a second thread, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_config() -> RAHFConfig:
    return TINY


@pytest.fixture(scope="session")
def tiny_model() -> RAHF:
    torch.manual_seed(0)
    return RAHF(TINY).eval()


@pytest.fixture(scope="session")
def tiny_augmented() -> RAHF:
    torch.manual_seed(0)
    return RAHF(TINY.changed(variant="augmented_prompt")).eval()
