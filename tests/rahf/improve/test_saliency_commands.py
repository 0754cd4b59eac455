"""`rahf improve saliency` and `rahf improve checklist`, as they are called."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from foundation.video import write_video
from rahf.cli.main import app

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
runner = CliRunner()


def test_a_picture_is_drawn_and_what_was_done_is_written(generator_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = runner.invoke(
        app,
        f"improve saliency -o {out} -g {generator_folder} -p apple --method doodl --iterations 1 --steps 2".split(),
    )
    assert told.exit_code == 0, told.output
    assert {path.name for path in out.iterdir()} == {"before.png", "optimised.png", "saliency.png", "saliency.json"}
    values = json.loads((out / "saliency.json").read_text(encoding="utf-8"))
    assert len(values["losses"]) == 2
    assert values["method"] == "doodl"
    assert f"loss {values['losses'][0]:.3f} -> {values['losses'][values['best']]:.3f}" in told.output
    assert Image.open(out / "optimised.png").size == (32, 32)


def test_what_draws_the_eye_in_a_picture_is_shown(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = runner.invoke(app, f"improve saliency -o {out} --picture {EXAMPLES / 'dandelion.jpg'}".split())
    assert told.exit_code == 0, told.output
    whole, part = (Image.open(out / name).size for name in ("saliency.png", "salient.png"))
    assert whole == Image.open(EXAMPLES / "dandelion.jpg").size
    assert part[0] <= whole[0]
    assert f"to {out}" in told.output or f"wrote {out}" in told.output


def test_a_checklist_of_a_picture_and_of_a_loop(tmp_path: Path) -> None:
    picture = EXAMPLES / "feedback-dog.png"
    told = runner.invoke(app, ["improve", "checklist", str(picture), "-p", "a dog", "--json", "--device", "cpu"])
    assert told.exit_code == 0, told.output
    values = json.loads(told.stdout)
    total = values["intercept"] + values["alignment_points"] + sum(row["points"] for row in values["answers"])
    assert values["score"] == pytest.approx(total)
    pixels = np.asarray(Image.open(picture).convert("RGB").resize((64, 64)))
    video = write_video(tmp_path / "loop.gif", [np.stack([np.roll(pixels, shift, 1) for shift in (0, 2, 4, 2)])], 10)
    told = runner.invoke(app, ["improve", "checklist", str(video), "--device", "cpu", "--most", "40"])
    assert told.exit_code == 0, told.output
    assert "Is the movement plain to see? yes" in told.output
    assert "not asked: " in told.output


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    picture = str(EXAMPLES / "feedback-dog.png")
    for words, message in (
        (["saliency", "-o", str(tmp_path / "a")], "give either --prompt TEXT"),
        (["checklist", picture, "--original", str(tmp_path)], "name one: --model FOLDER"),
        (["checklist", picture, "--original", str(tmp_path), "--model", "x"], "holds no questions of VisionReward"),
    ):
        told = runner.invoke(app, ["improve", *words])
        assert told.exit_code == 2
        assert message in told.output
