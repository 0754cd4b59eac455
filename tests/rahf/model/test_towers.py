"""Pretrained towers, from folders as transformers writes them."""

from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTModel

from rahf.model.checkpoints import CheckpointError
from rahf.model.config import RAHFConfig
from rahf.model.rahf import RAHF
from rahf.model.towers import load_towers, resize_positions


def saved_vit(folder: Path, config: RAHFConfig, size: int, width: int) -> str:
    torch.manual_seed(5)
    vit = ViTModel(
        ViTConfig(
            hidden_size=width,
            num_hidden_layers=config.vit_layers,
            num_attention_heads=config.vit_heads,
            intermediate_size=config.vit_mlp,
            image_size=size,
            patch_size=config.patch_size,
        )
    )
    vit.save_pretrained(folder)
    return str(folder)


def test_towers_are_copied(tiny_config: RAHFConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = RAHF(tiny_config)
    torch.manual_seed(1)
    donor = RAHF(tiny_config)
    donor.t5.save_pretrained(tmp_path / "t5")
    vit = saved_vit(tmp_path / "vit", tiny_config, 64, tiny_config.vit_width)
    head = model.visual_token_projection.weight.clone()
    load_towers(model, vit, str(tmp_path / "t5"))
    source = ViTModel.from_pretrained(vit)
    assert torch.equal(model.vit.layernorm.weight, source.layernorm.weight)
    assert torch.equal(
        model.vit.embeddings.patch_embeddings.projection.weight, source.embeddings.patch_embeddings.projection.weight
    )
    assert model.vit.embeddings.position_embeddings.shape[1] == 17
    name = "decoder.block.1.layer.1.EncDecAttention.q.weight"
    assert torch.equal(model.t5.get_parameter(name), donor.t5.get_parameter(name))
    assert model.t5.lm_head.weight is model.t5.shared.weight
    assert torch.equal(model.t5.shared.weight, donor.t5.shared.weight)
    assert torch.equal(model.visual_token_projection.weight, head)


def test_towers_that_do_not_fit_are_refused(tiny_config: RAHFConfig, tmp_path: Path) -> None:
    model = RAHF(tiny_config)
    before = model.vit.layernorm.weight.clone()
    with pytest.raises(CheckpointError, match=r"layernorm\.weight has shape \(48,\), not \(24,\)"):
        load_towers(model, saved_vit(tmp_path / "wide", tiny_config, 32, 48))
    assert torch.equal(model.vit.layernorm.weight, before)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_towers(model, t5=str(tmp_path / "absent"))


def test_positions_of_another_grid() -> None:
    """A plane over the grid stays one away from its border, but for the cubic filter's ripple."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    positions = torch.cat([torch.tensor([[[9.0, 9.0]]]), torch.stack([rows, columns], -1).reshape(1, 64, 2)], dim=1)
    resized = resize_positions(positions, 1 + 16 * 16)
    assert resized[0, 0].tolist() == [9, 9]
    grid = resized[0, 1:].reshape(16, 16, 2)
    expected = (torch.arange(16.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(grid[4:12, 5, 0], expected[4:12], atol=0.06, rtol=0)
    torch.testing.assert_close(grid[5, 4:12, 1], expected[4:12], atol=0.06, rtol=0)
    assert torch.equal(resize_positions(positions, 65), positions)
