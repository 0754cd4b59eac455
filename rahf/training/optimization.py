"""What both stages of training share: groups of parameters with rates of their own, and the log."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn


def parameter_groups(tower: nn.Module, rest: Iterable[nn.Parameter], tower_rate: float) -> list[dict[str, Any]]:
    """The image tower, and all else of `rest` that learns; `part` says what part of the learning rate a group gets."""
    first = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in first}
    second = [parameter for parameter in rest if parameter.requires_grad and id(parameter) not in known]
    return [{"params": first, "part": tower_rate}, {"params": second, "part": 1.0}]


def append_log(path: Path, step: int, numbers: dict[str, float]) -> None:
    """Add one line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **numbers}) + "\n")
