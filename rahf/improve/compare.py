"""Side by side: one prompt, one seed, what each tool makes of it, what the feedback says, and what it costs.

The feedback that the tools optimise is no proof that they help: see studies/improve.md for another judge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from foundation.lettering import draw
from foundation.limits import Checked
from foundation.pictures import to_uint8
from rahf.feedback import Feedback
from rahf.improve.generation.base import check_text, later_seed
from rahf.improve.generator import Generator, OutOfMemoryError, Progress, Setting, add_lora, remove_lora
from rahf.improve.guidance import GuidanceOptions, guide
from rahf.improve.repair import MISSING, RepairOptions, repair
from rahf.improve.saliency.optimise import DOODL, SGOOL, SaliencyOptions, optimise_saliency
from rahf.improve.select import SelectOptions, select
from rahf.limits import IMPROVE
from rahf.predictor import Predictor

PLAIN, BEST, REPAIR, WORDS, GUIDED, TUNED = "plain", "best", "repair", "words", "guide", "tuned"
PANEL, MARGIN, LINE = 192, 12, 20
INK = (30, 30, 36)
APART = 1000  # from the plain picture's seed to that of its repair, which is to be other noise


@dataclass(frozen=True)
class CompareOptions(Checked):
    """What each tool is given.

    Attributes:
        count: pictures that selection draws, and that repair tries in a round.
        setting: of the generator, for all tools; its own by default.
        lora: folder of an adapter, for the tool "tuned".
        select, repair, guide, saliency: of the tools; `count` and `setting` here go before theirs.

    Raises:
        ValueError: for a value out of range.
    """

    limits: ClassVar = {"count": IMPROVE["count"]}

    count: int = 4
    setting: Setting | None = None
    lora: Path | None = None
    select: SelectOptions = field(default_factory=SelectOptions)
    repair: RepairOptions = field(default_factory=RepairOptions)
    guide: GuidanceOptions = field(default_factory=GuidanceOptions)
    saliency: SaliencyOptions = field(default_factory=SaliencyOptions)


@dataclass(frozen=True, eq=False)
class Entry:
    """What one tool made.

    Attributes:
        tool: its name.
        picture: (3,S,S) in [0, 1]; None where it failed.
        before: feedback on the plain picture of the same seed. after: on this one; None where it failed.
        stopped: what was done, or why it failed, as a sentence.
        seconds: that it took, from the noise on.
        calls: how often the network looked at one picture's latents, from the noise on.
    """

    tool: str
    picture: Tensor | None
    before: Feedback
    after: Feedback | None
    stopped: str
    seconds: float
    calls: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "tool": self.tool,
            "before": self.before.scores,
            "after": None if self.after is None else self.after.scores,
            "not_shown": [] if self.after is None else [word.text for word in self.after.misaligned()],
            "stopped": self.stopped,
            "seconds": round(self.seconds, 2),
            "calls": self.calls,
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """One prompt and seed through several tools."""

    prompt: str
    seed: int
    entries: tuple[Entry, ...]

    def sheet(self) -> Image.Image:
        """The pictures side by side, with scores, seconds and cost under each."""
        made = [entry for entry in self.entries if entry.picture is not None]
        lines = len(made[0].before.scores) + 2
        width = MARGIN + len(made) * (PANEL + MARGIN)
        sheet = Image.new("RGB", (width, 2 * MARGIN + 2 * LINE + PANEL + lines * LINE), "white")
        pen = ImageDraw.Draw(sheet)
        draw(pen, (MARGIN, MARGIN // 2), self.prompt[: width // 8], INK)
        for place, entry in enumerate(made):
            _panel(sheet, pen, MARGIN + place * (PANEL + MARGIN), entry)
        return sheet

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"prompt": self.prompt, "seed": self.seed, "tools": [entry.to_dict() for entry in self.entries]}


@dataclass(frozen=True, eq=False)
class Start:
    """What every tool begins with: models, prompt, seed, options, and the plain picture."""

    generator: Generator
    predictor: Predictor
    prompt: str
    seed: int
    setting: Setting
    options: CompareOptions
    picture: Tensor
    progress: Progress | None

    @property
    def plain_calls(self) -> int:
        """What the plain picture cost."""
        return self.generator.cost(1, self.setting)


# A tool gives its picture, what it says of itself, and its calls.
Made = tuple[Tensor, str, int]


def _plain(start: Start) -> Made:
    return start.picture, "drawn once", start.plain_calls


def _best(start: Start) -> Made:
    options = replace(start.options.select, count=start.options.count, setting=start.setting)
    found = select(start.prompt, start.generator, start.predictor, options, start.seed, start.progress)
    return found.picture, found.stopped, found.calls


def _repair(start: Start, what: str) -> Made:
    options = replace(start.options.repair, what=what, candidates=start.options.count, setting=start.setting)
    seed = later_seed(start.seed, APART)
    models = (start.generator, start.predictor)
    found = repair(start.picture, start.prompt, *models, None, options, seed, start.progress)
    return found.picture, found.stopped, found.calls + start.plain_calls


def _guide(start: Start) -> Made:
    options = replace(start.options.guide, setting=start.setting)
    found = guide(start.prompt, start.generator, start.predictor, 1, options, start.seed, start.progress)
    return found.pictures[0], found.stopped, found.calls


def _saliency(start: Start, method: str) -> Made:
    options = replace(start.options.saliency, method=method)
    models = (start.generator, start.predictor)
    found = optimise_saliency(*models, start.prompt, start.seed, options, progress=start.progress)
    return found.picture, found.stopped, found.calls


def _tuned(start: Start) -> Made:
    if start.options.lora is None:
        raise ValueError("no adapter is given; make one with `rahf improve tune` and name its folder (lora)")
    add_lora(start.generator, start.options.lora)
    try:
        picture = start.generator.generate(start.prompt, 1, start.seed, start.setting, start.progress)[0]
    finally:
        remove_lora(start.generator)
    return picture, f"drawn once with the adapter {start.options.lora.name}", start.plain_calls


TOOLS: Mapping[str, Callable[[Start], Made]] = {
    PLAIN: _plain,
    BEST: _best,
    REPAIR: lambda start: _repair(start, "faults"),
    WORDS: lambda start: _repair(start, MISSING),
    GUIDED: _guide,
    SGOOL: lambda start: _saliency(start, SGOOL),
    DOODL: lambda start: _saliency(start, DOODL),
    TUNED: _tuned,
}


def compare(
    prompt: str,
    generator: Generator,
    predictor: Predictor,
    tools: Sequence[str] = (PLAIN, BEST, REPAIR, WORDS, GUIDED, SGOOL),
    options: CompareOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Let several tools work on the same noise.

    A tool that fails (no memory, a prompt of which it knows no word, ...) does not take the others down: its entry says
    why.

    Args:
        prompt: what the picture shows.
        generator, predictor: that draw and judge.
        tools: some of `TOOLS`.
        options: what each tool is given.
        seed: of the noise.
        progress: told how far it is.

    Raises:
        ValueError: no prompt, an unknown tool, or no picture to begin with.
    """
    options = options or CompareOptions()
    unknown = [name for name in tools if name not in TOOLS]
    if unknown or not tools:
        raise ValueError(f"tools are {', '.join(tools) or 'none'}; choose some of {', '.join(TOOLS)}")
    check_text(prompt)
    setting = options.setting or generator.setting
    started = time.monotonic()
    picture = generator.generate(prompt, 1, seed, setting)[0]
    plain_seconds = time.monotonic() - started
    before = predictor.predict(picture, prompt)
    entries = []
    for place, name in enumerate(tools):
        told = _stage(progress, name, place, len(tools))
        start = Start(generator, predictor, prompt, seed, setting, options, picture, told)
        own = plain_seconds if name in (PLAIN, REPAIR, WORDS) else 0.0
        entries.append(_entry(name, start, before, own))
    return Comparison(prompt, seed, tuple(entries))


