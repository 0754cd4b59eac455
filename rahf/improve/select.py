"""Selection: several pictures a prompt, the best by feedback kept if it is good enough; `tune` learns from it.

Liang et al. 2024, section 6: eight pictures a prompt, the best one kept if its score passes a threshold.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from foundation.files import check_folder, replacing, write_text
from foundation.folders import Failure, Processes, Summary
from foundation.limits import Checked
from foundation.pictures import to_uint8
from rahf.feedback import Feedback, rank
from rahf.improve.generation.base import check_text, later_seed, part_of
from rahf.improve.generator import Generator, OutOfMemoryError, Progress, Setting
from rahf.improve.repair import judge
from rahf.limits import IMPROVE
from rahf.model.config import SCORES
from rahf.predictor import Predictor

MEAN = "mean"
SETTINGS, KEPT, PICTURES = "settings.json", "kept.jsonl", "pictures"
DRAWING = 0.8  # of the progress
MOST_PROMPTS = 100_000


@dataclass(frozen=True)
class SelectOptions(Checked):
    """How many are drawn, and which is kept.

    Attributes:
        count: pictures a prompt.
        by: score that decides, or "mean" of all four.
        keep: value that the best one has to reach to be kept.
        setting: of the generator; its own by default.

    Raises:
        ValueError: for a value out of range.
    """

    limits: ClassVar = {"count": IMPROVE["count"], "keep": IMPROVE["keep"]}
    choices: ClassVar = {"by": (*SCORES, MEAN)}

    count: int = 8
    by: str = "overall"
    keep: float = 0.8
    setting: Setting | None = None

    @property
    def weights(self) -> dict[str, float] | None:
        """For `rahf.feedback.rank`."""
        return None if self.by == MEAN else {self.by: 1.0}


@dataclass(frozen=True, eq=False)
class Best:
    """The best of several pictures.

    Attributes:
        pictures: (n,3,S,S) float32 in [0, 1], as they were drawn.
        feedback: on each, without heatmaps and words.
        order: their indices, best first.
        values: what they were ranked by, in the same order as the pictures.
        kept: whether the best one is good enough.
        stopped: the same as a sentence.
        seconds: that it took.
        calls: how often the network looked at one picture's latents.
    """

    pictures: Tensor
    feedback: tuple[Feedback, ...]
    order: tuple[int, ...]
    values: tuple[float, ...]
    kept: bool
    stopped: str
    seconds: float
    calls: int

    @property
    def picture(self) -> Tensor:
        """(3,S,S) the best one."""
        return self.pictures[self.order[0]]

    @property
    def before(self) -> Feedback:
        """On the first, which one would have had without selection."""
        return self.feedback[0]

    @property
    def after(self) -> Feedback:
        """On the best one."""
        return self.feedback[self.order[0]]


def select(
    prompt: str,
    generator: Generator,
    predictor: Predictor,
    options: SelectOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Best:
    """Draw several pictures of one prompt and rank them.

    Args:
        prompt: what they show.
        generator, predictor: that draw and judge.
        options: how many, and by what.
        seed: of the noise.
        progress: told how far it is.

    Raises:
        ValueError: no prompt, numbers out of range, or no memory.
    """
    started = time.monotonic()
    options = options or SelectOptions()
    setting = options.setting or generator.setting
    check_text(prompt)
    predictor.check_prompt(prompt)

    pictures = generator.generate(prompt, options.count, seed, setting, part_of(progress, 0, DRAWING))
    feedback = judge(predictor, pictures, prompt)
    ranked = rank(feedback, options.weights)
    values = dict(ranked)
    best, value = ranked[0]
    kept = value >= options.keep
    if progress is not None:
        progress(1.0, "judged")
    stopped = f"picture {best + 1} of {options.count} is the best by {options.by}, {value:.2f}"
    stopped += "" if kept else f", which stays under {options.keep:g}: none is kept"
    return Best(
        pictures,
        tuple(feedback),
        tuple(index for index, _ in ranked),
        tuple(values[index] for index in range(len(feedback))),
        kept,
        stopped,
        time.monotonic() - started,
        generator.cost(options.count, setting),
    )


def select_folder(
    prompts: Sequence[str],
    out: Path,
    generator: Generator,
    predictor: Predictor,
    options: SelectOptions | None = None,
    seed: int = 0,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Select for many prompts, into a folder from which `rahf improve tune` learns.

    `out/NUMBER.json` says what became of each prompt, `out/pictures/NUMBER.png` is its best picture if it is kept, and
    `out/kept.jsonl` lists these with prompts and scores. It may be interrupted and started again with the same
    settings, and shared among processes by `accelerate launch`.

    Args:
        prompts: one or more.
        out: the folder.
        generator, predictor, options: as for `select`.
        seed: of prompt n it is `seed` + n * count.
        processes: this one among others.
        progress: told how far this process is.

    Returns:
        how many prompts were done now and before, and which failed.

    Raises:
        ValueError: no prompts, results of other settings or prompts in `out`, or no memory.
    """
    options = options or SelectOptions()
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise ValueError(f"{len(prompts)} prompts are given; give 1 to {MOST_PROMPTS:,}, one a line")
    settings = {
        "generator": generator.name,
        "license": generator.license,
        "judge": predictor.name,
        "seed": seed,
        **asdict(options),
        "setting": asdict(options.setting or generator.setting),
    }
    processes = processes or Processes("cpu")
    processes.agreed(lambda: _begin(out, settings))
    own = range(processes.index, len(prompts), processes.count)
    summary = _work(prompts, own, out, (generator, predictor), options, seed, progress)
    rows = processes.together([summary])
    if processes.first:
        _write_table(out, prompts)
    return Summary(
        sum(row.done for row in rows),
        sum(row.skipped for row in rows),
        [failure for row in rows for failure in row.failures],
    )


