"""A score that shows what it is made of: questions, answers and weights, for pictures and for the frames of a video.

result = checklist("picture.png", "two red apples", Predictor.from_pretrained())
for answer in result.made_of(5):
    print(answer.question.text, answer.points)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from foundation.pictures import KEPT_SIDE, PictureSource, load_photo
from rahf.improve.checklist.frames import FRAMES_JUDGED, chosen_frames, temporal_answers
from rahf.improve.checklist.measures import look, measure
from rahf.improve.checklist.questions import Question, QuestionList, built_in
from rahf.predictor import ANY_PICTURE, Predictor
from rahf.prompts import check_prompt

Progress = Callable[[float, str], None]
NOT_ASKED = "not asked: nothing here can answer it"


@dataclass(frozen=True)
class Answer:
    """What came of one question.

    Attributes:
        question: that was put.
        yes: chance of yes in [0, 1], of frames the share that say yes; None if it was not asked.
        points: what it adds to the score.
        reason: what was measured, or why it was not asked or does not count.
    """

    question: Question
    yes: float | None
    points: float = 0.0
    reason: str = ""


@dataclass(frozen=True, eq=False)
class ChecklistResult:
    """A score with everything that it was made of.

    Attributes:
        score: `intercept`, points of the agreement with the prompt, and points of all answers.
        answers: of every question of the list, asked or not, in order.
        alignment: agreement with the prompt in [0, 1]; None without a prompt.
        alignment_points: what it adds.
        questions: the list. answered_by: what answered.
        prompt: of the picture. frames: how many pictures were judged.
        seconds: that it took.
    """

    score: float
    answers: tuple[Answer, ...]
    alignment: float | None
    alignment_points: float
    questions: QuestionList
    answered_by: str
    prompt: str
    frames: int
    seconds: float

    @property
    def asked(self) -> tuple[Answer, ...]:
        """The answers that there are."""
        return tuple(answer for answer in self.answers if answer.yes is not None)

    def made_of(self, most: int | None = None) -> list[Answer]:
        """The answers that count, those that count most first."""
        counting = sorted((one for one in self.answers if one.points), key=lambda one: -abs(one.points))
        return counting[:most]

    def ladders(self) -> dict[str, float]:
        """Points by ladder, in the order of the list; only of ladders that were asked."""
        found: dict[str, float] = {}
        for answer in self.asked:
            found[answer.question.ladder] = found.get(answer.question.ladder, 0.0) + answer.points
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "score": self.score,
            "list": self.questions.name,
            "answered_by": self.answered_by,
            "prompt": self.prompt,
            "frames": self.frames,
            "intercept": self.questions.intercept,
            "alignment": self.alignment,
            "alignment_points": self.alignment_points,
            "answers": [
                {
                    "name": answer.question.name,
                    "ladder": answer.question.ladder,
                    "question": answer.question.text,
                    "weight": answer.question.weight,
                    "yes": answer.yes,
                    "points": answer.points,
                    "reason": answer.reason,
                }
                for answer in self.answers
            ],
        }


class Answerer(Protocol):
    """What can answer questions about a picture (3,H,W) in [0, 1]."""

    name: str
    measured: bool

    def answer(self, picture: Tensor, questions: Sequence[Question], prompt: str) -> list[Answer]:
        """An answer a question, without points; `yes` None where it cannot be told."""

    def alignment(self, picture: Tensor, prompt: str) -> float:
        """Agreement with a prompt in [0, 1]."""


class Measured:
    """Answers by our own measures and heads; what they cannot tell is not asked."""

    name = "measures"
    measured = True

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def answer(self, picture: Tensor, questions: Sequence[Question], prompt: str) -> list[Answer]:
        """By threshold; conditions are applied by whoever adds up."""
        seen = look(picture, self.predictor)
        found = measure(seen)
        if seen.judgement is None:  # a composed scene: its own model says how sound it is
            scores = self.predictor.predict(picture, prompt or ANY_PICTURE, scores_only=True).scores
            found["unbroken"] = scores["plausibility"]
        return answers_of(found, questions)

    def alignment(self, picture: Tensor, prompt: str) -> float:
        """The score of that name."""
        return self.predictor.predict(picture, prompt, scores_only=True).scores["alignment"]


def checklist(
    picture: PictureSource,
    prompt: str = "",
    predictor: Predictor | None = None,
    answerer: Answerer | None = None,
    questions: QuestionList | None = None,
) -> ChecklistResult:
    """Judge one picture by a list of questions.

    Args:
        picture: a file, bytes, an array, or (3,H,W) in [0, 1].
        prompt: that it was made from; without one its agreement does not count.
        predictor: by whose heads our measures answer; needed unless `answerer` is given.
        answerer: what answers instead, such as `rahf.improve.checklist.chat.ChatAnswers`.
        questions: the built-in list by default.

    Raises:
        ValueError: a picture or prompt that cannot be used, nothing that answers, or a list that measures cannot
            answer.
    """
    return _judge([load_photo(picture, KEPT_SIDE)], prompt, _answerer(predictor, answerer), questions)


def checklist_frames(
    frames: Sequence[Tensor] | Tensor,
    prompt: str = "",
    predictor: Predictor | None = None,
    answerer: Answerer | None = None,
    questions: QuestionList | None = None,
    loop: bool = True,
    progress: Progress | None = None,
) -> ChecklistResult:
    """Judge a video: some of its frames as pictures, averaged, and how it moves.

    Args:
        frames: (T,3,H,W) or a list of (3,H,W) in [0, 1], at least three, in order.
        loop: whether the end is to run on into the beginning; else that is not asked.
        prompt, predictor, answerer, questions: as for `checklist`.
        progress: told how far it is.

    Raises:
        ValueError: fewer than three frames, frames of different sizes, and as `checklist`.
    """
    if len(frames) < 3:
        raise ValueError(f"{len(frames)} frames are no video; give at least 3, or judge one by `checklist`")
    if len({tuple(frame.shape) for frame in frames}) > 1 or frames[0].ndim != 3:
        raise ValueError("the frames differ in size, or are not (3, height, width); give all frames of one video")
    started = time.monotonic()
    answering = _answerer(predictor, answerer)
    chosen = [frames[place] for place in chosen_frames(len(frames), FRAMES_JUDGED)]
    judged = _judge(chosen, prompt, answering, questions, progress)
    temporal = [Answer(*row) for row in temporal_answers(frames, loop)]
    temporal = [replace(one, points=_points(one.yes, one.question.weight)) for one in temporal]
    score = judged.score + sum(one.points for one in temporal)
    seconds = time.monotonic() - started
    return replace(judged, score=score, answers=(*judged.answers, *temporal), frames=len(frames), seconds=seconds)


def answers_of(found: Mapping[str, float], questions: Sequence[Question]) -> list[Answer]:
    """Answers by measures; `yes` None where there is no such measure."""
    made = []
    for question in questions:
        if question.measure not in found:
            made.append(Answer(question, None, reason=NOT_ASKED))
            continue
        value = found[question.measure]
        sign = ">=" if value >= question.threshold else "<"
        reason = f"{question.measure} {value:.3g} {sign} {question.threshold:.3g}"
        made.append(Answer(question, float(value >= question.threshold), reason=reason))
    return made


def with_points(answers: Sequence[Answer], share: float = 1.0) -> list[Answer]:
    """Answers with what each adds to the score: its weight for a yes, less its weight for a no, nothing where its
    condition is not met; times `share`."""
    yes: dict[str, bool] = {}
    made = []
    for answer in answers:
        question = answer.question
        met = not question.only_if or yes.get(question.only_if, False)
        yes[question.name] = met and answer.yes is not None and answer.yes >= 0.5
        if not met:
            made.append(replace(answer, yes=None, points=0.0, reason="does not arise"))
        else:
            made.append(replace(answer, points=share * _points(_sure(answer.yes), question.weight)))
    return made


def _judge(
    pictures: Sequence[Tensor],
    prompt: str,
    answerer: Answerer,
    questions: QuestionList | None,
    progress: Progress | None = None,
) -> ChecklistResult:
    questions = questions or built_in()
    if answerer.measured and not questions.measured:
        raise ValueError(f"measures cannot answer the questions of {questions.name}; name a model that reads questions")
    if prompt:
        check_prompt(prompt)
    started = time.monotonic()
    share = 1 / len(questions.questions) if questions.mean else 1.0
    rows, alignments = [], []
    for number, picture in enumerate(pictures, start=1):
        with torch.inference_mode():
            rows.append(with_points(answerer.answer(picture, questions.questions, prompt), share))
            if prompt and questions.alignment_weight:
                alignments.append(answerer.alignment(picture, prompt))
        if progress is not None:
            progress(number / len(pictures), f"picture {number} of {len(pictures)}")
    answers = tuple(_averaged([row[place] for row in rows]) for place in range(len(questions.questions)))
    alignment = sum(alignments) / len(alignments) if alignments else None
    points = 0.0 if alignment is None else alignment * questions.alignment_weight
    return ChecklistResult(
        score=questions.intercept + points + sum(answer.points for answer in answers),
        answers=answers,
        alignment=alignment,
        alignment_points=points,
        questions=questions,
        answered_by=answerer.name,
        prompt=prompt,
        frames=len(pictures),
        seconds=time.monotonic() - started,
    )


def _averaged(answers: Sequence[Answer]) -> Answer:
    """One answer for several pictures; where a question does not arise it counts nothing."""
    if len(answers) == 1:
        return answers[0]
    told = [answer.yes for answer in answers if answer.yes is not None]
    points = sum(answer.points for answer in answers) / len(answers)
    if not told:
        return answers[0]
    shares = f"yes in {sum(value >= 0.5 for value in told)} of {len(answers)} frames"
    return replace(answers[0], yes=sum(told) / len(told), points=points, reason=shares)


def _answerer(predictor: Predictor | None, answerer: Answerer | None) -> Answerer:
    if answerer is not None:
        return answerer
    if predictor is None:
        raise ValueError("nothing is there to answer the questions; give a predictor, or a model that reads questions")
    return Measured(predictor)


def _sure(yes: float | None) -> float | None:
    """A chance as yes or no, as the weights were found."""
    return None if yes is None else float(yes >= 0.5)


def _points(yes: float | None, weight: float) -> float:
    """What an answer adds: a yes the weight, a no takes it, a share of yeses in between."""
    return 0.0 if yes is None or math.isnan(yes) else (2 * yes - 1) * weight
