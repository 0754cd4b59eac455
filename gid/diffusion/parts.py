"""A pipeline as a set of networks, a scheduler and settings, saved in a folder laid out as diffusers' pipelines are.

diffusers' own base class would bring the loaders of all its models, peft and transformers: three seconds of processor
time before anything is done. Parts are still diffusers models, one folder each, and model_index.json names them.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import __version__ as diffusers_version
from torch import nn

from foundation import networks
from foundation.files import write_text
from foundation.networks import FrozenDict

INDEX = "model_index.json"
SCHEDULERS = ("DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler")


class Parts:
    """Named parts, each an attribute, and ``config``, the settings: values of the constructor that are no parts."""

    config: FrozenDict

    def __init__(self, parts: dict[str, Any], settings: dict[str, Any]) -> None:
        """Keep the parts (None for one that is not there) and settings."""
        self._names = tuple(parts)
        vars(self).update(parts)
        self.config = FrozenDict(settings)

    def register_to_config(self, **settings: Any) -> None:
        """Change settings."""
        self.config = FrozenDict({**self.config, **settings})

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name, as the constructor takes them."""
        return {name: getattr(self, name) for name in self._names}

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        network = next(part for part in self.components.values() if isinstance(part, nn.Module))
        return next(network.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        """Move all networks."""
        for part in self.components.values():
            if isinstance(part, nn.Module):
                part.to(device)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write each part into a folder of its name, as safetensors, and the index."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        index: dict[str, Any] = {"_class_name": type(self).__name__, "_diffusers_version": diffusers_version}
        for name, part in self.components.items():
            if part is None:
                index[name] = [None, None]
                continue
            part.save_pretrained(folder / name)
            module = type(part).__module__
            index[name] = ["diffusers" if module.startswith("diffusers.") else module, type(part).__name__]
        index |= {name: list(value) if isinstance(value, tuple) else value for name, value in self.config.items()}
        write_text(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")

    @classmethod
    def assembled(cls, folder: Path, loaded: dict[str, nn.Module]) -> Self:
        """Put networks that were loaded from a folder together with its scheduler and settings.

        Raises:
            TypeError: the index has a setting that is unknown, or lacks a part.
            ValueError: its scheduler is none of ``SCHEDULERS``.
        """
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        kind = index["scheduler"][1]
        if kind not in SCHEDULERS:
            raise ValueError(f"its scheduler is {kind}, which is none of {', '.join(SCHEDULERS)}")
        scheduler = getattr(networks, kind).from_pretrained(folder, subfolder="scheduler")
        own = inspect.signature(cls.__init__).parameters
        parts = {"scheduler": scheduler, **loaded}
        settings = {name: value for name, value in index.items() if not name.startswith("_") and name not in parts}
        missing = {name: None for name, value in settings.items() if value == [None, None]}
        unknown = [name for name in settings if name not in own]
        if unknown:
            raise TypeError(f"it has a setting {unknown[0]!r}, which {cls.__name__} does not know")
        return cls(**{**settings, **missing, **parts})
