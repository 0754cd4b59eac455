#!/usr/bin/env python3
"""SGOOL, DOODL and the best of n at equal cost, told apart by the independent recogniser of `studies/generator.py`.

usage: python studies/saliency.py RECOGNISER GENERATOR OUT.json [--count 200] [--seconds 1200]

For each prompt (of plans held out from the generator's training) and one seed: the sampler's own picture; the best of n
pictures of seeds that follow, by the distance that the other two lower, n such that as many looks of the network are
spent; SGOOL and DOODL. OUT.json is gone on with; the table of what is there is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foundation.files import write_text
from foundation.pictures import to_uint8
from rahf.data.drawable import draw_prompts
from rahf.data.grammar import Plan
from rahf.improve.generator import Generator, Setting, load_generator
from rahf.improve.saliency.likeness import Likeness
from rahf.improve.saliency.optimise import DOODL, SGOOL, SaliencyOptions, optimise_saliency
from rahf.improve.scores import COMPOSED
from rahf.predictor import Predictor
from studies.generator import Features, load, look, verdict

SEED = 500  # of the prompts; others than were looked at while settings were chosen
METHODS = ("first", "best of n", SGOOL, DOODL)
KINDS = ("objects", "colours", "counts")


@torch.no_grad()
def best_of(
    generator: Generator, predictor: Predictor, prompt: str, seed: int, setting: Setting, calls: int
) -> tuple[Tensor, int, float]:
    """The picture (3,S,S) nearest to the prompt of as many as `calls` looks draw; their number, and seconds."""
    started = time.monotonic()
    count = max(calls // generator.cost(1, setting), 1)
    found: list[tuple[float, Tensor]] = []
    for start in range(0, count, 16):
        for picture in generator.generate(prompt, min(16, count - start), seed + start, setting):
            measure = Likeness(predictor, prompt, picture, COMPOSED)
            found.append((float(measure.distance(picture[None])), picture))
    return min(found, key=lambda pair: pair[0])[1], count, time.monotonic() - started


def one_prompt(
    generator: Generator, predictor: Predictor, prompt: str, seed: int, iterations: int, setting: Setting
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A picture (3,S,S) by method, and what each cost."""
    pictures = {"first": generator.generate(prompt, 1, seed, setting)[0]}
    row: dict[str, Any] = {"prompt": prompt, "seed": seed}
    calls = 0
    for method in (SGOOL, DOODL):
        options = SaliencyOptions(method=method, iterations=iterations, judged_as=COMPOSED)
        made = optimise_saliency(generator, predictor, prompt, seed, options, setting)
        pictures[method] = made.picture
        row[method] = {"calls": made.calls, "seconds": made.seconds, "losses": made.losses, "best": made.best}
        calls = max(calls, made.calls)
    picture, count, seconds = best_of(generator, predictor, prompt, seed, setting, calls)
    pictures["best of n"] = picture
    row["best of n"] = {"calls": calls, "seconds": seconds, "pictures": count}
    return pictures, row


def table_of(rows: list[dict[str, Any]]) -> str:
    """Shares of right pictures by method, and what they cost on average."""
    lines = [
        f"| method | {' | '.join(KINDS)} | all asked for | looks | seconds |",
        f"|---|{'---:|' * (len(KINDS) + 3)}",
    ]
    for method in METHODS:
        cells = []
        for kind in KINDS:
            values = [row["right"][method][kind] for row in rows if row["right"][method][kind] is not None]
            cells.append(f"{np.mean(values):.2f}")
        whole = [all(value is not False for value in row["right"][method].values()) for row in rows]
        cost = [row[method] for row in rows if method in row]
        spent = [f"{np.mean([one[name] for one in cost]):.0f}" if cost else "-" for name in ("calls", "seconds")]
        lines.append(f"| {method} | {' | '.join(cells)} | {np.mean(whole):.2f} | {' | '.join(spent)} |")
    return "\n".join([f"{len(rows)} prompts", "", *lines])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("recogniser", "generator", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=3.0)
    options = parser.parse_args()
    started = time.monotonic()
    rows = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else []
    asked: list[tuple[str, Plan]] = draw_prompts(options.count, SEED)
    generator, predictor = load_generator(options.generator, "cpu"), Predictor.from_pretrained("embedded", "cpu")
    recogniser, features = load(options.recogniser), Features()
    setting = Setting(steps=options.steps, guidance=options.guidance)
    sheets = []
    for index, (prompt, plan) in list(enumerate(asked))[len(rows) :]:
        if time.monotonic() - started > options.seconds:
            break
        pictures, row = one_prompt(generator, predictor, prompt, 1000 * index, options.iterations, setting)
        pixels = to_uint8(torch.stack([pictures[method] for method in METHODS]))
        with torch.no_grad():
            seen = look(recogniser, features(pixels))
        row["right"] = {method: verdict(items, plan) for method, items in zip(METHODS, seen, strict=True)}
        rows.append(row)
        sheets.append(np.concatenate(list(pixels), axis=0))
        write_text(options.out, json.dumps(rows) + "\n")
        Image.fromarray(np.concatenate(sheets, axis=1)).save(options.out.with_suffix(".png"))
    print(table_of(rows))


if __name__ == "__main__":
    main()
