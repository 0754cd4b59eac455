"""VisionReward's file formats, with made-up questions: what belongs together is read, all else is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from rahf.improve.checklist.original import read_original


def write(folder: Path, questions: list[str], weights: Any, kind: str = "image") -> Path:
    """A folder as in the repository, with its shortened list."""
    place = folder / ("VisionReward-Image" if kind == "image" else "VisionReward-Video")
    place.mkdir(parents=True)
    (place / f"VisionReward_{kind}_qa_select.txt").write_text("\n".join(questions) + "\n", encoding="utf-8")
    name = "weight_select.json" if kind == "image" else "weight.json"
    (place / name).write_text(json.dumps(weights), encoding="utf-8")
    return folder


def texts(count: int) -> list[str]:
    return [f"Made-up question {number}?" for number in range(1, count + 1)]


def test_a_list_with_three_conditions(tmp_path: Path) -> None:
    coefficients = [2.0, *(n / 100 for n in range(30))]
    folder = write(tmp_path, texts(33), {"coef": coefficients, "intercept": [0.5]})
    for place in (folder, folder / "VisionReward-Image"):
        found = read_original(place)
        assert (found.alignment_weight, found.intercept, found.mean, found.measured) == (2.0, 0.5, False, False)
        assert [one.weight for one in found.questions[:3]] == [0, 0, 0]
        assert [one.weight for one in found.questions[3:]] == coefficients[1:]
        depending = {one.name: one.only_if for one in found.questions if one.only_if}
        assert depending == {
            **{f"question {place + 1}": "question 1" for place in (22, 23, 24, 28, 29)},
            **{f"question {place + 1}": "question 2" for place in (25, 26)},
            "question 28": "question 3",
        }


def test_a_list_without_conditions_and_a_list_of_videos(tmp_path: Path) -> None:
    plain = read_original(write(tmp_path / "a", texts(4), {"coef": [2, 0.1, 0.2, 0.3, 0.4], "intercept": 1}))
    assert [one.weight for one in plain.questions] == [0.1, 0.2, 0.3, 0.4]
    assert not any(one.only_if for one in plain.questions)
    video = read_original(write(tmp_path / "b", texts(3), [0.5, -0.25, 0.125], "video"), "video")
    assert video.mean
    assert video.of_videos
    assert [one.weight for one in video.questions] == [0.5, -0.25, 0.125]
    assert video.alignment_weight == 0


def test_the_full_list_is_taken_where_the_shortened_one_is_missing(tmp_path: Path) -> None:
    (tmp_path / "VisionReward_image_qa.txt").write_text("One?\nTwo?\n", encoding="utf-8")
    (tmp_path / "weight.json").write_text('{"coef": [2, 0.1, 0.2], "intercept": 0}', encoding="utf-8")
    assert len(read_original(tmp_path).questions) == 2


@pytest.mark.parametrize(
    ("questions", "weights", "message"),
    [
        (
            texts(4),
            {"coef": [2, 0.1], "intercept": 0},
            "has 4 questions and weight_select.json 2 weights; there must be 5",
        ),
        (texts(10), {"coef": [2] * 8, "intercept": 0}, "take both files from the same version"),  # too few to depend
        (texts(4), [1, 2, 3], "there must be 4, one for each question"),
        (texts(2), {"coef": [2, 0.1, 0.2]}, "has no `intercept`"),
        (texts(2), {"intercept": 1}, "must be a list of numbers, or hold `coef`"),
        (texts(2), [1, "two"], "holds 'two' where a number should be"),
        (texts(2), [1, True], "holds 'True' where a number should be"),
        (texts(2), [1, float("nan")], "holds 'nan' where a number should be"),
        (["One?", "", "Three?"], [1, 2, 3], "line 2 is empty"),
        (["x" * 2001], [1], "line 1 is too long"),
        ([""], [1], "holds 0 questions"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path: Path, questions: list[str], weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_original(write(tmp_path, questions, weights))


def test_files_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"VisionReward_image_qa_select\.txt with weight_select\.json"):
        read_original(tmp_path)
    with pytest.raises(ValueError, match="kind is 'sound'; it must be one of image, video"):
        read_original(tmp_path, "sound")
    folder = write(tmp_path, texts(2), [1, 2]) / "VisionReward-Image"
    (folder / "weight_select.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="must be JSON"):
        read_original(folder)
    (folder / "VisionReward_image_qa_select.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="it must be a text file"):
        read_original(folder)
