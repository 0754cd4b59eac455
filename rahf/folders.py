"""Feedback on every image of a folder, alone or under `accelerate launch`."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from foundation.files import replacing, replacing_files
from foundation.folders import SETTINGS_FILE, Item, Processes, Summary, Task, find_items, result_path, work_through
from foundation.pictures import KEPT_SIDE, SUFFIXES, PictureSource, load_photo
from rahf.data.prompt_tables import assign_prompts, missing_prompt
from rahf.feedback import Feedback
from rahf.model.config import HEATMAPS, SCORES
from rahf.predictor import Predictor, check_batch_size
from rahf.sheets import report, save_heatmap

FEEDBACK_FILE = "feedback.json"
SCORES_FILE = "scores.csv"
REPORT_FILE = "report.png"
FEEDBACK_FILES = {FEEDBACK_FILE, REPORT_FILE, *(f"{name}.png" for name in HEATMAPS)}
FULL_WIDTH = ("\uff1d", "\uff0b", "\uff0d", "\uff20")
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", *FULL_WIDTH)


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

    prompts: one for all, or a table for `assign_prompts`; an image without prompt is a failure of its own. Each image
    gets a folder with `feedback.json` and its heatmaps, and `report.png` if wanted; with `scores_only` one JSON file.
    `out/scores.csv` lists the scores of all in the end.
    Returns what was done and what failed, over all processes. Raises ValueError for a folder without images, prompts of
    which none belongs to an image, and results of other settings or other prompts in `out`.
    """
    check_batch_size(batch_size)
    items = find_items(folder, SUFFIXES, out)
    texts = prompts_of(items, prompts)
    if not texts:
        raise ValueError(
            f"none of the {len(prompts)} prompts belongs to one of the {len(items)} images of {folder}; name them as "
            f"the files are, such as {items[0].file}"
        )
    processes.agreed(lambda: _check_earlier(items, out, texts, ".json" if scores_only else ""))

    def load(item: Item) -> tuple[Item, Tensor, str]:
        if item.file not in texts:
            raise ValueError(missing_prompt(item.file, {} if isinstance(prompts, str) else prompts))
        prompt = texts[item.file]
        predictor.check_prompt(prompt)  # a bad one is told before the batch
        return item, load_photo(item.path, KEPT_SIDE), prompt

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
        _write_scores(out, items, task.extension)
    return summary


def _check_earlier(items: Sequence[Item], out: Path, prompts: Mapping[str, str], extension: str) -> None:
    """Raises ValueError if a result in `out`, which would be kept, was made with another prompt than is given now."""
    for item in items if (out / SETTINGS_FILE).is_file() else ():
        earlier = _earlier(out, item, extension)
        prompt = prompts.get(item.file)
        if earlier is not None and prompt is not None and earlier["prompt"] != prompt:
            raise ValueError(
                f"{out} holds feedback on {item.file} for another prompt, {earlier['prompt'][:40]!r}; give the same "
                "prompts, or another folder"
            )


def _earlier(out: Path, item: Item, extension: str) -> dict[str, Any] | None:
    """The feedback on an image that `out` holds, or None."""
    path = result_path(out, item, extension)
    path = path if extension else path / FEEDBACK_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"prompt": found["prompt"], "scores": {name: found["scores"][name] for name in SCORES}}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged; delete it, and it is made again") from error


def prompts_of(items: Sequence[Item], prompts: str | Mapping[str, str]) -> dict[str, str]:
    """The prompt of each image that has one, by its place below the folder; one prompt may be that of all."""
    if isinstance(prompts, str):
        return {item.file: prompts for item in items}
    return assign_prompts((item.file for item in items), prompts)


def save_feedback(folder: Path, image: PictureSource, feedback: Feedback) -> None:
    """`write_feedback` into a folder that may exist: an earlier feedback there is replaced as a whole, or stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing_files(folder, lambda: FEEDBACK_FILES) as partial:
        write_feedback(partial, image, feedback)


def write_feedback(
    folder: Path, image: PictureSource, feedback: Feedback, item: Item | None = None, with_report: bool = True
) -> None:
    """`feedback.json`, a grey PNG for each heatmap, and the report as a picture, into an existing folder."""
    (folder / FEEDBACK_FILE).write_text(_as_json(feedback, item), encoding="utf-8")
    for name, heatmap in feedback.heatmaps.items():
        save_heatmap(folder / f"{name}.png", heatmap)
    if with_report:
        report(image, feedback).save(folder / REPORT_FILE)


def _as_json(feedback: Feedback, item: Item | None) -> str:
    found = feedback.to_dict() if item is None else {"file": item.file, **feedback.to_dict()}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _write_scores(out: Path, items: Sequence[Item], extension: str) -> None:
    """The scores of every image that has feedback, as a table."""
    with replacing(out / SCORES_FILE) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "prompt", *SCORES])
        for item in items:
            found = _earlier(out, item, extension)
            if found is not None:
                texts = (as_cell(item.file), as_cell(found["prompt"]))
                table.writerow([*texts, *(found["scores"][name] for name in SCORES)])


def as_cell(text: str) -> str:
    """A text for a spreadsheet, which would calculate what looks like a formula: that gets an apostrophe in front."""
    return f"'{text}" if text.startswith(FORMULAS) else text
