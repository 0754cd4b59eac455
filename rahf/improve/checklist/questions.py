"""The questions: our own list in ladders, and the form that other lists are read into.

A ladder asks one thing from "very" down to "not at all bad"; a better picture has more of its questions answered with
yes. After VisionReward (Xu et al. 2024) a yes counts +1, a no -1, and the score is linear in the answers. Its own
questions are not here; `rahf.improve.checklist.original` reads them from the user's copy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "weights" / "checklist" / "config.json"


@dataclass(frozen=True)
class Question:
    """One question that is answered with yes or no.

    Attributes:
        name: unique in its list.
        ladder: what it asks about.
        text: as it is put to a person or a model.
        weight: what a yes adds to the score and a no takes from it.
        measure: of `rahf.improve.checklist.measures` that can answer it; "" if none can.
        threshold: value of the measure from which on the answer is yes.
        only_if: name of the question that has to be answered with yes for this one to count; "" for none.
        level: part of the reference pictures whose measure lies below the threshold; NaN for thresholds by rule.
    """

    name: str
    ladder: str
    text: str
    weight: float = 0.0
    measure: str = ""
    threshold: float = 0.5
    only_if: str = ""
    level: float = float("nan")


@dataclass(frozen=True)
class QuestionList:
    """Questions with their weights.

    Attributes:
        name: of the list, as results name it.
        questions: in the order in which they are put.
        alignment_weight: what the agreement with the prompt, in [0, 1], is multiplied with.
        intercept: added to the score.
        mean: whether the score is the mean over the questions instead of the sum.
        measured: whether measures may answer; else only a model that reads questions can.
        of_videos: whether the questions are about a whole video.
    """

    name: str
    questions: tuple[Question, ...]
    alignment_weight: float = 0.0
    intercept: float = 0.0
    mean: bool = False
    measured: bool = False
    of_videos: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a name that occurs twice, and for a condition that is no earlier question."""
        seen: set[str] = set()
        for question in self.questions:
            if question.name in seen or (question.only_if and question.only_if not in seen):
                raise ValueError(
                    f"question {question.name!r} of {self.name} occurs twice or depends on {question.only_if!r}, which "
                    "does not come before it; give every question its own name, conditions first"
                )
            seen.add(question.name)


# Ladder, measure, and its rungs: which part of the reference pictures fails the question, and its words.
_LADDERS: tuple[tuple[str, str, tuple[tuple[float, str], ...]], ...] = (
    (
        "sharpness",
        "sharpness",
        (
            (0.75, "Is the picture crisp down to its finest edges?"),
            (0.5, "Would one call the picture sharp?"),
            (0.25, "Is the picture without obvious blur?"),
            (0.05, "Can outlines be made out at all?"),
        ),
    ),
    (
        "focus",
        "subject sharpness",
        ((0.6, "Does the focus lie on what draws the eye?"), (0.2, "Is what draws the eye more than a blur?")),
    ),
    (
        "grain",
        "smoothness",
        ((0.6, "Are even surfaces perfectly clean?"), (0.2, "Is there no more grain than one overlooks?")),
    ),
    (
        "exposure",
        "mid tones",
        ((0.6, "Is the light well measured?"), (0.2, "Is the picture neither murky nor glaring?")),
    ),
    (
        "clipping",
        "unclipped",
        ((0.5, "Do shadows and lights keep their drawing?"), (0.15, "Is only a little lost in black or white?")),
    ),
    (
        "contrast",
        "contrast",
        ((0.7, "Do light and dark stand out boldly?"), (0.25, "Is the picture more than flat and hazy?")),
    ),
    (
        "colour",
        "colourfulness",
        (
            (0.75, "Are the colours rich?"),
            (0.4, "Are the colours lively?"),
            (0.1, "Is there more colour than a tint?"),
        ),
    ),
    (
        "harmony",
        "harmony",
        ((0.6, "Do the colours belong to one family and its opposite?"), (0.25, "Do the colours get on at all?")),
    ),
    (
        "fullness",
        "fullness",
        (
            (0.6, "Is there something to see nearly everywhere?"),
            (0.25, "Is there more to see than bare ground?"),
            (0.05, "Is the picture anything but empty?"),
        ),
    ),
    (
        "symmetry",
        "symmetry",
        ((0.8, "Does the left half mirror the right one?"), (0.5, "Are both halves alike at first sight?")),
    ),
    (
        "balance",
        "balance",
        ((0.5, "Does what draws the eye lie about the middle line?"), (0.15, "Is the weight not all on one side?")),
    ),
    (
        "subject",
        "prominence",
        (
            (0.75, "Does one thing stand out at once?"),
            (0.4, "Is there a main subject?"),
            (0.1, "Does anything draw the eye more than the rest?"),
        ),
    ),
    (
        "framing",
        "subject whole",
        ((0.5, "Is the main subject whole within the frame?"), (0.15, "Is the main subject not mostly cut off?")),
    ),
    ("size", "subject size", ((0.3, "Is the main subject large enough to be looked at?"),)),
    (
        "detail",
        "detail",
        (
            (0.75, "Is it full of fine detail?"),
            (0.4, "Is there fine detail?"),
            (0.1, "Is it more than smooth areas?"),
        ),
    ),
    (
        "soundness",
        "unbroken",
        ((0.6, "Is every part soundly drawn?"), (0.2, "Is nothing torn, melted or doubled?")),
    ),
    (
        "appeal",
        "appeal",
        (
            (0.75, "Would many people hang it on a wall?"),
            (0.5, "Would most people like to look at it?"),
            (0.2, "Would people look at it twice?"),
        ),
    ),
)
# Name, measure, words, condition: what counts only where there are people; thresholds are one half.
_PEOPLE = (
    ("people", "people", "Are there people in it?", ""),
    ("bodies", "people right", "Are the people built as they should be?", "people"),
    ("faces", "", "Are the faces right?", "people"),
    ("hands", "", "Are the hands right?", "people"),
)
# What nothing here can answer but a model that reads questions.
_UNMEASURED = (
    ("mood", "Does the picture leave a good feeling?"),
    ("daylight", "Does the light fall from where it could come from?"),
    ("recognition", "Can one tell what everything is?"),
    ("likelihood", "Could this have happened in front of a camera?"),
    ("harmlessness", "Could it be shown to anybody without hurting?"),
)
BY_RULE = 0.1  # weight of a question that no measurement has taught the weight of
CONDITIONS = ("people",)


def bare_questions() -> tuple[Question, ...]:
    """Our own questions without thresholds and weights, in order."""
    found = []
    for ladder, measure, rungs in _LADDERS:
        for number, (level, text) in enumerate(rungs, start=1):
            found.append(Question(f"{ladder} {number}", ladder, text, measure=measure, level=level))
    for name, measure, text, condition in _PEOPLE:
        weight = 0.0 if name in CONDITIONS else BY_RULE
        found.append(Question(name, "people", text, weight, measure, only_if=condition))
    found += [Question(name, name, text, BY_RULE) for name, text in _UNMEASURED]
    return tuple(found)


def built_in(path: Path = CONFIG) -> QuestionList:
    """Our own list, with the thresholds and weights that `studies/checklist.py` has found.

    Raises:
        ValueError: the file of them is damaged.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        questions = tuple(
            replace(one, threshold=float(config["thresholds"][one.name]), weight=float(config["weights"][one.name]))
            if one.name in config["thresholds"]
            else one
            for one in bare_questions()
        )
        return QuestionList(
            "built-in", questions, float(config["alignment_weight"]), float(config["intercept"]), measured=True
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the checklist {path} is damaged ({error!r}); install the package again") from error
