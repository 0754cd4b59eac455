"""What a user may ask for when animating a photo, with its limits; the command line, the app and the API share them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True)
class Limit:
    """Inclusive range of one option, with what to do when it is left."""

    low: float
    high: float
    remedy: str

    def check(self, name: str, value: float) -> None:
        """Raises ValueError naming value, limit and remedy when ``value`` is not a finite number within the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}, which is not a number. {self.remedy}")
        if not self.low <= value <= self.high:
            shown, low, high = (_shown(number) for number in (value, self.low, self.high))
            raise ValueError(f"{name} is {shown}; it must be from {low} to {high}. {self.remedy}")


def _shown(number: float) -> str:
    """Whole numbers with all their digits, others short."""
    return str(number) if isinstance(number, int) else f"{number:g}"


# The strength that looks natural for the photo (gid.motion.strength), or a number.
AUTO: Literal["auto"] = "auto"
Strength = float | Literal["auto"]
SOLVERS = ("dpm", "ddim")
LIMITS: dict[str, Limit] = {
    "seed": Limit(0, 2**32 - 1, "Give a whole number such as 0."),
    "steps": Limit(1, 250, "10 is a good start; more steps are slower and a little finer."),
    "guidance": Limit(1, 20, "1 follows the photo as learned, larger values follow it more strictly."),
    "loop_guidance": Limit(0, 1000, "0 is off, 200 is the paper's weight."),
    "strength": Limit(0, 5, "1 is the motion as predicted, 0 is a still, 'auto' chooses."),
    "speed": Limit(0.1, 4, "1 is natural speed, 0.5 is slow motion."),
    "frames": Limit(2, 900, "150 frames are five seconds at 30 frames a second."),
    "fps": Limit(5, 60, "30 is the speed the motion was learned at."),
    "size": Limit(64, 1920, "It is the longer side of the video in pixels; 512 is a good start."),
}


@dataclass(frozen=True)
class _Checked:
    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name == "strength" and value == AUTO:
                continue
            if field.name in LIMITS:
                LIMITS[field.name].check(field.name, value)
            if field.type == "int" and int(value) != value:
                raise ValueError(f"{field.name} is {value}; it must be a whole number.")


@dataclass(frozen=True)
class MotionOptions(_Checked):
    """What decides the predicted motion.

    ``seed`` chooses one of the possible motions, ``steps`` are diffusion steps, ``guidance`` is the scale w of
    classifier-free guidance and ``loop_guidance`` the weight u of motion self-guidance (the paper's equation 5), which
    needs ``solver="ddim"``. ``hold_still`` lets pictures of things that do not move, such as a cup, hardly move; only
    weights that know such things heed it.

    Raises:
        ValueError: naming value, limit and remedy, for an option out of range, or loop guidance with another solver.
    """

    seed: int = 0
    steps: int = 10
    guidance: float = 1.0
    solver: str = "dpm"
    loop_guidance: float = 0.0
    hold_still: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.solver not in SOLVERS:
            raise ValueError(f"solver is {self.solver!r}; it must be one of {', '.join(SOLVERS)}.")
        if self.loop_guidance > 0 and self.solver != "ddim":
            raise ValueError(f"loop_guidance is {self.loop_guidance:g} with solver {self.solver!r}; use solver ddim.")


@dataclass(frozen=True)
class RenderOptions(_Checked):
    """What only decides how known motion is shown.

    ``frames`` and ``fps`` give the length, ``strength`` and ``speed`` scale the motion (``"auto"``: the strength that
    looks natural, :mod:`gid.motion.strength`), ``loop`` makes the last frame lead back to the first, ``size``
    is the longer side of the video in pixels (a smaller photo is not enlarged).

    Raises:
        ValueError: naming value, limit and remedy, for an option out of range.
    """

    frames: int = 150
    fps: float = 30.0
    strength: Strength = AUTO
    speed: float = 1.0
    loop: bool = True
    size: int = 512


def strength_from_text(text: str) -> Strength:
    """``auto``, or the number that a text holds. Raises ValueError for anything else."""
    if text.strip().lower() == AUTO:
        return AUTO
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"strength is {text!r}, which is not a number. {LIMITS['strength'].remedy}") from None
