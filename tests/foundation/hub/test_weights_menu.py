"""The app's choice of weights: what is offered to whom, one choice a visit, and the embedded weights as a refuge."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from gradio.context import LocalContext
from huggingface_hub import constants

import rahf.model.rahf as rahf_model
from foundation.weights.checks import WeightsKind
from gid.diffusion.loading import KIND as GID
from gid.limits import MotionOptions
from rahf.model.loading import KIND as RAHF
from rahf.predictor import Predictor
from tests.foundation.hub.conftest import contents, gid_files, rahf_files, write
from tests.foundation.hub.server import LocalHub
from tests.rahf.conftest import TINY
from tests.tiny import photo, tiny_pipeline
from ui import zerogpu
from ui.animate.service import AnimationService
from ui.feedback.service import FeedbackService
from ui.weights_menu import ChosenService, build_weights_menu, start_with_menu, started
from ui.weights_names import asked_for, fallback_note, may_type, offered, shown


@pytest.mark.parametrize("kind", [GID, RAHF], ids=["gid", "rahf"])
def test_what_is_on_the_menu(kind: WeightsKind, tmp_path: Path) -> None:
    first, more = (f"{kind.library.upper()}_{part}" for part in ("WEIGHTS", "MENU"))
    assert list(offered(kind, {})) == ["embedded"]
    assert list(offered(kind, {first: "", more: " ; "})) == ["embedded"]
    named = {first: " a/b@v1", more: "runs/mine; a/b@v1 ;c/d"}
    assert list(offered(kind, named)) == ["a/b@v1", "embedded", "runs/mine", "c/d"]
    assert asked_for(kind, named) == "a/b@v1"
    other = {"GID_MENU": "x/y", "RAHF_MENU": "x/y", more: ""}
    assert list(offered(kind, other)) == ["embedded"], "each library has a menu of its own"
    for place in ("one", "two"):
        (tmp_path / place / "mine").mkdir(parents=True)
    folders = [str(tmp_path / place / "mine") for place in ("one", "two")]
    assert offered(kind, {more: ";".join(folders)}) == {
        "embedded": "embedded",
        "mine": folders[0],
        "mine (2)": folders[1],
    }


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
    assert shown(str(tmp_path / "missing")) == shown("~/missing") == "missing"
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

    chosen: Any = ChosenService(first, GID, "cpu", load=load)
    picture = tmp_path / "photo.png"
    photo().save(picture)
    with visit("a"):
        assert chosen.choose(str(other)) == (str(other), "")
        assert chosen.current().weights == "other"
        assert chosen.current() is not first
        motion = chosen.current().motion(str(picture), MotionOptions(steps=1))
        assert chosen.current().known_motion(str(picture), MotionOptions(steps=1)) is motion
    with visit("b"):
        assert chosen.current().weights == "tiny"
        assert chosen.current().known_motion(str(picture), MotionOptions(steps=1)) is None
        chosen.choose(str(other))
        assert chosen.current().known_motion(str(picture), MotionOptions(steps=1)) is motion
    assert loads == [str(other)]
    with visit("a"):
        chosen.choose("tiny")
        assert chosen.current() is first


def test_many_who_choose_at_once_load_once(first: AnimationService, other: Path) -> None:
    loads: list[str] = []

    def load(name: str, device: str) -> AnimationService:
        loads.append(name)
        return AnimationService.load(name, device)

    chosen = ChosenService(first, GID, "cpu", load=load)
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
    chosen: Any = ChosenService(first, GID, "cpu")
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
            assert chosen.current().weights == "embedded"


def test_fetching_is_shown_byte_by_byte(hub: LocalHub, first: AnimationService, other: Path) -> None:
    files = contents(other)
    hub.add("someone/motion", files)
    told: dict[str, int] = {}
    chosen: Any = ChosenService(first, GID, "cpu")
    with visit("shown"):
        used, _ = chosen.choose("someone/motion", lambda file, done, total: told.update({file: done}))
        assert used == chosen.current().weights == "someone/motion"
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


# -- rich feedback: the same menu, with a real small checkpoint -------------------------------------------------------


TERMS = {"weights_license": "CC BY-NC 4.0", "weights_source": "a release"}


@pytest.fixture(scope="module")
def judge() -> FeedbackService:
    torch.manual_seed(0)
    return FeedbackService(Predictor(rahf_model.RAHF(TINY), name="tiny"), "tiny")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights under other terms and with another line between words that are shown and words that are not."""
    folder = tmp_path_factory.mktemp("weights") / "released"
    torch.manual_seed(1)
    rahf_model.RAHF(TINY.changed(word_threshold=0.3, **TERMS)).save_pretrained(folder)
    return folder


