"""What may be asked of gid, with its limits: the one table that library, commands, app and documentation read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from foundation.limits import Checked, Limit

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
# What the page's sliders offer: within the limits, what a visitor has a use and the patience for.
PAGE: dict[str, Limit] = {
    "seconds": Limit(1, 20),
    "steps": Limit(1, 50),
    "guidance": Limit(1, 5),
    "strength": Limit(0, LIMITS["strength"].high),
    "speed": Limit(LIMITS["speed"].low, 3),
    "size": Limit(128, 1024),
}
# What the function gid.rendering.animate takes, from a program rather than a visitor.
FRAMES: dict[str, Limit] = {
    "num_frames": Limit(2, 1800, "Make a longer video by repeating the loop."),
    "fps": Limit(1, 60, "30 suits most screens."),
    "strength": LIMITS["strength"],
    "speed": LIMITS["speed"],
    "chunk": Limit(1, 1024, "8 is a good size."),
}
# A hand on the photo, and what it is made of.
POKE: dict[str, Limit] = {
    "stiffness": Limit(0.01, 100, "Above 1 swings faster."),
    "damping": Limit(0, 100, "1 is the paper's; smaller rings longer."),
    "mass": Limit(0.01, 100, "Above 1 swings slower."),
    "strength": Limit(0, 10, "1 shows the motion as it is."),
    "gain": Limit(0, 100, "1 leaves a band as it is."),
    "hold": Limit(0, 10, "0.5 is a good start.", above=True),
    "seconds": Limit(0.5, 20, "3 is a good start."),
    "fps": LIMITS["fps"],
    "size": LIMITS["size"],
}


@dataclass(frozen=True)
class MotionOptions(Checked):
    """What decides the predicted motion.

    ``seed`` chooses one of the possible motions, ``steps`` are diffusion steps, ``guidance`` is the scale w of
    classifier-free guidance and ``loop_guidance`` the weight u of motion self-guidance (the paper's equation 5), which
    needs ``solver="ddim"``. ``hold_still`` lets pictures of things that do not move, such as a cup, hardly move; only
    weights that know such things heed it.

    Raises:
        ValueError: naming value, limit and remedy, for an option out of range, or loop guidance with another solver.
    """

    limits: ClassVar[Mapping[str, Limit]] = LIMITS
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"solver": SOLVERS}

    seed: int = 0
    steps: int = 10
    guidance: float = 1.0
    solver: str = "dpm"
    loop_guidance: float = 0.0
    hold_still: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loop_guidance > 0 and self.solver != "ddim":
            raise ValueError(f"loop_guidance is {self.loop_guidance:g} with solver {self.solver!r}; use solver ddim.")


@dataclass(frozen=True)
class RenderOptions(Checked):
    """What only decides how known motion is shown.

    ``frames`` and ``fps`` give the length, ``strength`` and ``speed`` scale the motion (``"auto"``: the strength that
    looks natural, :mod:`gid.motion.strength`), ``loop`` makes the last frame lead back to the first, ``size``
    is the longer side of the video in pixels (a smaller photo is not enlarged).

    Raises:
        ValueError: naming value, limit and remedy, for an option out of range.
    """

    limits: ClassVar[Mapping[str, Limit]] = LIMITS
    automatic: ClassVar[frozenset[str]] = frozenset({"strength"})

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
