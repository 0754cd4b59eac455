"""VisionReward's own questions and weights, read from the user's copy of its repository; nothing of them is here.

Its folders `VisionReward-Image` and `VisionReward-Video` hold a text file, one question a line, and a JSON file of
weights: a plain list, a number a question (videos; the score is the mean of the products), or `coef` and `intercept`
(pictures; the score is their sum), where the first coefficient is that of the agreement with the prompt. Questions on
whether there are bodies, faces and hands then stand first and have no coefficient: others count only where there are.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from rahf.improve.checklist.questions import Question, QuestionList

FOLDERS = {"image": "VisionReward-Image", "video": "VisionReward-Video"}
# The shortened lists first: these are what the repository's own score is computed with.
FILES = {
    "image": (
        ("VisionReward_image_qa_select.txt", "weight_select.json"),
        ("VisionReward_image_qa.txt", "weight.json"),
    ),
    "video": (
        ("VisionReward_video_qa_select.txt", "weight.json"),
        ("VisionReward_video_qa.txt", "weight.json"),
    ),
}
PROMPT = "[[prompt]]"  # where a question holds the prompt
# Of the shortened list of pictures: which later questions depend on the first three, by the repository's program.
_DEPENDING = {0: (22, 23, 24, 28, 29), 1: (25, 26), 2: (27,)}
_MOST, _LONGEST = 1000, 2000


def read_original(folder: str | Path, kind: str = "image") -> QuestionList:
    """The questions and weights of a copy of VisionReward's repository.

    Args:
        folder: the repository, or its folder of pictures or videos.
        kind: "image" or "video".

    Raises:
        ValueError: another kind, missing files, and numbers of questions and weights that do not belong together.
    """
    if kind not in FOLDERS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(FOLDERS)}")
    root = Path(folder)
    place = root / FOLDERS[kind] if (root / FOLDERS[kind]).is_dir() else root
    for questions, weights in FILES[kind]:
        if (place / questions).is_file() and (place / weights).is_file():
            return read_list(place / questions, place / weights, kind)
    names = " or ".join(f"{questions} with {weights}" for questions, weights in FILES[kind])
    raise ValueError(f"{root} holds no questions of VisionReward: {names} is needed in it or in {FOLDERS[kind]}")


def read_list(questions: Path, weights: Path, kind: str = "image") -> QuestionList:
    """The list of one pair of files. Raises ValueError as `read_original`."""
    texts = _read_questions(questions)
    coefficients, intercept, plain = _read_weights(weights)
    name = f"VisionReward ({kind}, {questions.name})"
    if plain:
        if len(coefficients) != len(texts):
            raise _mismatch(questions, weights, len(texts), len(coefficients), f"{len(texts)}, one for each question")
        made = tuple(
            Question(f"question {number}", f"question {number}", text, weight)
            for number, (text, weight) in enumerate(zip(texts, coefficients, strict=True), start=1)
        )
        return QuestionList(name, made, mean=True, of_videos=kind == "video")
    alignment, rest = coefficients[0], coefficients[1:]
    conditions = len(texts) - len(rest)
    least = max(max(places) for places in _DEPENDING.values()) + 1
    if conditions not in (0, len(_DEPENDING)) or (conditions and len(texts) < least):
        wanted = f"{len(texts) + 1}, or {len(texts) + 1 - len(_DEPENDING)} where the first three are conditions"
        raise _mismatch(questions, weights, len(texts), len(coefficients), wanted)
    condition_of = {later: first for first, places in _DEPENDING.items() for later in places} if conditions else {}
    made = tuple(
        Question(
            f"question {place + 1}",
            f"question {place + 1}",
            text,
            0.0 if place < conditions else rest[place - conditions],
            only_if=f"question {condition_of[place] + 1}" if place in condition_of else "",
        )
        for place, text in enumerate(texts)
    )
    return QuestionList(name, made, alignment, intercept, of_videos=kind == "video")


def _read_questions(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); it must be a text file, one question a line") from error
    while lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line or len(line) > _LONGEST:
            raise ValueError(f"{path}, line {number} is {'empty' if not line else 'too long'}; put one question a line")
    if not 0 < len(lines) <= _MOST:
        raise ValueError(f"{path} holds {len(lines)} questions; there must be from 1 to {_MOST}")
    return lines


def _read_weights(path: Path) -> tuple[list[float], float, bool]:
    """Coefficients, intercept, and whether they are a plain list."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); it must be JSON") from error
    if isinstance(values, list):
        return [_number(path, one) for one in values], 0.0, True
    if not isinstance(values, dict) or not isinstance(values.get("coef"), list) or not values["coef"]:
        raise ValueError(f"{path} must be a list of numbers, or hold `coef` (a list) and `intercept`")
    if "intercept" not in values:
        raise ValueError(f"{path} has no `intercept`; give the number that belongs to its `coef`")
    intercept = values["intercept"]
    if isinstance(intercept, list) and len(intercept) == 1:
        intercept = intercept[0]
    return [_number(path, one) for one in values["coef"]], _number(path, intercept), False


def _number(path: Path, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path} holds {str(value)[:40]!r} where a number should be")
    return float(value)


def _mismatch(questions: Path, weights: Path, texts: int, numbers: int, wanted: str) -> ValueError:
    return ValueError(
        f"{questions.name} has {texts} questions and {weights.name} {numbers} weights; there must be {wanted}: take "
        "both files from the same version of VisionReward"
    )