def test_feedback_by_the_weights_of_the_visit(
    hub: LocalHub, judge: FeedbackService, released: Path, tmp_path: Path
) -> None:
    files = contents(released)
    hub.add("someone/feedback", {f"small/{name}": content for name, content in files.items()})
    told: dict[str, int] = {}
    chosen: Any = ChosenService(judge, RAHF, "cpu")
    picture, prompt = str(tmp_path / "photo.png"), "a red cat"
    photo().save(picture)
    with visit("a"):
        used, note = chosen.choose("someone/feedback/small", lambda file, done, total: told.update({file: done}))
        assert used == chosen.current().weights == "someone/feedback/small"
        assert note == chosen.current().notice == "These weights are for non-commercial use only (CC BY-NC 4.0)."
        mine = chosen.current().examine(picture, prompt).feedback
        assert (mine.model, mine.noncommercial, mine.word_threshold) == (used, True, 0.3)
        assert "non-commercial" in chosen.current().note
    assert told == {f"small/{name}": len(content) for name, content in files.items() if name != "README.md"}
    with visit("b"):
        yours = chosen.current().examine(picture, prompt).feedback
        assert (yours.model, yours.noncommercial) == ("tiny", False)
        assert yours.scores != mine.scores
        assert chosen.current().notice == ""
    direct = Predictor.from_pretrained(released, "cpu").predict(picture, prompt)
    assert mine.scores == pytest.approx(direct.scores, abs=1e-5)


def test_feedback_weights_that_cannot_be_used_leave_the_embedded_ones(
    hub: LocalHub, judge: FeedbackService, tmp_path: Path
) -> None:
    hub.add("someone/motion", gid_files())
    hub.add("someone/private", rahf_files(), private=True)
    rahf_model.RAHF(TINY).save_pretrained(tmp_path / "strange")  # and then another model's tensors
    write(tmp_path / "strange", {"model.safetensors": rahf_files()["model.safetensors"]})
    chosen: Any = ChosenService(judge, RAHF, "cpu")
    cases = [
        ("someone/motion", "not weights of rahf"),
        ("someone/private", "HF_TOKEN"),
        ("nobody/nothing", "check the name"),
        (str(tmp_path / "strange"), "`strange` cannot be used: the checkpoint does not fit this model"),
        ("../secret", "unknown"),
    ]
    for name, message in cases:
        with visit(name):
            used, note = chosen.choose(name)
            assert used == "embedded"
            assert message in note
            assert "\n" not in note
            assert note.count("embedded weights answer instead") == 1
            assert str(tmp_path) not in note
            assert chosen.current().weights == "embedded"
            assert chosen.current().predictor is not None


def test_the_app_starts_with_a_menu_for_each_library(
    hub: LocalHub, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAHF_WEIGHTS", str(released))
    feedback, said = start_with_menu(FeedbackService.load, RAHF, "cpu")
    assert (feedback.current().weights, said) == ("released", "")
    monkeypatch.setenv("RAHF_WEIGHTS", "nobody/nothing")
    chosen: Any
    chosen, said = start_with_menu(FeedbackService.load, RAHF, "cpu")
    assert chosen.current().weights == "embedded"
    assert said.startswith("`nobody/nothing` ")
    assert "embedded weights answer instead" in said
    with visit("a"):
        assert chosen.choose("embedded") == ("embedded", "")
        assert chosen.current() is chosen.first
        assert chosen.choose(str(released))[0] == str(released)
        assert (chosen.current().weights, chosen.current().folder) == ("released", chosen.first.folder)


def test_on_the_platform_models_are_in_their_place_before_the_page(
    judge: FeedbackService, released: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not there at the start cannot be placed on a borrowed GPU later."""
    monkeypatch.setattr(zerogpu, "AVAILABLE", True)
    monkeypatch.setattr(zerogpu, "spaces", SimpleNamespace(GPU=lambda duration: lambda task: task), raising=False)
    monkeypatch.setenv("RAHF_MENU", f"{released};nobody/nothing")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loads: list[str] = []

    def load(name: str, device: str) -> FeedbackService:
        loads.append(name)
        return judge.beside(name, device)

    chosen: Any = ChosenService(judge, RAHF, "cpu", load=load)
    assert loads == ["embedded", str(released), "nobody/nothing"]
    with visit("a"):
        assert chosen.choose("released")[0] == "released"
        used, note = chosen.choose("nobody/nothing")
        assert used == "embedded"
        assert "restart it" in note
    assert len(loads) == 3


def test_there_is_a_menu_only_where_there_is_a_choice(first: AnimationService, monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks():
        assert build_weights_menu(first, "animate") is None
        chosen: Any = ChosenService(first, GID, "cpu")
        monkeypatch.setenv("SPACE_ID", "me/demo")
        assert build_weights_menu(chosen, "animate") is None
        monkeypatch.setenv("GID_MENU", "a/b@v1")
        chosen = ChosenService(first, GID, "cpu")
        menu = build_weights_menu(chosen, "animate")
        assert menu is not None
        assert [value for _, value in menu.choices] == ["embedded", "a/b@v1"]
        assert not menu.allow_custom_value
        monkeypatch.delenv("SPACE_ID")
        menu = build_weights_menu(chosen, "animate")
        assert menu is not None
        assert menu.allow_custom_value