def _entry(name: str, start: Start, before: Feedback, seconds: float) -> Entry:
    began = time.monotonic()
    try:
        picture, stopped, calls = TOOLS[name](start)
    except (OutOfMemoryError, ValueError) as error:
        return Entry(name, None, before, None, str(error), seconds + time.monotonic() - began, 0)
    seconds += time.monotonic() - began
    after = before if picture is start.picture else start.predictor.predict(picture, start.prompt)
    return Entry(name, picture, before, after, stopped, seconds, calls)


def _stage(progress: Progress | None, name: str, place: int, count: int) -> Progress | None:
    if progress is None:
        return None

    def told(share: float, what: str) -> None:
        progress((place + share) / count, f"{name}: {what}")

    return told


def _panel(sheet: Image.Image, pen: ImageDraw.ImageDraw, left: int, entry: Entry) -> None:
    """One picture with what is said of it."""
    assert entry.picture is not None
    assert entry.after is not None
    top = MARGIN + LINE
    draw(pen, (left, top), entry.tool, INK)
    shown = Image.fromarray(np.asarray(to_uint8(entry.picture[None])[0]))
    sheet.paste(shown.resize((PANEL, PANEL), Image.Resampling.BICUBIC), (left, top + LINE))
    top += LINE + PANEL + MARGIN // 2
    for name, value in entry.after.scores.items():
        change = value - entry.before.scores[name]
        draw(pen, (left, top), f"{name} {value:.2f}" + (f" ({change:+.2f})" if abs(change) >= 0.005 else ""), INK)
        top += LINE
    draw(pen, (left, top), f"{entry.seconds:.1f} s, {entry.calls} calls", INK)
