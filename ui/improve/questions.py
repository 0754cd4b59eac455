"""The checklist on the page: which answers made the score of a picture or of a loop."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from foundation.video import read_video
from rahf.predictor import Predictor
from ui.photos import Source, open_photo
from ui.progress import Progress, silent

if TYPE_CHECKING:
    from rahf.improve.checklist.scoring import ChecklistResult

MOST_FRAMES = 150
SIDE = 512


def of_picture(source: Source, prompt: str, predictor: Predictor) -> ChecklistResult:
    """Judge a picture. Raises ValueError for one, or a prompt, that cannot be used."""
    from rahf.improve.checklist.scoring import checklist

    return checklist(open_photo(source).tensor(SIDE), prompt.strip(), predictor)


def of_video(path: str | Path, predictor: Predictor, progress: Progress = silent) -> ChecklistResult:
    """Judge a loop. Raises ValueError for what is no video, or one of fewer than three frames."""
    from rahf.improve.checklist.scoring import checklist_frames

    frames, _ = read_video(path, max_frames=MOST_FRAMES)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return checklist_frames(pixels, predictor=predictor, progress=progress)


def told(result: ChecklistResult) -> str:
    """The result as HTML: the score, the answers that count with what each adds, and what was not asked."""
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(answer.question.text)}</th><td>{_yes(answer.yes)}</td>"
        f"<td>{answer.points:+.3f}</td><td class='quiet'>{html.escape(answer.reason)}</td></tr>"
        for answer in result.made_of()
    )
    head = "<tr><th scope='col'>question</th><th scope='col'>answer</th><th scope='col'>adds</th><th></th></tr>"
    unasked = len(result.answers) - len(result.asked)
    said = [f"Score {result.score:.2f}, by the list {result.questions.name}; answered by {result.answered_by}."]
    if result.alignment is not None:
        said.append(f"Agreement with the prompt {result.alignment:.2f} adds {result.alignment_points:+.3f}.")
    if result.frames > 1:
        said.append(f"{result.frames} frames.")
    if unasked:
        said.append(f"{unasked} questions were not asked: nothing here can answer them, or they do not arise.")
    table = f"<table class='improve-scores'><thead>{head}</thead><tbody>{rows}</tbody></table>"
    words = html.escape(" ".join(said))
    return f"<div class='improve-told' role='status'><p>{words}</p><div class='table-wrap'>{table}</div></div>"


def _yes(value: float | None) -> str:
    if value is None:
        return "not asked"
    return {0.0: "no", 1.0: "yes"}.get(value, f"yes, {value:.0%}")
