"""Which device to compute on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``cpu``, ``cuda``, ``cuda:N`` or ``mps`` as it is; ``auto`` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: for another name, or a device that is not there.
    """
    import torch

    name = str(device)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu(:0)?|mps(:0)?|cuda(:\d+)?", name):
        raise ValueError(f"device {name!r} is unknown; use auto, cpu, cuda or mps")
    chosen = torch.device(name)
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(chosen.type, False):
        raise ValueError(f"device {name!r} is not available here; use --device auto or cpu")
    if chosen.type == "cuda" and chosen.index is not None and chosen.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {name!r} is not available here; there are {count}, from cuda:0 on")
    return chosen
