"""The Improve tab as documented endpoints, for programs and assistants."""

from __future__ import annotations

from typing import Any, Literal

from gradio.data_classes import FileData

from rahf.improve.repair import RepairOptions
from ui import values
from ui.endpoints import offer
from ui.errors import explained
from ui.improve.jobs import DRAW, LIMITS, REPAIR, WAYS, Answer, Job
from ui.improve.service import NO_PICTURE, ImproveService, Result
from ui.progress import show
from ui.weights_menu import Choice

FAILED, NOT_ASKED = "The picture was not improved", "The checklist has no answer"


def build_endpoints(choice: Choice[ImproveService]) -> None:
    """Offer `/repair`, `/improve` and `/checklist`."""
    _repair(choice)
    _improve(choice)
    _checklist(choice)


def described(answer: Answer) -> dict[str, Any]:
    """An answer as plain values."""
    before = answer.before.feedback.scores if answer.before is not None else None
    return {
        "before": before,
        "after": answer.after.feedback.scores,
        "stopped": answer.stopped,
        "seconds": round(answer.seconds, 2),
        "calls": answer.calls,
        "tried": [{"caption": made.caption, "scores": made.feedback.scores} for made in answer.others],
    }


def _files(service: ImproveService, result: Result) -> tuple[FileData, dict[str, Any], FileData]:
    """What an endpoint gives back: the picture, what was done, and the report."""
    report = service.report_file(result)
    return FileData(path=str(result.after)), described(result.answer), FileData(path=str(report))


def _whole(name: str, value: Any) -> int:
    """A whole number within what the page allows. Raises ValueError naming value, limit and remedy."""
    number = values.whole(name, value)
    LIMITS[name].check(name, number)
    return number


def _repair(choice: Choice[ImproveService]) -> None:
    def repair(
        image: FileData,
        prompt: str,
        mask: FileData | None = None,
        what: Literal["faults", "words"] = "faults",
        candidates: int = 4,
        rounds: int = 3,
        seed: int = 0,
    ) -> tuple[FileData, dict[str, Any], FileData]:
        """Draw anew what rich feedback finds wrong in a generated picture, and keep the best if it is better.

        Args:
            image: the picture, any common image format, up to 4:1 and 100 megapixels.
            prompt: what the picture is to show.
            mask: a picture of the same shape, white where to draw anew; without one the feedback decides.
            what: "faults" that the implausibility heatmap marks, or "words" of the prompt that are not shown.
            candidates: pictures a round, 1 to 8.
            rounds: at most so many, 1 to 5.
            seed: which of the possible pictures, 0 or more.

        Returns:
            The picture as PNG (outside of what was drawn anew it is unchanged), what was done with scores before and
            after as JSON, and a report as a picture.
        """
        with explained(FAILED):
            service = choice.current()
            options = RepairOptions(
                what=values.choice("what", what, ("faults", "words")),
                candidates=_whole("candidates", candidates),
                rounds=_whole("rounds", rounds),
            )
            said, number = values.text("prompt", prompt), _whole("seed", seed)
            job = Job(REPAIR, said, number, None, options, options.candidates)
            painted = values.upload(mask, NO_PICTURE) if mask is not None else None
            return _files(service, service.answer(job, values.upload(image, NO_PICTURE), painted, show))

    offer(repair, "repair", "improve")


def _improve(choice: Choice[ImproveService]) -> None:
    def improve(
        prompt: str,
        way: Literal["draw", "best", "guide", "sgool", "doodl", "compare"] = "best",
        candidates: int = 4,
        seed: int = 0,
    ) -> tuple[FileData, dict[str, Any], FileData]:
        """Draw a picture of a prompt, and make it better in one of several ways.

        Args:
            prompt: what the picture is to show.
            way: "draw" once, the "best" of several by the overall score, drawing led by it ("guide", experimental),
                better starting noise by picture and salient part ("sgool") or by the picture alone ("doodl"), or all
                of it side by side ("compare").
            candidates: pictures to choose from, 1 to 8.
            seed: which of the possible pictures, 0 or more.

        Returns:
            The picture as PNG, what was done with scores before and after as JSON, and a report as a picture.
        """
        with explained(FAILED):
            tool = values.choice("way", way, (DRAW, *WAYS.values()))
            service, count = choice.current(), _whole("candidates", candidates)
            said, number = values.text("prompt", prompt), _whole("seed", seed)
            job = Job(tool, said, number, None, RepairOptions(candidates=count), count)
            return _files(service, service.answer(job, progress=show))

    offer(improve, "improve", "improve")


def _checklist(choice: Choice[ImproveService]) -> None:
    def checklist(image: FileData, prompt: str = "") -> dict[str, Any]:
        """Answer a list of questions about a picture, and add the answers up to a score.

        Args:
            image: the picture, any common image format, up to 4:1 and 100 megapixels.
            prompt: that it was made from; without one its agreement does not count.

        Returns:
            The score, and for each question its answer, what it adds, and what was measured or why it was not asked.
        """
        with explained(NOT_ASKED):
            path, said = values.upload(image, NO_PICTURE), values.text("prompt", prompt)
            return choice.current().questions(path, said, progress=show).to_dict()

    offer(checklist, "checklist", "improve")
