"""Values of the wrong type, size or number: refused in a sentence that names them, on every endpoint and event."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiny import photo
from tests.ui.site import Site
from ui import values
from ui.animate.options import Asked
from ui.gate import checked
from ui.poke.api import AskedPoke
from ui.poke.service import read_gesture

ANIMATE = ["photo", "strength", "speed", "seconds", "loop", "seed", "steps", "guidance", "size", "hold_still"]
POKE = ["photo", "x", "y", "dx", "dy", "kind", "hold", "gust", "gust_angle", "seconds"]
POKE += ["stiffness", "damping", "strength", "seed"]
FEEDBACK = ["image", "prompt", "threshold", "word_threshold"]
RANK = ["images", "prompt", "plausibility", "alignment", "aesthetics", "overall", "threshold", "word_threshold"]
REPAIR = ["image", "prompt", "mask", "what", "candidates", "rounds", "seed"]
NAMES = {
    "animate": ANIMATE,
    "poke": POKE,
    "feedback": FEEDBACK,
    "rank": RANK,
    "repair": REPAIR,
    "checklist": ["image", "prompt"],
}
GOOD: dict[str, list[Any]] = {
    "animate": [None, 1, 1, 1, True, 0, 1, 1, 128, True],
    "poke": [None, 10, 10, 5, 5, "drag", 0.5, 0, 0, 1, 1, 0.5, 1, 0],
    "feedback": [None, "a red cat", 0.5, 0.5],
    "rank": [None, "a red cat", 1, 1, 1, 1, 0.5, 0.5],
    "repair": [None, "a red cat", None, "faults", 1, 1, 0],
    "checklist": [None, "a red cat"],
}
WORDS = {"kind", "prompt", "what"}
FLAGS = {"loop", "hold_still"}
PICTURES = {"photo", "image", "images", "mask"}
NAN, ENDLESS = math.nan, math.inf
NOT_NUMBERS: list[Any] = ["1", "", [1], {"a": 1}, True, NAN, ENDLESS, 10**30]


def wrong_values(endpoint: str) -> list[tuple[str, Any]]:
    """One value after the other that is not of the documented type."""
    found: list[tuple[str, Any]] = []
    for name in NAMES[endpoint]:
        if name in PICTURES:
            continue
        if name in WORDS:
            found += [(name, value) for value in (1, True, ["drag"], {"a": "b"})]
        elif name in FLAGS:
            found += [(name, value) for value in (1, 0, "true", [True], None)]
        else:
            found += [(name, value) for value in NOT_NUMBERS]
            if name in ("seed", "steps", "size", "candidates", "rounds"):
                found.append((name, 1.5))
    return found


@pytest.fixture(scope="module")
def sent(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An uploaded photo."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    photo().save(path)
    return {"path": site.upload(path)}


@pytest.mark.parametrize("endpoint", NAMES)
def test_wrong_types_are_refused_in_a_sentence(site: Site, sent: dict[str, Any], endpoint: str) -> None:
    cases = wrong_values(endpoint)
    picked = {name: [value for other, value in cases if other == name] for name, _ in cases}
    for turn, (name, choices) in enumerate(picked.items()):
        for value in {0: choices[:1], 1: choices[-1:]}.get(turn % 2, []):  # the rest is looked at below, without HTTP
            given_values = [[sent, sent] if endpoint == "rank" else sent, *GOOD[endpoint][1:]]
            given_values[NAMES[endpoint].index(name)] = value
            answer = site.call(endpoint, given_values)
            assert not answer.success, (name, value)
            assert name in str(answer.error), answer
            assert "Traceback" not in str(answer.error)
    answer = site.call(endpoint, [[sent, sent] if endpoint == "rank" else sent, *GOOD[endpoint][1:]])
    assert answer.success, answer


@pytest.mark.parametrize(("name", "value"), wrong_values("animate"))
def test_no_wrong_value_reaches_the_animation(name: str, value: Any) -> None:
    asked = Asked(**dict(zip(ANIMATE[1:], GOOD["animate"][1:], strict=True)) | {name: value})
    with pytest.raises(ValueError, match=f"^{name} is "):
        asked.motion(), asked.render()


@pytest.mark.parametrize(("name", "value"), wrong_values("poke"))
def test_no_wrong_value_reaches_the_poke(name: str, value: Any) -> None:
    asked = AskedPoke(**dict(zip(POKE[1:], GOOD["poke"][1:], strict=True)) | {name: value})
    if name == "gust_angle":
        asked = AskedPoke(**vars(asked) | {"gust": 1})
    with pytest.raises(ValueError, match=f"^{name} is "):
        asked.motion(), asked.response((96, 64))


def test_events_of_the_page_are_read_as_carefully(site: Site, whole_demo: Any, sent: dict[str, Any]) -> None:
    numbers = {event.name: number for number, event in whole_demo.fns.items()}
    good = [sent, True, 1, 1, 1, True, 0, 1, 1, 128, True]
    for position, value in [(3, "fast"), (4, NAN), (5, "yes"), (8, {}), (9, [128]), (10, None)]:
        answer = site.join(numbers["render_again"], [*good[:position], value, *good[position + 1 :]])
        assert not answer.success
        assert answer.error
        assert "Traceback" not in answer.error
    for number in (numbers["load_example"], numbers["choose_seed"]):
        assert not site.join(number, ["x", "y", "z"]).success


# -- anything at all ---------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from(["path", "url", "meta", "orig_name", "is_stream", "image", "video", "value"])
FILE_LIKE = st.recursive(
    SCALARS | st.sampled_from(["/etc/passwd", "app.py", "http://127.0.0.1/", "data:image/png;base64,AA", "../.."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(FILE_LIKE)
def test_whatever_a_request_holds_it_is_read_or_refused(value: Any) -> None:
    try:
        found, said = checked([value]), ""
    except ValueError as error:
        found, said = [], str(error)
    assert "/etc/passwd" not in said + json.dumps(_paths(found))


def _paths(value: Any) -> list[Any]:
    """Every value under the key `path`."""
    if isinstance(value, dict):
        inner = [path for item in value.values() for path in _paths(item)]
        return [value["path"], *inner] if value.get("path") is not None else inner
    return [path for item in value for path in _paths(item)] if isinstance(value, list) else []


@settings(max_examples=200, deadline=None)
@given(st.lists(ANYTHING, min_size=9, max_size=9), st.lists(ANYTHING, min_size=13, max_size=13), ANYTHING)
def test_whatever_is_asked_it_is_read_or_refused(animate: list[Any], poke: list[Any], gesture: Any) -> None:
    for read in (
        lambda: Asked(*animate).motion(),
        lambda: Asked(*animate).render(),
        lambda: AskedPoke(*poke).response((96, 64)),
        lambda: read_gesture(gesture),
        lambda: values.upload(gesture, "none"),
        lambda: values.text("prompt", gesture),
    ):
        try:
            said = str(read())[:1]
        except ValueError as error:
            said = str(error)
        assert 0 < len(said) < 400 or read() == ""


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(NAMES)), st.lists(ANYTHING, max_size=14))
def test_whatever_is_sent_the_page_answers_in_a_sentence(site: Site, endpoint: str, sent_values: list[Any]) -> None:
    answer = site.call(endpoint, sent_values)
    assert not answer.success
    assert answer.error
    assert "Traceback" not in answer.error
    assert str(Path(__file__).parents[2]) not in answer.error
