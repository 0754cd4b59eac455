"""Scores of answers by hand, the built-in list on real pictures, and videos made so that the answer is known."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foundation.pictures import load_photo
from rahf.improve.checklist.frames import temporal_measures
from rahf.improve.checklist.questions import Question, QuestionList, bare_questions, built_in
from rahf.improve.checklist.scoring import (
    Answer,
    answers_of,
    checklist,
    checklist_frames,
    with_points,
)
from rahf.predictor import Predictor
from tests.rahf.improve.saliency.test_maps import EXAMPLES


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("embedded", "cpu")


class Told:
    """Answers with given chances, in order; agreement one half."""

    name, measured = "told", False

    def __init__(self, *chances: float | None) -> None:
        self.chances = chances

    def answer(self, picture: Tensor, questions: Sequence[Question], prompt: str) -> list[Answer]:
        return [Answer(question, chance) for question, chance in zip(questions, self.chances, strict=True)]

    def alignment(self, picture: Tensor, prompt: str) -> float:
        return 0.5


FOUR = (
    Question("persons", "people", "Any persons?"),
    Question("right", "people", "Are they right?", 0.4, only_if="persons"),
    Question("clear", "clear", "Is it clear?", 0.3),
    Question("very clear", "clear", "Is it very clear?", 0.2),
)


@pytest.mark.parametrize(
    ("chances", "points"),
    [
        ((0.9, 0.9, 0.6, 0.4), 0.4 + 0.3 - 0.2),
        ((0.9, 0.1, 0.6, 0.4), -0.4 + 0.3 - 0.2),
        ((0.1, 0.9, 0.6, 0.4), 0.3 - 0.2),  # nobody there: whether they are right does not arise
        ((None, 0.9, None, 0.4), -0.2),
    ],
)
def test_the_score_is_intercept_agreement_and_weighted_answers(
    chances: tuple[float | None, ...], points: float
) -> None:
    questions = QuestionList("four", FOUR, alignment_weight=2.0, intercept=5.0)
    found = checklist(torch.zeros(3, 16, 16), "a cat", answerer=Told(*chances), questions=questions)
    assert found.score == pytest.approx(5 + 2 * 0.5 + points)
    assert found.alignment_points == 1
    assert found.score == pytest.approx(5 + 1 + sum(found.ladders().values()))
    without = checklist(torch.zeros(3, 16, 16), answerer=Told(*chances), questions=questions)
    assert without.score == pytest.approx(5 + points)
    assert without.alignment is None
    mean = checklist(torch.zeros(3, 16, 16), answerer=Told(*chances), questions=QuestionList("m", FOUR, mean=True))
    assert mean.score == pytest.approx(points / 4)


def test_a_result_shows_what_it_is_made_of() -> None:
    found = checklist(torch.zeros(3, 16, 16), answerer=Told(0.9, 0.1, 0.6, None), questions=QuestionList("four", FOUR))
    assert [answer.question.name for answer in found.made_of()] == ["right", "clear"]
    assert [answer.question.name for answer in found.made_of(1)] == ["right"]
    assert [answer.question.name for answer in found.asked] == ["persons", "right", "clear"]
    told = found.to_dict()
    assert told["score"] == found.score
    assert [row["points"] for row in told["answers"]] == pytest.approx([0, -0.4, 0.3, 0])


def test_answers_follow_thresholds() -> None:
    questions = [Question("a", "a", "?", 1, "x", 0.5), Question("b", "b", "?", 1, "y"), Question("c", "c", "?", 1)]
    answers = answers_of({"x": 0.5, "z": 1.0}, questions)
    assert [answer.yes for answer in answers] == [1.0, None, None]
    assert answers[0].reason == "x 0.5 >= 0.5"
    assert answers[1].reason == answers[2].reason == "not asked: nothing here can answer it"
    assert [answer.points for answer in with_points(answers)] == [1, 0, 0]


def test_lists_are_refused_whose_conditions_come_too_late() -> None:
    with pytest.raises(ValueError, match="conditions first"):
        QuestionList("wrong", (FOUR[1], FOUR[0]))
    with pytest.raises(ValueError, match="occurs twice"):
        QuestionList("wrong", (FOUR[2], FOUR[2]))


def test_the_built_in_list_has_thresholds_and_weights_for_every_rung() -> None:
    """Rungs of a ladder ask for less and less, and no yes counts against a picture."""
    questions = built_in()
    bare = {one.name: one for one in bare_questions()}
    assert [one.name for one in questions.questions] == list(bare)
    ladders: dict[str, list[float]] = {}
    for one in questions.questions:
        assert one.weight >= 0
        if one.level == one.level:
            ladders.setdefault(one.ladder, []).append(one.threshold)
    assert all(rungs == sorted(rungs, reverse=True) for rungs in ladders.values())
    assert len(ladders) >= 15


def test_a_photograph_scores_better_than_the_same_spoiled(predictor: Predictor) -> None:
    picture = load_photo(EXAMPLES / "flower.jpg", 400)
    spoiled = (0.25 * torch.nn.functional.avg_pool2d(picture[None], 15, 1, 7)[0] + 0.02).clamp(0, 1)
    good, bad = (checklist(one, "a pink flower", predictor) for one in (picture, spoiled))
    assert good.score > bad.score
    assert good.answered_by == "measures"
    for found in (good, bad):
        total = found.questions.intercept + found.alignment_points + sum(one.points for one in found.answers)
        assert found.score == pytest.approx(total)
    unmeasured = {one.question.name for one in good.answers if one.yes is None}
    assert {"mood", "daylight", "recognition", "likelihood", "harmlessness", "faces", "hands"} <= unmeasured
    asked = predictor.predict(picture, "a pink flower").scores["alignment"]
    assert good.alignment == pytest.approx(asked, abs=1e-4)


def test_a_composed_scene_is_judged_by_its_own_model(predictor: Predictor) -> None:
    path = EXAMPLES / "feedback-dog.png"
    found = {one.question.name: one for one in checklist(path, "a dog", predictor).answers}
    plausibility = predictor.predict(load_photo(path), "a dog").scores["plausibility"]
    assert found["soundness 1"].reason.startswith(f"unbroken {plausibility:.2g}"[:12])
    assert found["appeal 1"].yes is None
    assert found["people"].yes is None


def moving(count: int = 16, size: int = 48) -> Tensor:
    """(T,3,H,W): a soft ball that goes round in a circle, once."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    frames = []
    for place in range(count):
        angle = torch.tensor(2 * torch.pi * place / count)
        y, x = size / 2 + 10 * angle.sin(), size / 2 + 10 * angle.cos()
        frames.append(0.3 + 0.5 * torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 40))
    return torch.stack(frames)[:, None].expand(-1, 3, -1, -1).contiguous()


