"""Repair: what the feedback marks is drawn anew several times, and the best by feedback is kept, round after round.

    repaired = repair(picture, "two red apples", load_generator(), Predictor.from_pretrained())

Heatmap -> threshold and dilation -> mask -> several inpaintings -> the most plausible (Liang et al. 2024, section 6);
or, for words that are not shown, the misalignment heatmap, or a free place -> the one that shows most of the words.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foundation.limits import Checked
from foundation.pictures import KEPT_SIDE, PictureSource, load_photo
from rahf.feedback import Feedback
from rahf.improve.generation.base import check_mask, check_text, later_seed, part_of
from rahf.improve.generator import Generator, OutOfMemoryError, Progress, Setting
from rahf.improve.masks import free_place, mask_from_heatmap
from rahf.limits import IMPROVE
from rahf.predictor import Predictor

FAULTS, MISSING = "faults", "words"
HEATMAP = {FAULTS: "implausibility", MISSING: "misalignment"}
SCORE = {FAULTS: "plausibility", MISSING: "alignment"}
DRAWING = 0.8  # of the progress of a round


@dataclass(frozen=True)
class RepairOptions(Checked):
    """What is mended, and when it is enough.

    Attributes:
        what: "faults" that the implausibility heatmap marks, or "words" of the prompt that are not shown.
        threshold: part of the heatmap's highest value from which a pixel is drawn anew.
        floor: value that a pixel has to reach besides.
        dilation: how far the mask grows, as part of the longer side.
        candidates: pictures a round.
        rounds: at most.
        gain: by how much the score has to rise for a candidate to be taken.
        tolerance: by how much the other score (alignment of faults, plausibility of words) may fall meanwhile.
        setting: of the generator; its own by default.

    Raises:
        ValueError: for a value out of range.
    """

    limits: ClassVar = {
        **{name: IMPROVE[name] for name in ("threshold", "floor", "dilation", "rounds", "gain", "tolerance")},
        "candidates": IMPROVE["count"],
    }
    choices: ClassVar = {"what": (FAULTS, MISSING)}

    what: str = FAULTS
    threshold: float = 0.25
    floor: float = 0.16
    dilation: float = 0.02
    candidates: int = 4
    rounds: int = 3
    gain: float = 0.01
    tolerance: float = 0.05
    setting: Setting | None = None


@dataclass(frozen=True, eq=False)
class Round:
    """One round.

    Attributes:
        mask: (H,W) bool, what was drawn anew.
        candidates: (n,3,H,W) in [0, 1].
        feedback: on each of them.
        chosen: index of the one that was taken, None if none was better.
    """

    mask: Tensor
    candidates: Tensor
    feedback: tuple[Feedback, ...]
    chosen: int | None


@dataclass(frozen=True, eq=False)
class Repair:
    """What became of a picture.

    Attributes:
        picture: (3,H,W) float32 in [0, 1]; outside of the masks it is what was given, unchanged.
        before, after: feedback on the picture that was given, and on this one.
        rounds: what was tried.
        stopped: why it ended, as a sentence.
        seconds: that it took.
        calls: how often the network looked at one picture's latents.
    """

    picture: Tensor
    before: Feedback
    after: Feedback
    rounds: tuple[Round, ...]
    stopped: str
    seconds: float
    calls: int

    @property
    def changed(self) -> bool:
        """Whether anything was taken."""
        return any(one.chosen is not None for one in self.rounds)


def repair(
    picture: PictureSource,
    prompt: str,
    generator: Generator,
    predictor: Predictor,
    mask: Tensor | None = None,
    options: RepairOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Repair:
    """Mend a picture.

    Args:
        picture: a file, array or tensor of any size; its longer side is brought to 2048 pixels if it is larger.
        prompt: what the picture is to show.
        generator: that inpaints.
        predictor: whose feedback decides.
        mask: (H,W) bool of the picture, where to draw anew in every round, instead of what the feedback marks. One over
            everything is allowed: then new pictures compete with the old one.
        options: what is mended; faults by default.
        seed: of the noise.
        progress: told how far it is.

    Raises:
        ValueError: no prompt, a mask that is empty or of another size, a generator that cannot fill masks, a picture
            that cannot be used; no memory before anything was drawn.
    """
    started = time.monotonic()
    options = options or RepairOptions()
    setting = options.setting or generator.setting
    check_text(prompt)
    predictor.check_prompt(prompt)
    if not generator.can_inpaint:
        raise ValueError(f"{generator.name} cannot fill a mask; name a generator that inpaints, or use 'embedded'")
    pixels = load_photo(picture, KEPT_SIDE)
    if mask is not None:
        check_mask(pixels, mask)
    before = predictor.predict(pixels, prompt)
    mended, after, rounds, stopped = _mend(pixels, before, mask, (generator, predictor), options, seed, progress)
    if progress is not None:
        progress(1.0, stopped)
    calls = len(rounds) * generator.cost(options.candidates, setting, inpainting=True)
    return Repair(mended, before, after, tuple(rounds), stopped, time.monotonic() - started, calls)


def _mend(
    picture: Tensor,
    current: Feedback,
    given: Tensor | None,
    models: tuple[Generator, Predictor],
    options: RepairOptions,
    seed: int,
    progress: Progress | None,
) -> tuple[Tensor, Feedback, list[Round], str]:
    """Round after round: the picture at last, feedback on it, the rounds, and why it ended."""
    rounds: list[Round] = []
    for number in range(options.rounds):
        mask, reason = _mask_for(picture, current, given, options)
        if mask is None:
            return picture, current, rounds, reason
        told = part_of(progress, number / options.rounds, (number + 1) / options.rounds)
        try:
            tried = _round(picture, mask, current, models, options, later_seed(seed, number * options.candidates), told)
        except OutOfMemoryError as error:
            if not rounds:
                raise
            return picture, current, rounds, f"it ended early: {error}"
        rounds.append(tried)
        if tried.chosen is None:
            reason = f"none of {options.candidates} new drawings was better by {options.gain:g}"
            reason += " without losing elsewhere" if options.tolerance < 1 else ""
            return picture, current, rounds, reason
        picture = tried.candidates[tried.chosen]
        current = models[1].predict(picture, current.prompt)
    return picture, current, rounds, f"all {options.rounds} rounds are done, and the last one still made it better"


def _mask_for(
    picture: Tensor, feedback: Feedback, given: Tensor | None, options: RepairOptions
) -> tuple[Tensor | None, str]:
    """Where to draw anew, or None and why nowhere."""
    missing = feedback.misaligned()
    if options.what == MISSING and not missing:
        return None, "every word of the prompt that can be judged is shown"
    if given is not None:
        return given, ""
    heatmap = feedback.heatmaps[HEATMAP[options.what]]
    marked = mask_from_heatmap(heatmap, options.threshold, options.floor, options.dilation)
    if bool(marked.any()):
        return marked, ""
    if options.what == MISSING:
        return free_place(picture, feedback.heatmaps[HEATMAP[FAULTS]]), ""
    return None, f"nothing is marked as wrong: the heatmap stays under {options.floor:g} everywhere"


def _round(
    picture: Tensor,
    mask: Tensor,
    current: Feedback,
    models: tuple[Generator, Predictor],
    options: RepairOptions,
    seed: int,
    progress: Progress,
) -> Round:
    """Candidates for one mask, and which of them to take."""
    generator, predictor = models
    made = generator.inpaint(
        picture,
        mask,
        current.prompt,
        options.candidates,
        seed,
        options.setting,
        part_of(progress, 0, DRAWING),
    )
    words = options.what == MISSING
    feedback = judge(predictor, made, current.prompt, words)
    progress(1.0, "judging")
    return Round(mask, made, tuple(feedback), choose(current, feedback, options))


def judge(predictor: Predictor, pictures: Tensor, prompt: str, words: bool = False) -> list[Feedback]:
    """Feedback on pictures (n,3,H,W) of one prompt, without heatmaps; with words if wanted."""
    return predictor.predict_batch(list(pictures), [prompt] * len(pictures), scores_only=not words, heatmaps=False)


def choose(current: Feedback, candidates: Sequence[Feedback], options: RepairOptions) -> int | None:
    """Index of the candidate to take: the best by the score that is mended, of those that do not lose elsewhere; None
    if none is better by `options.gain`. Of missing words, fewer of them count before the score."""
    own, other = SCORE[options.what], SCORE[MISSING if options.what == FAULTS else FAULTS]

    def value(feedback: Feedback) -> tuple[int, float]:
        return (-len(feedback.misaligned()) if options.what == MISSING else 0, feedback.scores[own])

    kept = [
        index for index, one in enumerate(candidates) if one.scores[other] >= current.scores[other] - options.tolerance
    ]
    if not kept:
        return None
    best = max(kept, key=lambda index: value(candidates[index]))
    fewer, score = value(candidates[best])
    before, former = value(current)
    better = fewer > before or (fewer == before and score >= former + options.gain and score > former)
    return best if better else None


def mask_of(source: PictureSource, size: tuple[int, int]) -> Tensor:
    """A mask from a picture of (width, height) in which what is light is to be drawn anew. Raises ValueError for one of
    another size, and for one that is dark everywhere."""
    pixels = load_photo(source, KEPT_SIDE)
    if (pixels.shape[2], pixels.shape[1]) != size:
        raise ValueError(
            f"the mask is {pixels.shape[2]}x{pixels.shape[1]}, the picture {size[0]}x{size[1]}; give a mask of the "
            "picture's size"
        )
    mask = pixels.mean(0) >= 0.5
    if not bool(mask.any()):
        raise ValueError("the mask is empty: nothing in it is light; paint white what is to be drawn anew")
    return torch.as_tensor(mask)
