"""Real, tiny models: pushed, and loaded back by the three lines of their own model card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from typer.testing import CliRunner

import gid.cli.main
import rahf.cli.main
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from tests.foundation.hub.server import WRITE_TOKEN, LocalHub
from tests.rahf.conftest import TINY
from tests.tiny import photo, tiny_pipeline


def lines_of_the_card(hub: LocalHub, repo: str) -> str:
    repository = hub.repositories[repo]
    text = ModelCard(repository.commits[repository.refs["main"]]["README.md"].decode()).text
    return text.split("```python\n")[1].split("\n```")[0]


def test_a_pipeline_there_and_back(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path / "weights")
    arguments = ["push", str(tmp_path / "weights"), "me/motion", "--yes", "--license", "mit"]
    result = CliRunner().invoke(gid.cli.main.app, arguments)
    assert result.exit_code == 0, result.output
    monkeypatch.chdir(tmp_path)
    photo().save("photo.jpg", quality=100)
    found: dict = {}
    exec(lines_of_the_card(hub, "me/motion"), found)
    expected = pipeline("photo.jpg", seed=0).volumes[0]
    torch.testing.assert_close(found["volume"].coefficients, expected.coefficients)
    assert found["volume"].model == "tiny"


def test_a_feedback_model_there_and_back(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    torch.manual_seed(0)
    model = RAHF(TINY).eval()
    model.save_pretrained(tmp_path / "weights")
    arguments = ["push", str(tmp_path / "weights"), "me/feedback", "--yes", "--license", "mit"]
    result = CliRunner().invoke(rahf.cli.main.app, arguments)
    assert result.exit_code == 0, result.output
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("image.png")
    found: dict = {}
    exec(lines_of_the_card(hub, "me/feedback"), found)
    expected = Predictor(model).predict("image.png", "the prompt it was made from")
    assert found["feedback"].scores == pytest.approx(expected.scores, abs=1e-6)
    assert found["feedback"].model == "me/feedback"
    monkeypatch.setenv("RAHF_WEIGHTS", "me/feedback")
    assert Predictor.from_pretrained().name == "me/feedback"
