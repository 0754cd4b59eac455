"""The command line as a user calls it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from rahf.cli.main import app
from rahf.model.rahf import RAHF


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


@pytest.fixture
def weights(tiny_model: RAHF, tmp_path: Path) -> Path:
    tiny_model.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Drawn sprites, named like clip art, made into a library by the command."""
    for noun, number in [(noun, number) for noun in ("cat", "dog", "bus", "apple") for number in range(3)]:
        image = Image.new("RGBA", (50, 50))
        pen = ImageDraw.Draw(image)
        colour = (250 - 90 * number, 60 + 80 * number, 20, 255)
        pen.ellipse((3, 3, 47, 47), fill=colour)
        pen.rectangle((20, {"cat": 5, "dog": 15, "bus": 25, "apple": 35}[noun], 30, 45), fill=(0, 0, 255, 255))
        (tmp_path / "clip").mkdir(exist_ok=True)
        image.save(tmp_path / "clip" / f"{noun}_{number}.png")
    assert run("sprites", "-o", tmp_path / "library", "--clipart", tmp_path / "clip").startswith("12 sprites")
    return tmp_path / "library"


def test_analyze(weights: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    text = run(
        "analyze", images / "0.png", "--prompt", "a red cat", "-w", weights, "--json", "-o", out, "--device", "cpu"
    )
    found = json.loads(text[text.index("{") :])
    assert [word["text"] for word in found["words"]] == ["a", "red", "cat"]
    assert found["image_size"] == [50, 40]
    assert sorted(path.name for path in out.iterdir()) == [
        "feedback.json",
        "implausibility.png",
        "misalignment.png",
        "report.png",
    ]
    assert Image.open(out / "implausibility.png").size == (50, 40)
    words = run("analyze", images / "0.png", "-p", "a red cat", "-w", weights).splitlines()[4:]
    assert words[0] == "how likely each word is not shown:"
    assert [line.split()[1] for line in words[1:]] == ["a", "red", "cat"]
    plain = run("analyze", images / "0.png", "-p", "a red cat", "-w", weights, "--scores-only")
    assert "plausibility" in plain
    assert "red" not in plain


def test_rank(weights: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({f"{seed}.png": "a cat" for seed in range(3)}))
    text = run(
        "rank", images, "--prompts", tmp_path / "p.json", "-w", weights, "--json", "--by", "overall=2,alignment=1"
    )
    rows = json.loads(text[text.index("[") :])
    assert sorted(row["file"] for row in rows) == ["0.png", "1.png", "2.png"]
    values = [row["value"] for row in rows]
    assert values == sorted(values, reverse=True)
    best = rows[0]["scores"]
    assert values[0] == pytest.approx((2 * best["overall"] + best["alignment"]) / 3)
    assert "write it as" in run("rank", images, "--prompts", tmp_path / "p.json", "-w", weights, "--by", "x", code=2)


def test_train_and_evaluate(library: Path, tiny_model: RAHF, weights: Path, tmp_path: Path) -> None:
    run(
        *("train", "-o", tmp_path / "run", "--init", weights, "--scenes", library),
        *("--count", 6, "--steps", 2, "--batch-size", 2),
    )
    assert (tmp_path / "run" / "model.safetensors").is_file()
    trained = RAHF.from_pretrained(tmp_path / "run")
    assert not torch.equal(trained.t5.shared.weight, tiny_model.t5.shared.weight)
    out = tmp_path / "evaluation"
    text = run("evaluate", "-w", tmp_path / "run", "--scenes", library, "--count", 4, "-o", out, "--sheet", 2)
    assert "| plausibility plcc |" in text
    assert "constant" in text
    assert {path.name for path in out.iterdir()} == {"table.md", "metrics.json", "samples.png"}
    assert "implausibility auc" in json.loads((out / "metrics.json").read_text())["constant"]


def test_mistakes_are_told_in_a_line(weights: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    table = tmp_path / "prompts.csv"
    table.write_text("filename,prompt\n" + "".join(f"{seed}.png,a cat\n" for seed in range(3)), encoding="utf-8")
    for arguments, message in [
        (("convert", tmp_path / "bad.pt", "-o", tmp_path / "o"), "bad.pt"),
        (("convert", tmp_path / "absent.pt", "-o", tmp_path / "o"), "is not a file"),
        (("analyze", tmp_path / "absent.png", "-p", "a", "-w", weights), "is not a file"),
        (("analyze", images / "0.png", "-p", "!!", "-w", weights), "only punctuation"),
        (("analyze", images / "0.png", "-p", "a", "-w", tmp_path / "no"), "neither a folder"),
        (("analyze", images / "0.png", "-p", "a", "-w", weights, "--device", "tpu"), "device 'tpu' is unknown"),
        (("analyze", images / "0.png", "-p", "a", "-w", weights, "-o", tmp_path / "bad.pt"), "bad.pt: it is a file"),
        (
            ("analyze", images / "0.png", "-p", "a", "-w", weights, "-o", tmp_path / "bad.pt" / "x"),
            "bad.pt: it is a file",
        ),
        (("rank", images, "--prompts", tmp_path / "no.csv", "-w", weights), "no table of prompts at"),
        (("rank", images, "--prompts", table, "-w", weights, "--batch-size", 0), "batch_size is 0"),
        (("rank", tmp_path / "no", "--prompts", table, "-w", weights), "is not a folder"),
        (("pack", tmp_path / "no", "-o", tmp_path / "o"), "is not a folder"),
        (("pack", images, "-o", tmp_path / "o"), "config.json is missing"),
        (("train", "-o", tmp_path / "t", "--init", tmp_path / "no", "--scenes", tmp_path), "is not a folder"),
        (("recognize", "-o", tmp_path / "t", "--init", tmp_path / "no", "--scenes", tmp_path), "is not a folder"),
        (("train", "-o", tmp_path / "t"), "give --scenes"),
        (("train", "-o", tmp_path / "t", "--model", "huge", "--scenes", tmp_path), "no preset"),
        (("sprites", "-o", tmp_path / "s"), "no sprite was found"),
    ]:
        said = run(*arguments, code=2)
        assert message in said, arguments
        assert len(said.splitlines()) == 1, arguments
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "t").exists()
