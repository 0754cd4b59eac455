"""The Improve tab as a program sees it: a live server and gradio_client, with tiny real models."""

from __future__ import annotations

import html
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from foundation.video import write_video
from rahf.improve.checklist.scoring import checklist
from rahf.improve.generator import Generator, Setting, wrap
from rahf.improve.repair import RepairOptions, repair
from rahf.improve.select import SelectOptions, select
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from tests.rahf.conftest import TINY
from tests.rahf.improve.pipelines import make
from tests.tiny import photo, tiny_pipeline
from ui.animate.service import AnimationService
from ui.feedback.service import FeedbackService
from ui.improve.jobs import BEST, COMPARE, GUIDE, REPAIR, WAYS, Job, perform
from ui.improve.questions import told as told_of
from ui.improve.results import told
from ui.improve.service import ImproveService, flops_a_look, looks, read_mask

PATIENT = {"timeout": 300}  # seconds; a machine under load is slow, not broken
PROMPT = "a red apple, and two cats"
EAGER = RepairOptions(candidates=2, rounds=1, gain=0, tolerance=1)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    return Predictor(RAHF(TINY), name="tiny")


@pytest.fixture(scope="module")
def generator() -> Generator:
    return wrap(make("sd-inpaint"), "tiny")


@pytest.fixture(scope="module")
def service(predictor: Predictor, generator: Generator) -> ImproveService:
    return ImproveService(lambda: generator, FeedbackService(predictor, "tiny"), "tiny")


