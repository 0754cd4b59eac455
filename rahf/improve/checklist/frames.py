"""How a video moves, in questions: steady light, movement, something that stays, no jumps, and the seam of a loop.

Thresholds and weights are by rule, in levels of 8 bits: below one level nobody sees a change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rahf.improve.checklist.questions import Question

FRAMES_JUDGED = 6  # that are judged as pictures
SIDE = 96  # pixels of the longer side at which frames are compared
WEIGHT = 0.1  # of a question about time, by rule

QUESTIONS = (
    Question("light 1", "time", "Is the light steady from frame to frame?", WEIGHT, "steadiness", -0.5),
    Question("light 2", "time", "Is the picture free of flicker that one notices?", WEIGHT, "steadiness", -2.0),
    Question("movement 1", "time", "Is the movement plain to see?", WEIGHT, "movement", 8.0),
    Question("movement 2", "time", "Does anything move at all?", WEIGHT, "movement", 2.0),
    Question("ground", "time", "Does something stay where it is?", WEIGHT, "stillness", -3.0),
    Question("jumps", "time", "Does it move without jumps?", WEIGHT, "evenness", -3.0),
    Question("seam 1", "time", "Does the end run on into the beginning?", WEIGHT, "seam", -1.5),
    Question("seam 2", "time", "Is there no jump where the loop begins anew?", WEIGHT, "seam", -3.0),
)


def chosen_frames(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` frames, evenly taken from the first on."""
    many = min(count, most)
    return [place * count // many for place in range(many)]


def temporal_answers(frames: Sequence[Tensor] | Tensor, loop: bool) -> list[tuple[Question, float | None, float, str]]:
    """Question, yes (None where it was not asked), points (0 so far) and reason of each question about time."""
    found = temporal_measures(frames, loop)
    rows: list[tuple[Question, float | None, float, str]] = []
    for question in QUESTIONS:
        if question.measure not in found:
            rows.append((question, None, 0.0, "not asked: it is no loop"))
            continue
        value = found[question.measure]
        sign = ">=" if value >= question.threshold else "<"
        reason = f"{question.measure} {value:.3g} {sign} {question.threshold:.3g}"
        rows.append((question, float(value >= question.threshold), 0.0, reason))
    return rows


def temporal_measures(frames: Sequence[Tensor] | Tensor, loop: bool) -> dict[str, float]:
    """Measures of at least three frames (3,H,W) in [0, 1], in levels of 8 bits; larger is better.

    steadiness: less how far the mean brightness leaves the line through its neighbours'.
    movement: deviation over time in the place that only a twentieth of the picture surpasses.
    stillness: less the deviation over time that a quarter of the picture keeps below.
    evenness: less the largest step between frames, in usual steps (their median, at least half a level).
    seam: less the step from the last frame to the first, in usual steps; only of loops.
    """
    small = torch.stack([255 * _small(frame) for frame in frames])
    mean = small.mean((1, 2))
    middle = mean[1:-1] - (mean[:-2] + mean[2:]) / 2
    deviation = small.std(0, correction=0).flatten()
    steps = (small[1:] - small[:-1]).abs().mean((1, 2))
    usual = float(steps.median().clamp(min=0.5))
    found = {
        "steadiness": -float(middle.abs().mean()),
        "movement": float(torch.quantile(deviation, 0.95)),
        "stillness": -float(torch.quantile(deviation, 0.25)),
        "evenness": -float(steps.max()) / usual,
    }
    if loop:
        found["seam"] = -float((small[-1] - small[0]).abs().mean()) / usual
    return found


def _small(frame: Tensor) -> Tensor:
    """(h,w) brightness of a frame (3,H,W), its longer side at most `SIDE`."""
    height, width = frame.shape[-2:]
    scale = min(SIDE / max(height, width), 1.0)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    grey = torch.einsum("chw,c->hw", frame.float().cpu(), torch.tensor([0.299, 0.587, 0.114]))
    return F.interpolate(grey[None, None], size, mode="bilinear", antialias=True)[0, 0]
