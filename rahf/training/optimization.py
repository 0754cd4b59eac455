"""What both stages of training share: groups of parameters with rates of their own."""

from collections.abc import Iterable
from typing import Any

from torch import nn


def parameter_groups(
    tower: nn.Module, rest: Iterable[nn.Parameter], learning_rate: float, tower_rate: float
) -> list[dict[str, Any]]:
    """The image tower at `tower_rate` of the learning rate, and all else of `rest` that learns."""
    first = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in first}
    second = [parameter for parameter in rest if parameter.requires_grad and id(parameter) not in known]
    return [{"params": first, "lr": learning_rate * tower_rate}, {"params": second, "lr": learning_rate}]
