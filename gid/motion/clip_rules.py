"""Which clips suit motion measurement: those of a still camera in which something moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class ClipRejected(ValueError):  # noqa: N818  (the name says what happened)
    """The clip does not suit motion measurement: its camera moves, or nothing moves in it.

    Attributes:
        reason: "camera moves" or "nothing moves".
        measured: the number that decided: share of moving pixels, or displacement in pixels.
    """

    def __init__(self, reason: str, measured: float, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.measured = measured


@dataclass(frozen=True)
class ClipRules:
    """When a clip is refused. Displacements are means over time, in pixels of a picture `width` pixels wide.

    The paper drops a clip if 95 % of its pixels move more than 1 pixel (camera), or if the mean over its pixels is
    under 1 pixel (still). The camera rule is kept. The still rule, taken to the letter at the paper's 256x160, refuses
    every one of its authors' own looping results, so by default it looks at the fastest 1 % of the pixels and asks for
    more than flow noise. `ClipRules.paper()` is the letter.
    """

    width: int = 256
    camera_share: float = 0.95
    camera_pixels: float = 1.0
    still_share: float = 0.01
    still_pixels: float = 0.25

    @classmethod
    def paper(cls) -> ClipRules:
        """The paper's numbers: the mean over all pixels must reach 1 pixel at width 256."""
        return cls(still_share=1.0, still_pixels=1.0)


def check_clip(raw_displacement: Floats, width: int, rules: ClipRules) -> None:
    """Apply the rejection rules to the mean displacement (h, w) in pixels of frames `width` wide.

    Raises:
        ClipRejected: saying which rule, the measured value and the limit.
    """
    displacement = raw_displacement * (rules.width / width)
    share = float((displacement > rules.camera_pixels).mean())
    if share >= rules.camera_share:
        raise ClipRejected(
            "camera moves",
            share,
            f"camera moves: {share:.0%} of the pixels move more than {rules.camera_pixels:g} pixel on average (at "
            f"width {rules.width}); the limit is {rules.camera_share:.0%}. Use a clip shot from a tripod",
        )
    fastest = np.sort(displacement.ravel())[-max(1, round(rules.still_share * displacement.size)) :]
    mean = float(fastest.mean())
    if mean < rules.still_pixels:
        raise ClipRejected(
            "nothing moves",
            mean,
            f"nothing moves: the fastest {rules.still_share:.0%} of the pixels move {mean:.2f} pixel on average (at "
            f"width {rules.width}); at least {rules.still_pixels:g} is needed. Use a clip with more motion",
        )
