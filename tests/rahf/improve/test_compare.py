"""Tools side by side, and the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rahf.cli.main import app
from rahf.improve.compare import TOOLS, CompareOptions, compare
from rahf.improve.generator import Generator, Setting
from rahf.improve.repair import RepairOptions, repair
from rahf.improve.saliency.optimise import SaliencyOptions
from rahf.improve.select import SelectOptions, select
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor

PROMPT = "a red cat"
FAST = CompareOptions(2, saliency=SaliencyOptions(iterations=1))


def test_each_tool_does_what_it_does_alone(inpainter: Generator, predictor: Predictor, quick: Setting) -> None:
    options = replace(FAST, setting=quick)
    found = compare(PROMPT, inpainter, predictor, ["plain", "best", "repair", "guide"], options, seed=3)
    plain, best, mended, guided = found.entries
    assert torch.equal(plain.picture, inpainter.generate(PROMPT, 1, 3, quick)[0])  # type: ignore[arg-type]
    alone = select(PROMPT, inpainter, predictor, SelectOptions(count=2, setting=quick), seed=3)
    assert torch.equal(best.picture, alone.picture)  # type: ignore[arg-type]
    assert plain.picture is not None
    again = repair(plain.picture, PROMPT, inpainter, predictor, None, RepairOptions(candidates=2, setting=quick), 1003)
    assert torch.equal(mended.picture, again.picture)  # type: ignore[arg-type]
    assert mended.calls == again.calls + inpainter.cost(1, quick)
    assert guided.calls > plain.calls
    for entry in found.entries:
        assert entry.before.scores == plain.before.scores
        assert entry.after is not None
        scores = predictor.predict(entry.picture, PROMPT).scores  # type: ignore[arg-type]
        assert entry.after.scores == pytest.approx(scores, abs=1e-6)
    sheet = found.sheet()
    assert sheet.width > 4 * 192
    assert np.asarray(sheet).std() > 5
    assert [row["tool"] for row in json.loads(json.dumps(found.to_dict()))["tools"]] == [e.tool for e in found.entries]


def test_a_tool_that_fails_does_not_take_the_others_down(
    inpainter: Generator, predictor: Predictor, quick: Setting
) -> None:
    found = compare(PROMPT, inpainter, predictor, ["tuned", "plain"], replace(FAST, setting=quick))
    tuned, plain = found.entries
    assert tuned.picture is None
    assert "no adapter is given" in tuned.stopped
    assert plain.picture is not None
    assert found.sheet().width < 2 * 220
    with pytest.raises(ValueError, match="choose some of"):
        compare(PROMPT, inpainter, predictor, ["magic"])
    with pytest.raises(ValueError, match="no prompt"):
        compare(" ", inpainter, predictor)


def test_every_tool_is_documented() -> None:
    help_text = CliRunner().invoke(app, ["improve", "compare", "--help"]).output
    assert all(name in help_text for name in TOOLS)


@pytest.fixture(scope="module")
def judge_folder(tiny_model: RAHF, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as weights."""
    folder = tmp_path_factory.mktemp("judge")
    tiny_model.save_pretrained(folder)
    return folder


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["improve", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_the_commands_go_hand_in_hand(generator_folder: Path, judge_folder: Path, tmp_path: Path) -> None:
    """Select, tune on what was kept, draw with the adapter, compare, guide and repair."""
    models = ("--generator", generator_folder, "--weights", judge_folder, "--device", "cpu")
    (tmp_path / "prompts.txt").write_text("a red cat\ntwo dogs\n")
    few = ("--steps", "2", "--guidance", "2")
    kept = tmp_path / "kept"
    assert "2 done" in run("select", tmp_path / "prompts.txt", "-o", kept, "--count", "2", "--keep", "0", *models, *few)
    tuned = tmp_path / "tuned"
    tune = ("tune", "--kept", kept, "-o", tuned, "--generator", generator_folder, "--steps", "2", "--batch-size", "2")
    assert "2 pictures, 2 steps" in run(*tune)
    tools = ("--tools", "plain,tuned", "--lora", tuned / "lora")
    said = run("compare", "-p", PROMPT, "-o", tmp_path / "compared", *tools, *models, *few)
    assert "tuned" in said
    names = {path.name for path in (tmp_path / "compared").iterdir()}
    assert names == {"plain.png", "tuned.png", "sheet.png", "comparison.json"}
    assert "experimental" in run("guide", "-p", PROMPT, "-o", tmp_path / "guided", *models, *few)
    assert {path.name for path in (tmp_path / "guided").iterdir()} == {"plain-1.png", "guided-1.png", "guidance.json"}

    picture = tmp_path / "compared" / "plain.png"
    mask = np.zeros((32, 32), np.uint8)
    mask[4:20, 6:22] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    mended = tmp_path / "mended.png"
    said = run("repair", picture, "-p", PROMPT, "-o", mended, "--mask", tmp_path / "mask.png", *models, *few)
    assert "calls" in said
    before, after = np.asarray(Image.open(picture)), np.asarray(Image.open(mended))
    assert np.array_equal(before[mask == 0], after[mask == 0])


def test_mistakes_are_one_line(generator_folder: Path, judge_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "picture.png")
    models = ("--generator", generator_folder, "--weights", judge_folder, "--device", "cpu")
    picture = ("repair", tmp_path / "picture.png")
    assert "does not end in .png" in run(*picture, "-p", "a", "-o", tmp_path / "out.jpg", *models, code=2)
    assert "no prompt" in run(*picture, "-p", " ", "-o", tmp_path / "out.png", *models, code=2)
    assert "neither a folder" in run(*picture, "-p", "a", "-o", tmp_path / "out.png", "-g", "no where", code=2)
    said = run("compare", "-p", "a", "-o", tmp_path / "out", "--tools", "magic", *models, code=2)
    assert "no tool is called magic" in said
    assert not (tmp_path / "out").exists()
