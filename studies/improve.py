"""Do the tools of `rahf improve` make better pictures? Judged by a recogniser that no tool sees.

    python studies/improve.py run RECOGNISER OUT [--generator embedded] [--count 200] [--methods plain,repair,...]
    python studies/improve.py table OUT

Prompts with plans that the generator was not trained on (`rahf.data.drawable`, another seed than studies/generator.py).
Every method begins with the same noise. The recogniser of studies/generator.py counts objects and tells colours: a
picture is *right* if kinds, counts and colours are all as asked. What the feedback itself says is written down too, but
it is what the tools optimise, and proves nothing.

- plain: drawn once.
- repair, words: one round, four candidates, where the heatmap of faults (of misalignment) says.
- repair-random, words-random: the same, the mask moved to a random place.
- best-N, words-best-N: best of N by the same score; N is 5, which costs what repair and its plain picture cost.
- guide-aesthetics, guide-overall: universal guidance, forward.
- sgool, doodl: the starting noise searched (`rahf.improve.saliency`).
- tuned: with the adapter that `--lora` names.

It goes on from what OUT holds: one file a prompt, to which missing methods are added.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundation.files import write_text
from foundation.pictures import to_uint8
from rahf.data.drawable import draw_prompts
from rahf.feedback import Feedback
from rahf.improve.generator import Generator, Setting, add_lora, load_generator, remove_lora
from rahf.improve.guidance import GuidanceOptions, Leader
from rahf.improve.masks import free_place, mask_from_heatmap
from rahf.improve.repair import HEATMAP, MISSING, RepairOptions, choose, judge, repair
from rahf.improve.saliency.optimise import SaliencyOptions, optimise_saliency
from rahf.improve.scores import ScoreGradient
from rahf.predictor import Predictor

logger = logging.getLogger("improve")
PROMPT_SEED, DRAW_SEED, CANDIDATES = 29, 40_000, 4
FAULTS = "faults"
METHODS = (
    *("plain", "repair", "repair-random", "best-5", "words", "words-random", "words-best-5"),
    *("guide-aesthetics", "guide-overall", "sgool", "doodl", "tuned"),
)
AGAINST = (
    *(("repair", "plain"), ("repair", "repair-random"), ("repair", "best-5")),
    *(("words", "plain"), ("words", "words-random"), ("words", "words-best-5")),
    *(("best-5", "plain"), ("words-best-5", "plain")),
    *(("guide-aesthetics", "plain"), ("guide-overall", "plain")),
    *(("sgool", "plain"), ("doodl", "plain"), ("sgool", "doodl"), ("sgool", "words-best-5"), ("tuned", "plain")),
)


@dataclass(frozen=True)
class Study:
    """What all prompts share."""

    generator: Generator
    predictor: Predictor
    setting: Setting
    lora: Path | None


class Case:
    """One prompt; what several methods need is made once."""

    def __init__(self, study: Study, prompt: str, seed: int) -> None:
        self.study, self.prompt, self.seed = study, prompt, seed

    @cached_property
    def plain(self) -> Tensor:
        """(3,S,S) drawn once."""
        return self.study.generator.generate(self.prompt, 1, self.seed, self.study.setting)[0]

    @cached_property
    def feedback(self) -> Feedback:
        """On the plain picture."""
        return self.study.predictor.predict(self.plain, self.prompt)

    @cached_property
    def five(self) -> Tensor:
        """(5,3,S,S), the plain one first."""
        others = self.study.generator.generate(self.prompt, CANDIDATES, self.seed + 1, self.study.setting)
        return torch.cat([self.plain[None], others])

    def mask(self, what: str) -> Tensor:
        """What repair would draw anew in the plain picture; empty if nothing."""
        if what == MISSING and not self.feedback.misaligned():
            return torch.zeros(self.plain.shape[-2:], dtype=torch.bool)
        options = RepairOptions(what)
        heatmap = self.feedback.heatmaps[HEATMAP[what]]
        found = mask_from_heatmap(heatmap, options.threshold, options.floor, options.dilation)
        if what == MISSING and not bool(found.any()):
            return free_place(self.plain, self.feedback.heatmaps[HEATMAP[FAULTS]])
        return found


# A method gives its picture and its calls of the network, the plain picture's included.
Made = tuple[Tensor, int]


def drawn(case: Case, count: int = 1, inpainting: bool = False) -> int:
    """What so many pictures cost."""
    return case.study.generator.cost(count, case.study.setting, inpainting)


def mended(case: Case, what: str, random: bool) -> Made:
    """One round of repair where the feedback says, or with the same mask elsewhere."""
    mask = case.mask(what)
    if not bool(mask.any()):
        return case.plain, drawn(case)
    place = moved(mask, case.seed) if random else mask
    options = RepairOptions(what, candidates=CANDIDATES, rounds=1, setting=case.study.setting)
    models = (case.study.generator, case.study.predictor)
    found = repair(case.plain, case.prompt, *models, place, options, case.seed + 500)
    return found.picture, drawn(case) + found.calls


def moved(mask: Tensor, seed: int) -> Tensor:
    """A mask of the same shape and size at a random place of the picture, round the edge if it has to be."""
    height, width = mask.shape
    down, across = np.random.default_rng(seed).integers(0, (height, width))
    return torch.roll(mask, (int(down), int(across)), (0, 1))


def best(case: Case, what: str) -> Made:
    """The best of five by what repair would choose by."""
    feedback = judge(case.study.predictor, case.five, case.prompt, words=what == MISSING)
    options = RepairOptions(what, gain=0.0, tolerance=1.0)
    found = 0
    for index in range(1, len(feedback)):
        if choose(feedback[found], [feedback[index]], options) is not None:
            found = index
    return case.five[found], drawn(case, len(case.five))


def guided(case: Case, score: str) -> Made:
    """With guidance."""
    study = case.study
    options = GuidanceOptions(score)
    objective = ScoreGradient(study.predictor, case.prompt, score, case.feedback.judged_as or None)
    leader = Leader(objective, options)
    picture = study.generator.generate(case.prompt, 1, case.seed, study.setting, adjust=leader)[0]
    return picture, drawn(case) + leader.extra


def searched(case: Case, method: str) -> Made:
    """With starting noise that was searched."""
    models = (case.study.generator, case.study.predictor)
    found = optimise_saliency(*models, case.prompt, case.seed, SaliencyOptions(method))
    return found.picture, found.calls


def tuned(case: Case) -> Made:
    """With the adapter."""
    generator = case.study.generator
    if case.study.lora is None:
        raise ValueError("name the adapter with --lora")
    add_lora(generator, case.study.lora)
    try:
        return generator.generate(case.prompt, 1, case.seed, case.study.setting)[0], drawn(case)
    finally:
        remove_lora(generator)


MAKERS: dict[str, Callable[[Case], Made]] = {
    "plain": lambda case: (case.plain, drawn(case)),
    "repair": lambda case: mended(case, FAULTS, False),
    "repair-random": lambda case: mended(case, FAULTS, True),
    "best-5": lambda case: best(case, FAULTS),
    "words": lambda case: mended(case, MISSING, False),
    "words-random": lambda case: mended(case, MISSING, True),
    "words-best-5": lambda case: best(case, MISSING),
    "guide-aesthetics": lambda case: guided(case, "aesthetics"),
    "guide-overall": lambda case: guided(case, "overall"),
    "sgool": lambda case: searched(case, "sgool"),
    "doodl": lambda case: searched(case, "doodl"),
    "tuned": tuned,
}


def run(options: argparse.Namespace) -> None:
    """Draw, judge, write a file for each prompt."""
    recogniser = beside("generator.py")
    model, features = recogniser.load(options.recogniser), recogniser.Features()
    generator = load_generator(options.generator, "cpu")
    whole = Predictor.from_pretrained(device="cpu")
    # What the embedded generator draws are composed scenes: the gate that tells them from photographs is not asked.
    predictor = Predictor(whole.model, whole.tokenizer, whole.name)
    torch.set_num_threads(1)
    setting = replace(generator.setting, steps=options.steps, guidance=options.guidance)
    study = Study(generator, predictor, setting, options.lora)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pictures").mkdir(exist_ok=True)
    for number, (prompt, plan) in enumerate(draw_prompts(options.count, PROMPT_SEED)):
        path = options.out / f"{number:04d}.json"
        row: dict[str, Any] = {"prompt": prompt, "methods": {}}
        if path.is_file():
            row = json.loads(path.read_text())
        case = Case(study, prompt, DRAW_SEED + 1000 * number)
        for name in options.methods.split(","):
            if name in row["methods"]:
                continue
            started = time.monotonic()
            picture, calls = MAKERS[name](case)
            seconds = time.monotonic() - started
            pixels = to_uint8(picture[None])
            seen = recogniser.look(model, features(pixels))[0]
            row["methods"][name] = {
                **recogniser.verdict(seen, plan),
                "seen": [f"{item.colour} {item.noun} {item.score:.2f}" for item in seen],
                "scores": predictor.predict(picture, prompt, scores_only=True).scores,
                "changed": not torch.equal(picture, case.plain),
                "calls": calls,
                "seconds": round(seconds, 2),
            }
            keep_picture(options.out / "pictures" / f"{number:04d}-{name}.png", pixels[0])
        write_text(path, json.dumps(row, indent=1) + "\n")
        logger.info("%d of %d: %s", number + 1, options.count, prompt)


def keep_picture(path: Path, pixels: np.ndarray) -> None:
    """As PNG."""
    from PIL import Image

    Image.fromarray(pixels).save(path)


def right(verdict: dict[str, Any]) -> float:
    """1 if all that was asked for is there, else 0."""
    return float(all(verdict[name] is not False for name in ("objects", "colours", "counts")))


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95% bootstrap interval over prompts."""
    array = np.asarray(values, float)
    draws = array[np.random.default_rng(seed).integers(len(array), size=(4000, len(array)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def table(folder: Path) -> str:
    """All methods, and the differences that matter, as Markdown; each on the prompts where all of it is there."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9]*.json"))]
    lines = [
        "| method | prompts | right | kinds | counts | colours | plausibility, alignment, aesthetics, overall by the "
        "feedback | changed | calls | s |",
        "|---|" + "---:|" * 9,
    ]
    for name in METHODS:
        found = [row["methods"][name] for row in rows if name in row["methods"]]
        if found:
            lines.append(_line(name, found))
    lines += [
        "",
        "| difference in right pictures | prompts | all | of which plain is wrong | |",
        "|---|---:|---:|---:|---|",
    ]
    for one, other in AGAINST:
        pairs = [row["methods"] for row in rows if one in row["methods"] and other in row["methods"]]
        if pairs:
            lines.append(_difference(one, other, pairs))
    return "\n".join(lines)


def _line(name: str, found: list[dict[str, Any]]) -> str:
    mean, low, high = interval([right(one) for one in found])
    shares = []
    for part in ("objects", "counts", "colours"):
        values = [float(one[part]) for one in found if one[part] is not None]
        shares.append(f"{np.mean(values):.2f}" if values else "-")
    scores = " ".join(f"{np.mean([one['scores'][score] for one in found]):.3f}" for score in found[0]["scores"])
    changed = np.mean([one["changed"] for one in found])
    calls, seconds = (np.mean([one[part] for one in found]) for part in ("calls", "seconds"))
    return (
        f"| {name} | {len(found)} | {mean:.2f} ({low:.2f} to {high:.2f}) | {' | '.join(shares)} | {scores} | "
        f"{changed:.2f} | {calls:.0f} | {seconds:.1f} |"
    )


def _difference(one: str, other: str, pairs: list[dict[str, Any]]) -> str:
    def shown(chosen: list[dict[str, Any]]) -> tuple[str, tuple[float, float, float]]:
        if not chosen:
            return "-", (0.0, 0.0, 0.0)
        found = interval([right(row[one]) - right(row[other]) for row in chosen])
        return f"{found[0]:+.3f} ({found[1]:+.3f} to {found[2]:+.3f})", found

    everything, figures = shown(pairs)
    faulty, _ = shown([row for row in pairs if not right(row["plain"])])
    said = "helps" if figures[1] > 0 else "harms" if figures[2] < 0 else "no difference shown"
    return f"| {one} - {other} | {len(pairs)} | {everything} | {faulty} | {said} |"


def beside(name: str) -> ModuleType:
    """Another script of this folder."""
    import sys

    spec = importlib.util.spec_from_file_location(f"studies_{Path(name).stem}", Path(__file__).with_name(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """One of the two commands."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("recogniser", type=Path)
    running.add_argument("out", type=Path)
    running.add_argument("--generator", default="embedded")
    running.add_argument("--count", type=int, default=200)
    running.add_argument("--methods", default=",".join(METHODS[:7]))
    running.add_argument("--steps", type=int, default=25)
    running.add_argument("--guidance", type=float, default=3.0)
    running.add_argument("--lora", type=Path)
    summing = commands.add_parser("table")
    summing.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    else:
        logger.info("%s", table(options.out))


if __name__ == "__main__":
    main()
