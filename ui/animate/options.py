"""What a visitor asks of the Animate tab and of its endpoint, read into the library's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gid.limits import AUTO, MotionOptions, RenderOptions
from ui import values

FPS = 30
SECONDS = 5


@dataclass(frozen=True)
class Asked:
    """The values as they came, in the order of the endpoint and of the tab's controls; nothing in them is trusted.

    Attributes:
        strength: None for the natural one.
        seconds: length of the video.
        size: its longer side in pixels.
    """

    strength: Any = None
    speed: Any = 1
    seconds: Any = SECONDS
    loop: Any = True
    seed: Any = 0
    steps: Any = MotionOptions.steps
    guidance: Any = MotionOptions.guidance
    size: Any = RenderOptions.size
    hold_still: Any = MotionOptions.hold_still

    def motion(self) -> MotionOptions:
        """What decides the motion. Raises ValueError naming value, limit and remedy."""
        return MotionOptions(
            values.whole("seed", self.seed),
            values.whole("steps", self.steps),
            values.finite("guidance", self.guidance),
            hold_still=values.flag("hold_still", self.hold_still),
        )

    def render(self) -> RenderOptions:
        """What decides how it is shown. Raises ValueError naming value, limit and remedy."""
        return RenderOptions(
            round(values.finite("seconds", self.seconds) * FPS),
            FPS,
            AUTO if self.strength is None else values.finite("strength", self.strength),
            values.finite("speed", self.speed),
            values.flag("loop", self.loop),
            values.whole("size", self.size),
        )

    @classmethod
    def chosen(cls, automatic: bool, strength: float, *rest: Any) -> Asked:
        """From the tab's controls, whose slider only counts while the natural strength is switched off."""
        return cls(None if automatic else strength, *rest)
