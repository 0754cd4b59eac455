"""Feedback on every image of a folder, alone or under `accelerate launch`."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from foundation.folders import SETTINGS_FILE, Item, Processes, Summary, Task, find_items, result_path, work_through
from rahf.feedback import Feedback
from rahf.images import SUFFIXES, ImageSource, load_image
from rahf.model.config import SCORES
from rahf.predictor import Predictor, check_batch_size
from rahf.prompts import encode_prompts
from rahf.sheets import report, save_heatmap

FEEDBACK_FILE = "feedback.json"
SCORES_FILE = "scores.csv"


def analyze_folder(
    folder: Path,
    out: Path,
    predictor: Predictor,
    prompts: str | Mapping[str, str],
    processes: Processes,
    batch_size: int = 8,
    scores_only: bool = False,
    with_report: bool = False,
) -> Summary:
    """Write the feedback on every image below `folder` into `out`, under the image's own name.

    prompts: one for all, or by file name, place below `folder`, or either without suffix; an image without prompt is a
    failure of its own. Each image gets a folder with `feedback.json` and its heatmaps, and `report.png` if wanted; with
    `scores_only` one JSON file. `out/scores.csv` lists the scores of all in the end.
    Returns what was done and what failed, over all processes. Raises ValueError for a folder without images, prompts of
    which none belongs to an image, and results of other settings or other prompts in `out`.
    """
    check_batch_size(batch_size)
    if not isinstance(prompts, str):
        items = find_items(folder, SUFFIXES, out)
        if all(prompt_of(item, prompts) is None for item in items):
            raise ValueError(
                f"none of the {len(prompts)} prompts belongs to one of the {len(items)} images of {folder}; name them "
                f"as the files are, such as {items[0].file}"
            )

    processes.agreed(lambda: _check_earlier(folder, out, prompts, ".json" if scores_only else ""))

    def load(item: Item) -> tuple[Item, Tensor, str]:
        prompt = prompt_of(item, prompts)
        if prompt is None:
            raise ValueError(f"there is no prompt for {item.file}")
        encode_prompts([prompt], predictor.model.config, predictor.tokenizer)  # a bad one is told before the batch
        return item, load_image(item.path), prompt

    def compute(loaded: Sequence[tuple[Item, Tensor, str]]) -> list[tuple[Item, Feedback]]:
        items, images, texts = zip(*loaded, strict=True)
        return list(zip(items, predictor.predict_batch(images, texts, scores_only=scores_only), strict=True))

    def save(output: tuple[Item, Feedback], path: Path) -> None:
        item, feedback = output
        if scores_only:
            path.write_text(_as_json(feedback, item), encoding="utf-8")
        else:
            path.mkdir()
            write_feedback(path, item.path, feedback, item, with_report)

    task = Task(
        suffixes=SUFFIXES,
        extension=".json" if scores_only else "",
        settings={"scores_only": scores_only, "report": with_report, "weights": predictor.name},
        load=load,
        compute=compute,
        save=save,
        batch_size=batch_size,
        label="analyzing",
    )
    summary = work_through(folder, out, task, processes)
    if processes.first:
        _write_scores(out, find_items(folder, SUFFIXES, out), task.extension)
    return summary


def _check_earlier(folder: Path, out: Path, prompts: str | Mapping[str, str], extension: str) -> None:
    """Raises ValueError if a result in `out`, which would be kept, was made with another prompt than is given now."""
    for item in find_items(folder, SUFFIXES, out) if (out / SETTINGS_FILE).is_file() else ():
        earlier = _earlier(out, item, extension)
        prompt = prompt_of(item, prompts)
        if earlier is not None and prompt is not None and earlier["prompt"] != prompt:
            raise ValueError(
                f"{out} holds feedback on {item.file} for another prompt, {earlier['prompt'][:40]!r}; give the same "
                "prompts, or another folder"
            )


def _earlier(out: Path, item: Item, extension: str) -> dict[str, Any] | None:
    """The feedback on an image that `out` holds, or None."""
    path = result_path(out, item, extension)
    path = path if extension else path / FEEDBACK_FILE
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def prompt_of(item: Item, prompts: str | Mapping[str, str]) -> str | None:
    """The prompt of an image: by its place, its file name, or either without suffix, in this order."""
    if isinstance(prompts, str):
        return prompts
    place = Path(item.file)
    keys = (item.file, place.name, place.with_suffix("").as_posix(), place.stem)
    return next((prompts[key] for key in keys if key in prompts), None)


def write_feedback(
    folder: Path, image: ImageSource, feedback: Feedback, item: Item | None = None, with_report: bool = True
) -> None:
    """`feedback.json`, a grey PNG for each heatmap, and the report as a picture, into an existing folder."""
    (folder / FEEDBACK_FILE).write_text(_as_json(feedback, item), encoding="utf-8")
    for name, heatmap in feedback.heatmaps.items():
        save_heatmap(folder / f"{name}.png", heatmap)
    if with_report:
        report(image, feedback).save(folder / "report.png")


def _as_json(feedback: Feedback, item: Item | None) -> str:
    found = feedback.to_dict() if item is None else {"file": item.file, **feedback.to_dict()}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _write_scores(out: Path, items: Sequence[Item], extension: str) -> None:
    """The scores of every image that has feedback, as a table."""
    beside = out / f".{SCORES_FILE}.{os.getpid()}"
    try:
        with open(beside, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file", "prompt", *SCORES])
            for item in items:
                found = _earlier(out, item, extension)
                if found is not None:
                    table.writerow([item.file, found["prompt"], *(found["scores"][name] for name in SCORES)])
        os.replace(beside, out / SCORES_FILE)
    finally:
        beside.unlink(missing_ok=True)
