"""Whole folders: sharing among processes, resuming, bad files, kills; and `gid animate FOLDER` on top of it."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from foundation.folders import PARTIAL, Item, Processes, Summary, Task, find_items, work_through
from gid.cli.main import app
from gid.motion.spectrum import SpectralVolume
from tests.tiny import photo

ROOT = Path(__file__).resolve().parents[2]


def write_numbers(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.txt").write_text(str(number))


class Squares:
    """Squares of the numbers in text files; what it was asked to do is noted."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def task(self, **changes: Any) -> Task[int, int]:
        task = Task((".txt",), ".squared", {"power": 2}, self.load, self.compute, self.save, 2)
        return replace(task, **changes)

    def load(self, item: Item) -> int:
        return int(item.path.read_text())

    def compute(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise RuntimeError("thirteen is not computed")
        return [number**2 for number in numbers]

    def save(self, number: int, path: Path) -> None:
        path.write_text(str(number))


@pytest.fixture(scope="module")
def alone() -> Processes:
    return Processes("cpu")


def results(out: Path) -> dict[str, str]:
    return {path.relative_to(out).as_posix(): path.read_text() for path in sorted(out.rglob("*.squared"))}


def test_every_file_gets_its_result(tmp_path: Path, alone: Processes) -> None:
    write_numbers(tmp_path / "in", 3)
    write_numbers(tmp_path / "in" / "deep" / "er", 1)
    (tmp_path / "in" / ".hidden.txt").write_text("7")
    (tmp_path / "in" / "note.md").write_text("no number")
    squares = Squares()
    summary = work_through(tmp_path / "in", tmp_path / "in" / "out", squares.task(), alone)
    assert results(tmp_path / "in" / "out") == {
        "0.squared": "0",
        "1.squared": "1",
        "2.squared": "4",
        "deep/er/0.squared": "0",
    }
    assert summary == Summary(done=4)
    assert squares.batches == [[0, 1], [2, 0]]
    assert sorted(path.name for path in (tmp_path / "in" / "out").iterdir() if path.is_file()) == [
        "0.squared",
        "1.squared",
        "2.squared",
        "settings.json",
    ]


def test_a_second_run_does_only_what_is_missing(tmp_path: Path, alone: Processes) -> None:
    write_numbers(tmp_path / "in", 4)
    first, second = Squares(), Squares()
    work_through(tmp_path / "in", tmp_path / "out", first.task(), alone)
    (tmp_path / "out" / "2.squared").unlink()
    (tmp_path / "out" / "1.squared").write_text("kept")
    assert work_through(tmp_path / "in", tmp_path / "out", second.task(), alone) == Summary(done=1, skipped=3)
    assert second.batches == [[2]]
    assert results(tmp_path / "out")["1.squared"] == "kept"


def test_bad_files_do_not_stop_the_rest_and_are_told(tmp_path: Path, alone: Processes) -> None:
    write_numbers(tmp_path / "in", 4)
    (tmp_path / "in" / "1.txt").write_text("one")
    (tmp_path / "in" / "2.txt").write_text("13")

    def save(number: int, path: Path) -> None:
        path.write_text("half")
        if number == 9:
            raise ValueError("nine is not written")
        path.write_text(str(number))

    squares = Squares()
    summary = work_through(tmp_path / "in", tmp_path / "out", squares.task(save=save, batch_size=4), alone)
    assert results(tmp_path / "out") == {"0.squared": "0"}
    assert squares.batches == [[0, 13, 3], [0], [13], [3]], "a batch that fails is tried one by one"
    lines = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["1.txt", "2.txt", "3.txt"] == [one.file for one in summary.failures]
    assert "invalid literal" in lines[0]["reason"]
    assert lines[1]["reason"] == "RuntimeError: thirteen is not computed"
    assert lines[2]["reason"] == "nine is not written"
    assert not (tmp_path / "out" / PARTIAL).exists()
    write_numbers(tmp_path / "in", 4)
    assert work_through(tmp_path / "in", tmp_path / "out", Squares().task(), alone) == Summary(done=3, skipped=1)
    assert not (tmp_path / "out" / "failures.jsonl").exists(), "nothing failed this time"


def test_a_full_disk_ends_the_run(tmp_path: Path, alone: Processes) -> None:
    write_numbers(tmp_path / "in", 3)
    squares = Squares()

    def save(number: int, path: Path) -> None:
        try:
            raise OSError(errno.ENOSPC, "no space left")
        except OSError as error:
            raise ValueError("cannot write") from error

    with pytest.raises(ValueError, match="cannot write"):
        work_through(tmp_path / "in", tmp_path / "out", squares.task(save=save, batch_size=1), alone)
    assert squares.batches == [[0]]


def test_results_of_other_settings_are_not_mixed(tmp_path: Path, alone: Processes) -> None:
    write_numbers(tmp_path / "in", 1)
    work_through(tmp_path / "in", tmp_path / "out", Squares().task(), alone)
    with pytest.raises(ValueError, match="other settings \\(power 2, now 3\\)"):
        work_through(tmp_path / "in", tmp_path / "out", Squares().task(settings={"power": 3}), alone)
    with pytest.raises(ValueError, match="give another folder for them"):
        work_through(tmp_path / "in", tmp_path / "in", Squares().task(), alone)
    with pytest.raises(ValueError, match="holds no file to work on"):
        work_through(tmp_path / "out", tmp_path / "more", Squares().task(), alone)
    with pytest.raises(ValueError, match="is not a folder"):
        work_through(tmp_path / "absent", tmp_path / "more", Squares().task(), alone)
    assert not (tmp_path / "more").exists()


def test_files_that_differ_in_their_suffix_only_keep_it(tmp_path: Path) -> None:
    for name in ("a.PNG", "a.jpg", "b.v2.jpg", "sub/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [item.name for item in find_items(tmp_path, (".png", ".jpg"))]
    assert found == ["a.PNG", "a.jpg", "b.v2", "sub/a"]
    (tmp_path / "a.jpg.png").touch()
    found = [item.name for item in find_items(tmp_path, (".png", ".jpg"))]
    assert len(set(found)) == 5


def test_leavings_of_dead_processes_are_swept(tmp_path: Path, alone: Processes) -> None:
    write_numbers(tmp_path / "in", 1)
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    host, partial = socket.gethostname(), tmp_path / "out" / PARTIAL
    dead, live, elsewhere = partial / f"{host}-{ended.pid}", partial / f"{host}-{os.getppid()}", partial / "other-1"
    for folder in (dead, live, elsewhere):
        folder.mkdir(parents=True)
        (folder / "half.squared").write_text("4")
    work_through(tmp_path / "in", tmp_path / "out", Squares().task(), alone)
    assert not dead.exists()
    assert live.exists()
    assert elsewhere.exists()
    os.utime(elsewhere, (0, 0))
    work_through(tmp_path / "in", tmp_path / "out", Squares().task(), alone)
    assert not elsewhere.exists()


# `gid animate FOLDER`.


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photos, one of them broken, one in a subfolder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for seed in range(4):
        photo(seed=seed).save(folder / f"{seed}.png")
    photo(seed=4).save(folder / "more" / "0.jpg")
    (folder / "2.png").write_bytes(b"no picture")
    return folder


def arguments(weights: Path, photos: Path, out: Path, frames: int = 5) -> list[str]:
    options = ["--frames", str(frames), "--steps", "2", "--device", "cpu", "--weights", str(weights)]
    return ["animate", str(photos), "-o", str(out), *options]


def gid(*given: str) -> Result:
    return CliRunner().invoke(app, list(given))


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, np.int64)


def videos(out: Path) -> dict[str, int]:
    return {path.relative_to(out).as_posix(): frames_of(path) for path in sorted(out.rglob("*.mp4"))}


def test_a_folder_of_photos_becomes_a_folder_of_videos(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "videos"
    result = gid(*arguments(weights, photos, out))
    assert result.exit_code == 1, result.output
    assert "4 done, 1 failed" in result.stdout
    assert "2.png is not an image that can be read" in result.stderr
    assert videos(out) == {"0.mp4": 5, "1.mp4": 5, "3.mp4": 5, "more/0.mp4": 5}
    (photos / "2.png").unlink()
    assert gid(*arguments(weights, photos, out)).exit_code == 0
    other = gid(*arguments(weights, photos, out, frames=6))
    assert other.exit_code == 2
    assert "frames 5, now 6" in other.stderr


def test_every_format_is_taken_and_the_rest_named(weights: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("0.png", "1.png", "2.png"):
        (photos / name).unlink()
    with Image.open(photos / "3.png") as image:
        image.convert("RGB").save(photos / "jfif.jfif", "JPEG")
        image.save(photos / "avif.AVIF", "AVIF")
    (photos / "xl.jxl").write_bytes(b"\xff\x0a")
    (photos / "._3.png").write_bytes(b"what macOS leaves")
    (photos / "more").rename(photos / "x.png")
    out = tmp_path / "videos"
    result = gid(*arguments(weights, photos, out, frames=2))
    assert result.exit_code == 0, result.output
    assert "4 done, 1 left out" in result.stdout
    assert "xl.jxl: left out; files that end in .jxl are not read" in result.stderr
    assert set(videos(out)) == {"3.mp4", "avif.mp4", "jfif.mp4", "x.png/0.mp4"}


def test_a_folder_for_each_photo_keeps_motion_and_frames(weights: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "3.png"):
        (photos / name).unlink()
    out = tmp_path / "kept"
    result = gid(*arguments(weights, photos, out), "--keep-motion", "--format", "png")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (out / "more" / "0").iterdir()) == [
        "motion.safetensors",
        *(f"video_{number:04d}.png" for number in range(5)),
    ]
    assert SpectralVolume.load(out / "0" / "motion.safetensors").image_size == (96, 64)


def test_a_photo_in_a_folder_moves_as_it_does_alone(weights: Path, photos: Path, tmp_path: Path) -> None:
    """Compared before the encoder, in which one level of one pixel can change a whole block."""
    for name in ("0.png", "1.png", "2.png", "3.png"):
        (photos / name).unlink()
    together, alone = tmp_path / "together", tmp_path / "alone"
    alone.mkdir()
    result = gid(*arguments(weights, photos, together), "--strength", "5", "--keep-motion", "--format", "png")
    assert result.exit_code == 0, result.output
    single = arguments(weights, photos / "more" / "0.jpg", alone / "video.png")
    result = gid(*single, "--strength", "5", "--motion-out", str(alone / "motion.safetensors"))
    assert result.exit_code == 0, result.output
    kept = together / "more" / "0"
    volumes = [SpectralVolume.load(folder / "motion.safetensors").coefficients for folder in (kept, alone)]
    torch.testing.assert_close(*volumes, rtol=0, atol=1e-6)
    assert volumes[0].abs().max() > 1e-4
    frames = [[pixels(folder / f"video_{number:04d}.png") for number in range(5)] for folder in (kept, alone)]
    difference = np.abs(np.subtract(*frames)).max((1, 2, 3))
    assert (difference <= 1).all(), difference
    assert np.abs(frames[0][2] - frames[0][0]).max() > 1, "the photo must move, or this compares nothing"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--format", "avi"], "format 'avi' is unknown"),
        (["--motion-out", "m.safetensors"], "use --keep-motion"),
    ],
)
def test_folder_mistakes_are_one_sentence(
    weights: Path, photos: Path, tmp_path: Path, more: list[str], says: str
) -> None:
    result = gid(*arguments(weights, photos, tmp_path / "out"), *more)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not (tmp_path / "out").exists()


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def test_a_killed_run_leaves_nothing_half_written_and_goes_on(weights: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "2.png").unlink()
    for seed in range(5, 13):
        photo(seed=seed).save(photos / f"{seed}.png")
    out = tmp_path / "videos"
    command = [sys.executable, "-m", "gid.cli", *arguments(weights, photos, out, 40)]
    run = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    while run.poll() is None and not list(out.glob("*.mp4")):
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4") if PARTIAL not in path.parts}
    assert 1 <= len(before) < 12
    assert all(frames_of(path) == 40 for path in before)
    assert gid(*arguments(weights, photos, out, 40)).exit_code == 0
    assert len(videos(out)) == 12
    assert set(videos(out).values()) == {40}
    assert all(path.stat().st_mtime_ns == time_of for path, time_of in before.items())
    assert not (out / PARTIAL).exists()


def test_two_processes_share_the_photos(weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "videos"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    run = subprocess.run(
        [*launch, "-m", "gid.cli", *arguments(weights, photos, out)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode != 0
    assert run.stdout.count("4 done, 1 failed") == 1, run.stderr
    assert "animating (process 1 of 2)" in run.stderr
    assert "3/3" in run.stderr, "the first process takes the first, third and fifth of five"
    assert videos(out) == {"0.mp4": 5, "1.mp4": 5, "3.mp4": 5, "more/0.mp4": 5}
    assert [json.loads(line)["file"] for line in (out / "failures.jsonl").read_text().splitlines()] == ["2.png"]
