"""The app's choice of weights: what is offered to whom, one choice a visit, and the embedded weights as a refuge."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.context import LocalContext

from gid.options import MotionOptions
from tests.hub.conftest import contents, gid_files, rahf_files, write
from tests.hub.server import LocalHub
from tests.tiny import photo, tiny_pipeline
from ui.service import AnimationService
from ui.weights_menu import ChosenService, build_weights_menu, choices, fallback_note, may_type, shown, started


def test_what_is_on_the_menu() -> None:
    assert choices({}) == ["embedded"]
    assert choices({"GID_WEIGHTS": "", "GID_MENU": " ; "}) == ["embedded"]
    named = {"GID_WEIGHTS": "a/b@v1", "GID_MENU": "runs/mine; a/b@v1 ;c/d"}
    assert choices(named) == ["a/b@v1", "embedded", "runs/mine", "c/d"]


def test_only_at_home_may_other_names_be_typed() -> None:
    assert may_type({})
    assert may_type({"GRADIO_SERVER_NAME": "127.0.0.1"})
    assert not may_type({"GRADIO_SERVER_NAME": "0.0.0.0"})
    assert not may_type({"SPACE_ID": "me/demo"})


def test_no_path_of_this_machine_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    assert shown(str(folder)) == "mine"
    assert shown("a/b@v1") == "a/b@v1"
    note = fallback_note(str(folder), f"{folder}/config.json is damaged; fetch {Path.home()}/x again")
    assert str(tmp_path) not in note
    assert str(Path.home()) not in note
    assert "embedded weights" in note


@contextmanager
def visit(name: str) -> Iterator[None]:
    """Handle an event of this visit, as gradio does."""
    token = LocalContext.request.set(gr.Request(session_hash=name))
    try:
        yield
    finally:
        LocalContext.request.reset(token)


@pytest.fixture(scope="module")
def first() -> AnimationService:
    return AnimationService(tiny_pipeline(), "tiny")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "other"
    tiny_pipeline().save_pretrained(folder)
    return folder


def test_a_choice_belongs_to_one_visit(first: AnimationService, other: Path, tmp_path: Path) -> None:
    loads: list[str] = []

    def load(name: str, device: str) -> AnimationService:
        loads.append(name)
        return AnimationService.load(name, device)

    chosen: Any = ChosenService(first, "cpu", load)
    picture = tmp_path / "photo.png"
    photo().save(picture)
    with visit("a"):
        assert chosen.choose(str(other)) == (str(other), "")
        assert chosen.weights == "other"
        assert chosen.current() is not first
        motion = chosen.motion(str(picture), MotionOptions(steps=1))
        assert chosen.known_motion(str(picture), MotionOptions(steps=1)) is motion
    with visit("b"):
        assert chosen.weights == "tiny"
        assert chosen.known_motion(str(picture), MotionOptions(steps=1)) is None
        chosen.choose(str(other))
        assert chosen.known_motion(str(picture), MotionOptions(steps=1)) is motion
    assert loads == [str(other)]
    assert chosen.folder == first.folder
    with visit("a"):
        chosen.choose("tiny")
        assert chosen.current() is first


def test_many_who_choose_at_once_load_once(first: AnimationService, other: Path) -> None:
    loads: list[str] = []

    def load(name: str, device: str) -> AnimationService:
        loads.append(name)
        return AnimationService.load(name, device)

    chosen = ChosenService(first, "cpu", load)
    threads = [threading.Thread(target=chosen.choose, args=(str(other),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [str(other)]


def test_weights_that_cannot_be_used_leave_the_embedded_ones(
    hub: LocalHub, first: AnimationService, tmp_path: Path
) -> None:
    hub.add("someone/feedback", rahf_files())
    hub.add("someone/private", gid_files(), private=True)
    damaged = write(tmp_path / "damaged", {**gid_files(), "renderer/config.json": b"{"})
    chosen: Any = ChosenService(first, "cpu")
    cases = [
        ("someone/feedback", "not weights of gid"),
        ("someone/private", "HF_TOKEN"),
        ("nobody/nothing", "check the name"),
        (str(damaged), "renderer/config.json"),
        ("../secret", "unknown"),
    ]
    for name, message in cases:
        with visit(name):
            used, note = chosen.choose(name)
            assert used == "embedded"
            assert message in note
            assert "embedded weights answer instead" in note
            assert str(tmp_path) not in note
            assert chosen.weights == "embedded"


def test_fetching_is_shown_byte_by_byte(hub: LocalHub, first: AnimationService, other: Path) -> None:
    files = contents(other)
    hub.add("someone/motion", files)
    told: dict[str, int] = {}
    chosen: Any = ChosenService(first, "cpu")
    with visit("shown"):
        used, _ = chosen.choose("someone/motion", lambda file, done, total: told.update({file: done}))
        assert used == chosen.weights == "someone/motion"
    assert told == {name: len(content) for name, content in files.items()}


def test_the_app_starts_all_the_same(hub: LocalHub) -> None:
    service, note = started(AnimationService.load, "nobody/nothing", "cpu")
    assert service.weights == "embedded"
    assert "nobody/nothing" in note
    service, note = started(AnimationService.load, "embedded", "cpu")
    assert (service.weights, note) == ("embedded", "")


def test_a_service_that_says_itself_what_is_wrong() -> None:
    """Rich feedback goes on without weights; if it has no embedded ones either, it says what it was asked for."""

    class Told:
        def __init__(self, weights: str, problem: str) -> None:
            self.weights, self.problem = weights, problem

    have: dict[str, str] = {"embedded": "", "bad": "broken"}
    service, note = started(lambda name, device: Told(name, have[name]), "bad", "cpu")
    assert service.weights == "embedded"
    assert "broken" in note
    have["embedded"] = "absent"
    service, note = started(lambda name, device: Told(name, have[name]), "bad", "cpu")
    assert (service.weights, note) == ("bad", "")


def test_there_is_a_menu_only_where_there_is_a_choice(first: AnimationService, monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks():
        assert build_weights_menu(first) is None
        chosen: Any = ChosenService(first, "cpu")
        monkeypatch.setenv("SPACE_ID", "me/demo")
        assert build_weights_menu(chosen) is None
        monkeypatch.setenv("GID_MENU", "a/b@v1")
        menu = build_weights_menu(chosen)
        assert menu is not None
        assert [value for _, value in menu.choices] == ["embedded", "a/b@v1"]
        assert not menu.allow_custom_value
        monkeypatch.delenv("SPACE_ID")
        menu = build_weights_menu(chosen)
        assert menu is not None
        assert menu.allow_custom_value