@pytest.fixture(scope="module")
def client(service: ImproveService, predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    from app import create_demo, launch

    feedback = FeedbackService(predictor, "tiny")
    demo = create_demo(AnimationService(tiny_pipeline(), "tiny"), feedback, improve=service)
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")), httpx_kwargs=PATIENT)
    demo.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    photo(96, 64, seed=3).save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """White in the left upper quarter."""
    pixels = np.zeros((64, 96), np.uint8)
    pixels[:32, :48] = 255
    path = tmp_path / "mask.png"
    Image.fromarray(pixels).save(path)
    return path


def test_the_endpoint_repairs_as_the_library_does(
    client: Client, generator: Generator, predictor: Predictor, picture: Path, mask: Path
) -> None:
    made, said, report = client.predict(
        image=handle_file(picture),
        prompt=PROMPT,
        mask=handle_file(mask),
        candidates=2,
        rounds=1,
        seed=5,
        api_name="/repair",
    )
    where = torch.zeros(64, 96, dtype=torch.bool)
    where[:32, :48] = True
    truth = repair(picture, PROMPT, generator, predictor, where, RepairOptions(candidates=2, rounds=1), seed=5)
    with Image.open(made) as image:
        after = np.asarray(image.convert("RGB"))
    assert np.abs(after / 255 - truth.picture.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    assert said["after"] == pytest.approx(truth.after.scores, abs=1e-5)
    assert said["before"] == pytest.approx(truth.before.scores, abs=1e-5)
    assert said["calls"] == truth.calls
    assert len(said["tried"]) == 2
    with Image.open(report) as sheet:
        assert sheet.width > 900


def test_other_endpoints_answer_as_the_library_does(
    client: Client, generator: Generator, predictor: Predictor, picture: Path
) -> None:
    made, said, report = client.predict(prompt=PROMPT, way="best", candidates=3, seed=2, api_name="/improve")
    truth = select(PROMPT, generator, predictor, SelectOptions(count=3, keep=0), 2)
    with Image.open(made) as image:
        after = np.asarray(image.convert("RGB"))
    assert np.abs(after / 255 - truth.picture.permute(1, 2, 0).numpy()).max() <= 0.51 / 255
    assert said["calls"] == truth.calls
    assert Path(report).stat().st_size > 1000
    with pytest.raises(AppError, match="must be one of"):
        client.predict(prompt=PROMPT, way="repair", api_name="/improve")
    answers = client.predict(image=handle_file(picture), prompt=PROMPT, api_name="/checklist")
    assert answers["score"] == pytest.approx(checklist(picture, PROMPT, predictor).score, abs=0.02)


def test_outside_of_the_mask_nothing_changes(
    generator: Generator, predictor: Predictor, picture: Path, mask: Path
) -> None:
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    where = np.asarray(Image.open(mask)) > 0
    job = Job(REPAIR, PROMPT, 1, Setting(steps=3), EAGER, 2)
    answer = perform(job, generator, predictor, pixels, where)
    for made in (answer.after, *answer.others):
        assert np.array_equal(made.pixels[~where], pixels[~where])
        assert made.pixels.shape == pixels.shape
    assert any(not np.array_equal(made.pixels[where], pixels[where]) for made in answer.others)
    told_again = pickle.loads(pickle.dumps(answer))  # as a borrowed GPU sends it
    assert np.array_equal(told_again.after.pixels, answer.after.pixels)
    text = told(answer)
    assert "plausibility" in text
    assert f"{answer.after.feedback.scores['overall']:.2f}" in text


@pytest.mark.parametrize("way", WAYS.values())
def test_other_ways_begin_with_the_prompt(generator: Generator, predictor: Predictor, way: str) -> None:
    answer = perform(Job(way, "a red apple", 3, Setting(steps=2), EAGER, 2), generator, predictor)
    plain = generator.generate("a red apple", 1, 3, Setting(steps=2))[0]
    assert answer.before is not None
    if way in (BEST, GUIDE, COMPARE):  # the searches draw with steps and a sampler of their own
        assert np.abs(answer.before.pixels / 255 - plain.permute(1, 2, 0).numpy()).max() <= 0.51 / 255
    for made in (answer.before, answer.after):
        judged = predictor.predict(made.pixels, "a red apple")
        assert made.feedback.scores == pytest.approx(judged.scores, abs=0.02)  # of pixels rounded to bytes
    assert answer.calls > 0
    assert answer.stopped.endswith(".")
    assert looks(Job(way, "a red apple", 3, None, EAGER, 2), generator) >= generator.cost(1)


def test_the_checklist_says_what_made_its_score(service: ImproveService, picture: Path, tmp_path: Path) -> None:
    result = service.questions(picture, PROMPT)
    counted = result.questions.intercept + result.alignment_points + sum(answer.points for answer in result.answers)
    assert result.score == pytest.approx(counted)
    text = told_of(result)
    assert f"Score {result.score:.2f}" in text
    assert all(html.escape(answer.question.text) in text for answer in result.made_of())
    frames = np.stack([np.asarray(photo(96, 64, seed=seed).convert("RGB")) for seed in range(4)])
    write_video(tmp_path / "loop.mp4", iter([frames]), 8)
    judged = service.questions(None, video=tmp_path / "loop.mp4")
    assert judged.frames == 4
    with pytest.raises(ValueError, match="no picture yet"):
        service.questions(None)


def test_a_mask_of_another_size_is_brought_to_the_picture(mask: Path, tmp_path: Path) -> None:
    large = read_mask(mask, (128, 192))
    assert large.shape == (128, 192)
    assert large[:64, :96].all()
    assert not large[64:].any()
    with pytest.raises(ValueError, match=r"mask is 96x64, the picture 64x64"):
        read_mask(mask, (64, 64))
    Image.new("L", (96, 64)).save(tmp_path / "dark.png")
    with pytest.raises(ValueError, match="mask is empty"):
        read_mask(tmp_path / "dark.png", (64, 96))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "  "}, "no prompt"),
        ({"candidates": 9}, "from 1 to 8"),
        ({"rounds": 0}, "from 1 to 5"),
        ({"what": "everything"}, "must be one of"),
        ({"seed": 1.5}, "whole number"),
        ({"image": None}, "no picture yet"),
    ],
)
def test_mistakes_are_a_sentence_each(client: Client, picture: Path, changes: dict[str, Any], message: str) -> None:
    asked = {"image": handle_file(picture), "prompt": PROMPT, "candidates": 1, "rounds": 1, **changes}
    with pytest.raises(AppError, match=message):
        client.predict(**asked, api_name="/repair")


def test_without_a_generator_the_tab_says_why(predictor: Predictor, tmp_path: Path) -> None:
    found = ImproveService.load(FeedbackService(predictor, "tiny"), str(tmp_path), "cpu")
    assert found.problem
    assert str(tmp_path.parent) not in found.missing, "no path of the machine"
    with pytest.raises(ValueError, match="IMPROVE_WEIGHTS"):
        found.generator()


def test_work_of_a_network_is_reckoned_from_its_size(generator: Generator) -> None:
    weights = sum(parameter.numel() for parameter in generator.pipeline.unet.parameters())
    assert flops_a_look(generator, Setting(side=64)) == pytest.approx(2 * weights * 64 / 9)