def test_time_is_measured_in_levels_and_usual_steps() -> None:
    loop = moving()
    found = temporal_measures(loop, loop=True)
    assert found["steadiness"] > -0.5
    assert found["movement"] > 8
    assert found["stillness"] > -3
    assert found["evenness"] > -1.2
    assert found["seam"] == pytest.approx(-1, abs=0.1)
    cut = temporal_measures(loop[:9], loop=True)  # half of the way round: the end is far from the beginning
    assert cut["seam"] < -2.5
    assert "seam" not in temporal_measures(loop, loop=False)
    still = temporal_measures(loop[:1].expand(5, -1, -1, -1), loop=True)
    assert still["movement"] == 0
    flicker = loop + 0.03 * torch.tensor([1.0, -1.0] * 8)[:, None, None, None]
    assert temporal_measures(flicker, loop=True)["steadiness"] == pytest.approx(-255 * 0.06, abs=0.5)


def test_a_video_is_its_frames_averaged_and_its_movement() -> None:
    """The clear half of the frames says yes, the other no; questions about time add to it."""

    class Alternating(Told):
        def answer(self, picture: Tensor, questions: Sequence[Question], prompt: str) -> list[Answer]:
            yes = float(picture[0, 0, 0] > 0.5)
            return [Answer(question, yes) for question in questions]

    frames = moving(6)
    frames[::2, :, 0, 0], frames[1::2, :, 0, 0] = 1.0, 0.0
    questions = QuestionList("two", FOUR[2:])
    found = checklist_frames(frames, answerer=Alternating(), questions=questions)
    by_name = {answer.question.name: answer for answer in found.answers}
    assert by_name["clear"].yes == 0.5
    assert by_name["clear"].points == 0
    assert by_name["clear"].reason == "yes in 3 of 6 frames"
    assert by_name["movement 1"].points == pytest.approx(0.1)
    assert found.frames == 6
    assert found.score == pytest.approx(sum(answer.points for answer in found.answers))
    alone = checklist_frames(frames, answerer=Alternating(), questions=questions, loop=False)
    seams = [answer for answer in alone.answers if answer.question.measure == "seam"]
    assert [answer.yes for answer in seams] == [None, None]


def test_what_cannot_be_judged_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    picture = torch.zeros(3, 16, 16)
    with pytest.raises(ValueError, match="give a predictor"):
        checklist(picture)
    with pytest.raises(ValueError, match="measures cannot answer the questions of four"):
        checklist(picture, predictor=predictor, questions=QuestionList("four", FOUR))
    with pytest.raises(ValueError, match="2 frames are no video"):
        checklist_frames([picture, picture], predictor=predictor)
    with pytest.raises(ValueError, match="differ in size"):
        checklist_frames([picture, picture, torch.zeros(3, 17, 16)], predictor=predictor)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        built_in(tmp_path / "config.json")
