"""`rahf analyze FOLDER`: results by name, prompts by file, bad images and prompts, resuming, several processes."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from foundation.folders import Item, Processes
from rahf.cli.main import app
from rahf.data.prompt_tables import assign_prompts
from rahf.folders import analyze_folder, prompts_of
from rahf.model.config import SCORES
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor

ROOT = Path(__file__).resolve().parents[2]


def save_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40 + 4 * seed, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def weights(tiny_model: RAHF, tmp_path: Path) -> Path:
    tiny_model.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four good images, a broken one, one without a prompt and one whose prompt holds no word."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate(["a.png", "b.png", "c.png", "deep/a.png", "silent.png", "dots.png"]):
        save_picture(folder / name, seed)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = {"a.png": "a red cat", "b": "two dogs", "c.png": "a bus", "deep/a.png": "an apple", "broken.png": "a cup"}
    path = tmp_path / "prompts.csv"
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerows([("filename", "prompt"), *rows.items(), ("dots.png", "...")])
    return path


def analyze(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["analyze", *(str(argument) for argument in arguments), "--device", "cpu"])


def read_failures(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    return {row["file"]: row["reason"] for row in rows}


def test_every_image_gets_its_feedback_and_the_rest_its_reason(
    weights: Path, images: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = analyze(images, "--prompts", prompts, "-w", weights, "-o", out, "--batch-size", 3, "--report")
    assert result.exit_code == 1, result.output
    assert "4 done, 3 failed" in result.stdout
    found = json.loads((out / "deep" / "a" / "feedback.json").read_text())
    assert found["file"] == "deep/a.png"
    assert [word["text"] for word in found["words"]] == ["an", "apple"]
    assert sorted(path.name for path in (out / "a").iterdir()) == [
        "feedback.json",
        "implausibility.png",
        "misalignment.png",
        "report.png",
    ]
    assert Image.open(out / "b" / "misalignment.png").size == (50, 44)
    alone = Predictor.from_pretrained(weights, "cpu").predict(images / "b.png", "two dogs")
    assert json.loads((out / "b" / "feedback.json").read_text())["scores"] == pytest.approx(alone.scores, abs=1e-5)
    failures = read_failures(out)
    assert set(failures) == {"broken.png", "dots.png", "silent.png"}
    assert "no prompt for silent.png" in failures["silent.png"]
    assert "only punctuation" in failures["dots.png"]
    assert "is not an image" in failures["broken.png"]
    with open(out / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a.png", "b.png", "c.png", "deep/a.png"]
    assert float(rows[1]["overall"]) == pytest.approx(alone.scores["overall"], abs=1e-5)


def test_feedback_for_another_prompt_is_not_kept_in_silence(weights: Path, images: Path, tmp_path: Path) -> None:
    options = ("-w", weights, "-o", tmp_path / "out", "--scores-only")
    (images / "broken.png").unlink()
    assert analyze(images, "--prompt", "a cat", *options).exit_code == 0
    again = analyze(images, "--prompt", "a dog", *options)
    assert again.exit_code == 2
    assert "holds feedback on a.png for another prompt, 'a cat'" in again.stderr
    assert "6 already there" in analyze(images, "--prompt", "a cat", *options).stdout


def test_a_second_run_makes_only_what_is_missing(weights: Path, images: Path, tmp_path: Path) -> None:
    (images / "broken.png").unlink()
    out, processes = tmp_path / "out", Processes("cpu")
    predictor = Predictor.from_pretrained(weights, "cpu")

    def run(scores_only: bool = True) -> str:
        return str(analyze_folder(images, out, predictor, "a cat", processes, 4, scores_only=scores_only))

    assert run() == "6 done"
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    assert set(json.loads((out / "a.json").read_text())["scores"]) == set(SCORES)
    save_picture(images / "new.png", 3)
    (out / "b.json").unlink()
    assert run() == "2 done, 5 already there"
    assert all(path.stat().st_mtime_ns == at for path, at in first.items() if path.name != "b.json")
    assert len((out / "scores.csv").read_text().splitlines()) == 8
    with pytest.raises(ValueError, match="scores_only True, now False"):
        run(scores_only=False)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["x/a.png", "a.png", "x/a", "a"], "x/a.png"),
        (["a.png", "x/a", "a"], "a.png"),
        (["x/a", "a"], "x/a"),
        (["a"], "a"),
        (["b"], None),
    ],
)
def test_prompts_are_found_by_the_most_exact_name(keys: list[str], expected: str | None) -> None:
    assert assign_prompts(["x/a.png"], {key: key for key in keys}).get("x/a.png") == expected
    assert prompts_of([Item(Path("x/a.png"), "x/a.png", "x/a")], "one for all") == {"x/a.png": "one for all"}


def test_mistakes_are_told_before_any_work(weights: Path, images: Path, prompts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"z.png": "a cat"}))
    for arguments, says in [
        (["-p", "a"], "give a folder for the results"),
        (["-o", tmp_path / "out"], "give either --prompts FILE"),
        (["-o", tmp_path / "out", "-p", "a", "--prompts", prompts], "give either --prompts FILE"),
        (["-o", tmp_path / "out", "--prompts", other], "none of the 1 prompts belongs to one of the 7 images"),
        (["-o", images, "-p", "a"], "give another folder for them"),
        (["-o", tmp_path / "out", "-p", "a", "--batch-size", 0], "batch_size is 0"),
        (["-o", tmp_path / "out", "-p", "a", "--precision", "int3"], "precision is 'int3'"),
    ]:
        result = analyze(images, "-w", weights, *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert says in result.stderr
    assert not (tmp_path / "out").exists()
    single = analyze(images / "a.png", "-w", weights)
    assert single.exit_code == 2
    assert "--prompt TEXT" in single.stderr


def test_two_processes_share_the_images(weights: Path, images: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = ["-m", "rahf.cli", "analyze", images, "--prompts", prompts, "-w", weights, "-o", out, "--device", "cpu"]
    run = subprocess.run(
        [*launch, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode != 0
    assert run.stdout.count("4 done, 3 failed") == 1, run.stderr
    assert "(process 1 of 2)" in run.stderr
    assert "4/4" in run.stderr, "the first process takes four of seven"
    assert sorted(path.parent.relative_to(out).as_posix() for path in out.rglob("feedback.json")) == [
        "a",
        "b",
        "c",
        "deep/a",
    ]
    assert set(read_failures(out)) == {"broken.png", "dots.png", "silent.png"}


def rank(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["rank", *(str(argument) for argument in arguments), "--device", "cpu"])


def test_a_broken_file_does_not_end_a_ranking(weights: Path, images: Path, tmp_path: Path) -> None:
    (images / "dots.png").unlink()
    (images / "._a.png").write_bytes(b"what macOS leaves")
    (images / "x.png").mkdir()
    (images / "a.jxl").touch()
    names = ("a.png", "b.png", "c.png", "deep/a.png", "silent.png", "broken.png")
    table = tmp_path / "p.json"
    table.write_text(json.dumps(dict.fromkeys(names, "a cat")))
    result = rank(images, "--prompts", table, "-w", weights, "--batch-size", 2)
    assert result.exit_code == 1
    assert sorted(line.split()[1] for line in result.stdout.splitlines()) == sorted(set(names) - {"broken.png"})
    assert "broken.png: " in result.stderr
    assert "a.jxl: left out; files that end in .jxl are not read" in result.stderr
    assert "._a.png" not in result.stderr


def test_a_picture_has_no_other_pictures_prompt(weights: Path, images: Path, tmp_path: Path) -> None:
    for name in ("broken.png", "silent.png", "dots.png", "b.png", "c.png"):
        (images / name).unlink()
    table = tmp_path / "p.json"
    table.write_text(json.dumps({"a.png": "a red cat"}))
    out = tmp_path / "out"
    assert analyze(images, "--prompts", table, "-w", weights, "-o", out, "--scores-only").exit_code == 1
    assert read_failures(out) == {
        "deep/a.png": "there is no prompt for deep/a.png: a.png fits several pictures; write it with its folder and "
        "ending"
    }


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\tx", "\uff1dx"])
def test_a_spreadsheet_calculates_nothing(weights: Path, images: Path, tmp_path: Path, name: str) -> None:
    folder, out = tmp_path / "one", tmp_path / "out"
    folder.mkdir()
    (images / "a.png").rename(folder / f"{name}.png")
    assert analyze(folder, "-p", f"{name} a cat", "-w", weights, "-o", out, "--scores-only").exit_code == 0
    with open(out / "scores.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["file"], row["prompt"]) == (f"'{name}.png", f"'{name} a cat")
    assert json.loads((out / f"{name}.json").read_text())["prompt"] == f"{name} a cat", "only cells are changed"


def test_feedback_on_one_picture_is_replaced_as_a_whole(weights: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert analyze(images / "a.png", "-p", "a cat", "-w", weights, "-o", out).exit_code == 0
    (out / "mine.txt").write_text("mine")
    assert sorted(path.name for path in out.iterdir()) == [
        "feedback.json",
        "implausibility.png",
        "mine.txt",
        "misalignment.png",
        "report.png",
    ]
    assert analyze(images / "b.png", "-p", "a dog", "-w", weights, "-o", out, "--scores-only").exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["feedback.json", "mine.txt", "report.png"], "no older maps"


def test_a_full_disk_leaves_no_report(weights: Path, images: Path, tmp_path: Path) -> None:
    """Files may not grow past 8 kB here, which a report does."""
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        done = analyze(images / "a.png", "-p", "a cat", "-w", weights, "-o", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert done.exit_code == 2, done.stderr
    assert f"cannot write {out}: it would be larger than a file may be here" in done.stderr
    assert not out.exists()
