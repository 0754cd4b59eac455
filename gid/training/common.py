"""What the training stages of gid share beside the loop: reading a network of an earlier stage, and sheets."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers import ModelMixin
from torch import Tensor

Part = TypeVar("Part", bound=ModelMixin)


def load_part(kind: type[Part], folder: Path, stage: str) -> Part:
    """A network that a stage wrote, from its folder and never from the Hub.

    Raises:
        ValueError: the folder holds no network.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds no config.json; name the folder of the network that `gid train {stage}` wrote"
        )
    network: Part = kind.from_pretrained(folder)
    return network


def tile(rows: Tensor, columns: int) -> np.ndarray:
    """Strips (N, 3 or 1, h, w) in [0, 1] set in ``columns`` columns -> uint8 (H, W, 3); what does not fit is left."""
    rows = rows[: len(rows) // columns * columns].expand(-1, 3, -1, -1).clamp(0, 1)
    sheet = torch.cat([torch.cat(list(rows[i::columns]), dim=1) for i in range(columns)], dim=2)
    return (sheet * 255).byte().permute(1, 2, 0).contiguous().numpy()
