"""The Improve tab as documented endpoints, for programs and assistants."""

from __future__ import annotations

from typing import Any, Literal

from gradio.data_classes import FileData

from rahf.improve.repair import RepairOptions
from ui import values
from ui.endpoints import offer
from ui.errors import explained
from ui.improve.jobs import LIMITS, REPAIR, Answer, Job
from ui.improve.service import NO_PICTURE, ImproveService
from ui.progress import show
from ui.weights_menu import Choice

FAILED = "The picture was not improved"


def build_endpoints(choice: Choice[ImproveService]) -> None:
    """Offer `/repair`."""
    _repair(choice)


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
            for name, value in (("candidates", candidates), ("rounds", rounds), ("seed", seed)):
                LIMITS[name].check(name, values.whole(name, value))
            options = RepairOptions(
                what=values.choice("what", what, ("faults", "words")),
                candidates=values.whole("candidates", candidates),
                rounds=values.whole("rounds", rounds),
            )
            job = Job(
                REPAIR, values.text("prompt", prompt), values.whole("seed", seed), None, options, options.candidates
            )
            painted = values.upload(mask, NO_PICTURE) if mask is not None else None
            result = service.answer(job, values.upload(image, NO_PICTURE), painted, show)
            files = [FileData(path=str(path)) for path in (result.after, service.report_file(result))]
            return files[0], described(result.answer), files[1]

    offer(repair, "repair", "improve")
