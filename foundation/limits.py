"""Ranges of numbers, written once: a table of them serves dataclass checks, command help, sliders and documentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class Limit:
    """Inclusive range of one option, with what to do when it is left.

    Attributes:
        low, high: the ends; infinite where there is none.
        remedy: a sentence that says what to give instead.
        above: whether ``low`` itself is left out.
    """

    low: float
    high: float = math.inf
    remedy: str = ""
    above: bool = False

    def __str__(self) -> str:
        """The range in words, for help texts: ``1 to 250``, ``at least 1``, ``above 0, at most 10``."""
        if math.isinf(self.high):
            return f"{'above' if self.above else 'at least'} {_shown(self.low)}"
        if self.above:
            return f"above {_shown(self.low)}, at most {_shown(self.high)}"
        return f"{_shown(self.low)} to {_shown(self.high)}"

    def check(self, name: str, value: float) -> None:
        """Raises ValueError naming value, limit and remedy when ``value`` is not a finite number within the range."""
        remedy = f" {self.remedy}" if self.remedy else ""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}, which is not a number.{remedy}")
        if not self.low <= value <= self.high or (self.above and value == self.low):
            plain = not self.above and math.isfinite(self.high)
            raise ValueError(f"{name} is {_shown(value)}; it must be {'from ' if plain else ''}{self}.{remedy}")


def _shown(number: float) -> str:
    """Whole numbers with all their digits, others short."""
    return str(number) if isinstance(number, int) else f"{number:g}"


@dataclass(frozen=True)
class Checked:
    """A dataclass whose fields keep to tables of limits and choices; subclasses name their tables.

    Raises:
        ValueError: naming field, value, limit and remedy, for a value out of range, a fraction where a whole number is
            wanted, or a word that is not among the choices.
    """

    limits: ClassVar[Mapping[str, Limit]] = {}
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    automatic: ClassVar[frozenset[str]] = frozenset()  # fields that may be "auto" instead of a number

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name in self.choices and value not in self.choices[field.name]:
                known = ", ".join(choice for choice in self.choices[field.name] if choice)
                raise ValueError(f"{field.name} is {value!r}; it must be one of {known}.")
            if field.name in self.limits and not (value == "auto" and field.name in self.automatic):
                self.limits[field.name].check(field.name, value)
            if field.type in ("int", int) and (isinstance(value, bool) or int(value) != value):
                raise ValueError(f"{field.name} is {value}; it must be a whole number.")


# Of every training (`foundation.training.TrainingConfig`); here, because reading them needs no torch.
TRAINING_LIMITS: dict[str, Limit] = {
    "steps": Limit(1),
    "batch_size": Limit(1),
    "learning_rate": Limit(0, 1, "3e-4 is a good start.", above=True),
    "warmup_steps": Limit(0),
    "weight_decay": Limit(0, 10),
    "gradient_clip": Limit(0, remedy="1 is a good start.", above=True),
    "ema_decay": Limit(0, 0.99999, "0 averages nothing."),
    "save_every": Limit(1),
    "log_every": Limit(1),
    "workers": Limit(0),
    "seed": Limit(0, 2**32 - 1, "Give a whole number such as 0."),
    "max_minutes": Limit(0, remedy="0 is no limit."),
}