def _work(
    prompts: Sequence[str],
    own: Sequence[int],
    out: Path,
    models: tuple[Generator, Predictor],
    options: SelectOptions,
    seed: int,
    progress: Progress | None,
) -> Summary:
    """This process's part of the prompts, by number."""
    summary = Summary()
    for place, number in enumerate(own):
        one_seed = later_seed(seed, number * options.count)
        if _earlier(out, number, prompts[number]) is not None:
            summary.skipped += 1
            continue
        try:
            best = select(prompts[number], *models, options, one_seed)
        except OutOfMemoryError:
            raise
        except ValueError as error:
            summary.failures.append(Failure(f"prompt {number + 1}", str(error)))
            continue
        _write(out, number, prompts[number], best, one_seed)
        summary.done += 1
        if progress is not None:
            progress((place + 1) / len(own), best.stopped)
    return summary


def read_prompt_list(path: Path) -> list[str]:
    """Prompts from a text file, one a line; empty lines are left out. Raises ValueError for a file without any."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; save it as such, one prompt a line") from error
    prompts = [line for line in lines if line]
    if not prompts:
        raise ValueError(f"{path} holds no prompt; write one a line")
    return prompts


def _name(number: int) -> str:
    return f"{number + 1:06d}"


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Prepare the folder, and check that what is there is of the same settings."""
    path = out / SETTINGS
    settings = json.loads(json.dumps(settings))
    if not path.is_file():
        check_folder(out)
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
        return
    before = _read(path)
    changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    if changed:
        changes = ", ".join(f"{key} {before.get(key)!r}, now {settings.get(key)!r}" for key in changed)
        raise ValueError(f"{out} holds pictures of other settings ({changes}); give the same ones, or another folder")


def _earlier(out: Path, number: int, prompt: str) -> dict[str, Any] | None:
    """What became of a prompt in an earlier run; None if nothing yet. Raises ValueError if it was another prompt."""
    path = out / f"{_name(number)}.json"
    if not path.is_file():
        return None
    found = _read(path)
    if found.get("prompt") != prompt:
        raise ValueError(
            f"prompt {number + 1} of {out} was {str(found.get('prompt'))[:40]!r}, now it is {prompt[:40]!r}; give the "
            "same prompts in the same order, or another folder"
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and it is made again") from error
    return dict(found)


def _write(out: Path, number: int, prompt: str, best: Best, seed: int) -> None:
    """The picture first: where the note is, it is whole."""
    name = f"{PICTURES}/{_name(number)}.png"
    if best.kept:
        with replacing(out / name) as partial:
            Image.fromarray(to_uint8(best.picture[None])[0]).save(partial)
    note = {
        "prompt": prompt,
        "seed": seed + best.order[0],
        "filename": name if best.kept else None,
        "value": best.values[best.order[0]],
        "scores": best.after.scores,
        "unsure": list(best.after.unsure),
        "values": list(best.values),
    }
    write_text(out / f"{_name(number)}.json", json.dumps(note, indent=1, ensure_ascii=False) + "\n")


def _write_table(out: Path, prompts: Sequence[str]) -> None:
    """`kept.jsonl`: the pictures that were kept, with prompt and scores, in the order of the prompts."""
    rows = [_earlier(out, number, prompt) for number, prompt in enumerate(prompts)]
    lines = [
        json.dumps({key: row[key] for key in ("filename", "prompt", "seed", "value", "scores")}, ensure_ascii=False)
        for row in rows
        if row is not None and row["filename"] is not None
    ]
    write_text(out / KEPT, "".join(line + "\n" for line in lines))
