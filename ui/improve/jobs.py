"""The work behind the tab, without page or files: what is asked goes in, pictures with feedback come out.

What travels to a borrowed GPU and back is plain arrays and frozen values, which can be pickled.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from foundation.limits import Limit
from foundation.pictures import load_photo, to_uint8
from rahf.feedback import Feedback
from rahf.limits import IMPROVE
from rahf.predictor import Predictor
from ui.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

    from rahf.improve.generator import Generator, Setting
    from rahf.improve.repair import RepairOptions

DRAW, REPAIR, BEST, GUIDE, SGOOL, DOODL, COMPARE = "draw", "repair", "best", "guide", "sgool", "doodl", "compare"
# Ways that begin with the prompt alone, as the page names them.
WAYS = {
    "Best of several": BEST,
    "Led by the overall score (experimental)": GUIDE,
    "Better noise, by what is salient (SGOOL)": SGOOL,
    "Better noise, by the whole picture (DOODL)": DOODL,
    "All of it side by side": COMPARE,
}
# What one visitor may ask for on a page that serves many; commands and library go further.
LIMITS = {
    "candidates": Limit(1, 8, "4 is usual."),
    "rounds": Limit(1, 5, "3 is usual."),
    "steps": Limit(1, 100, "30 is usual."),
    "guidance": Limit(0, 15, "5 is usual."),
    "seed": IMPROVE["seed"],
}
JUDGING = 0.9  # of the progress, where drawing ends


@dataclass(frozen=True)
class Job:
    """What is asked.

    Attributes:
        tool: which way to improve.
        prompt: what the picture is to show.
        seed: of the noise.
        setting: of the generator; its own by default.
        repair: what is mended, and when it is enough.
        count: pictures to choose from.
    """

    tool: str
    prompt: str
    seed: int = 0
    setting: Setting | None = None
    repair: RepairOptions | None = None
    count: int = 4


@dataclass(frozen=True, eq=False)
class Made:
    """A picture with what is said of it.

    Attributes:
        pixels: (H, W, 3) uint8.
        feedback: on it.
        caption: how it came about, short.
    """

    pixels: np.ndarray
    feedback: Feedback
    caption: str


@dataclass(frozen=True, eq=False)
class Answer:
    """What a job made.

    Attributes:
        before: what there was; None if the job began with nothing.
        after: the result; it may be what there was.
        others: what was tried besides, to look at.
        stopped: why it ended, a sentence.
        seconds: that it took.
        calls: how often the network looked at one picture's latents.
    """

    before: Made | None
    after: Made
    others: tuple[Made, ...]
    stopped: str
    seconds: float
    calls: int


def perform(
    job: Job,
    generator: Generator,
    predictor: Predictor,
    picture: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    progress: Progress = silent,
) -> Answer:
    """Do a job.

    Args:
        job: what is asked.
        generator, predictor: the models.
        picture: (H, W, 3) uint8, for what begins with one.
        mask: (H, W) bool, what to draw anew; None is what the feedback marks.
        progress: told how far it is.

    Raises:
        ValueError: for what cannot be done; says what to give instead.
    """
    searches: dict[str, Work] = {SGOOL: _search, DOODL: _search}
    work = {DRAW: _draw, REPAIR: _repair, BEST: _best, GUIDE: _guide, COMPARE: _compare, **searches}
    if job.tool not in work:
        raise ValueError(f"the tool is {job.tool!r}; it must be one of {', '.join(work)}")
    return work[job.tool](Ask(job, generator, predictor, picture, mask, progress))


@dataclass(frozen=True, eq=False)
class Ask:
    """A job with what it needs; see `perform`."""

    job: Job
    generator: Generator
    predictor: Predictor
    picture: np.ndarray | None
    mask: np.ndarray | None
    progress: Progress


Work = Callable[[Ask], Answer]


def _draw(ask: Ask) -> Answer:
    started = time.monotonic()
    job, generator = ask.job, ask.generator
    ask.predictor.check_prompt(job.prompt)
    drawn = generator.generate(
        job.prompt, 1, job.seed, job.setting, lambda share, what: ask.progress(JUDGING * share, what or "Drawing")
    )[0]
    ask.progress(JUDGING, "Judging")
    made = _made(drawn, ask.predictor.predict(drawn, job.prompt), f"seed {job.seed}")
    said = f"Drawn from the prompt with seed {job.seed}."
    return Answer(None, made, (), said, time.monotonic() - started, generator.cost(1, job.setting))


def _repair(ask: Ask) -> Answer:
    from rahf.improve.repair import RepairOptions, repair

    if ask.picture is None:
        raise ValueError("there is no picture to repair: upload one, or draw one from the prompt")
    job, pixels = ask.job, load_photo(ask.picture)
    options = replace(job.repair or RepairOptions(), setting=job.setting)
    mask = torch.from_numpy(ask.mask) if ask.mask is not None else None
    done = repair(pixels, job.prompt, ask.generator, ask.predictor, mask, options, seed=job.seed, progress=ask.progress)
    tried = []
    for number, one in enumerate(done.rounds, start=1):
        for index, feedback in enumerate(one.feedback):
            taken = ", taken" if index == one.chosen else ""
            tried.append(_made(one.candidates[index], feedback, f"round {number}, {index + 1}{taken}"))
    before, after = _made(pixels, done.before, "before"), _made(done.picture, done.after, "after")
    return Answer(before, after, tuple(tried), _sentence(done.stopped), done.seconds, done.calls)


def _best(ask: Ask) -> Answer:
    from rahf.improve.select import SelectOptions, select

    job = ask.job
    options = SelectOptions(count=job.count, keep=0, setting=job.setting)
    done = select(job.prompt, ask.generator, ask.predictor, options, job.seed, ask.progress)
    made = []
    for index in (0, done.order[0]):  # whole feedback, with words
        made.append(_made(done.pictures[index], ask.predictor.predict(done.pictures[index], job.prompt), "kept"))
    others = tuple(
        _made(done.pictures[index], done.feedback[index], f"{place}: {done.values[index]:.2f}")
        for place, index in enumerate(done.order, start=1)
    )
    return Answer(made[0], made[1], others, _sentence(done.stopped), done.seconds, done.calls)


def _guide(ask: Ask) -> Answer:
    from rahf.improve.guidance import GuidanceOptions, guide

    job = ask.job
    options = GuidanceOptions(score="overall", setting=job.setting)
    done = guide(job.prompt, ask.generator, ask.predictor, 1, options, job.seed, ask.progress)
    before = _made(done.plain[0], done.before[0], "without")
    return Answer(
        before, _made(done.pictures[0], done.after[0], "led"), (), _sentence(done.stopped), done.seconds, done.calls
    )


def _search(ask: Ask) -> Answer:
    from rahf.improve.saliency.optimise import SaliencyOptions, optimise_saliency

    job = ask.job
    done = optimise_saliency(
        ask.generator, ask.predictor, job.prompt, job.seed, SaliencyOptions(method=job.tool), progress=ask.progress
    )
    heat = done.saliency[None].expand(3, -1, -1)
    others = (_made(heat, done.feedback, "what is salient"),)
    return Answer(
        _made(done.before, done.feedback_before, "before"),
        _made(done.picture, done.feedback, "after"),
        others,
        _sentence(done.stopped),
        done.seconds,
        done.calls,
    )


def _compare(ask: Ask) -> Answer:
    """The result is what the feedback likes best overall; each of the others is shown with its scores and its cost."""
    from rahf.improve.compare import CompareOptions, compare

    job = ask.job
    options = CompareOptions(count=job.count, setting=job.setting)
    done = compare(job.prompt, ask.generator, ask.predictor, options=options, seed=job.seed, progress=ask.progress)
    made, failed = {}, []
    for entry in done.entries:
        if entry.picture is None or entry.after is None:
            failed.append(f"{entry.tool}: {entry.stopped}")
            continue
        told = f"{entry.tool}: overall {entry.after.scores['overall']:.2f}, {entry.seconds:.1f} s, {entry.calls} looks"
        made[entry.tool] = _made(entry.picture, entry.after, told)
    best = max(made, key=lambda name: made[name].feedback.scores["overall"])
    said = (
        f"By the overall score {best} is the best of {len(made)}, which is no proof: it is what most of them optimise"
    )
    seconds, calls = sum(one.seconds for one in done.entries), sum(one.calls for one in done.entries)
    sentence = " ".join(_sentence(text) for text in (said, *failed))
    return Answer(next(iter(made.values())), made[best], tuple(made.values()), sentence, seconds, calls)


def _made(picture: Tensor, feedback: Feedback, caption: str) -> Made:
    return Made(to_uint8(picture[None])[0], feedback, caption)


def _sentence(text: str) -> str:
    """A reason with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
