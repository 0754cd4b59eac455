"""The one walker: what it takes, what it leaves alone, and what it names with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foundation.folders import Failure, Summary, find_items, printable, walk

PICTURES = (".png", ".jpg", ".heic")


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_what_is_taken_left_alone_and_named(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.JPG", "deep/er/c.HEIC", "x.png/inside.png")
    put(tmp_path, "._a.png", ".hidden/a.png", ".DS_Store", "deep/._c.heic")  # macOS and others
    put(tmp_path, "photo.jxl", "prompts.csv", "README", "out/result.png")
    put(tmp_path / "elsewhere", "linked.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "ln").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "also.png").symlink_to(tmp_path / "a.png")
    items, left_out = walk(tmp_path, PICTURES, tmp_path / "out")
    assert [item.file for item in items] == [
        "a.png",
        "also.png",
        "b.JPG",
        "deep/er/c.HEIC",
        "elsewhere/linked.png",
        "x.png/inside.png",
    ]
    assert left_out == [
        Failure("README", "its name has no ending"),
        Failure("circle", "linked folders are not entered"),
        Failure("gone.png", "it is a link that leads nowhere"),
        Failure("ln", "linked folders are not entered"),
        Failure("photo.jxl", "files that end in .jxl are not read"),
        Failure("pipe.png", "it is a device or pipe"),
        Failure("prompts.csv", "files that end in .csv are not read"),
    ]


def test_names_that_are_no_text_do_not_end_a_run(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"B\xe4r.png")).touch()
    put(tmp_path, "line\nbreak.png", "narrow\u202fspace.png")
    items, left_out = walk(tmp_path, PICTURES)
    assert [item.file for item in items] == ["line\nbreak.png", "narrow\u202fspace.png"]
    assert left_out == [Failure("B\ufffdr.png", "its name is not UTF-8; rename it")]
    assert printable("line\nbreak\x1b[31m.png") == "line\\x0abreak\\x1b[31m.png"


def test_a_folder_without_pictures_says_what_it_saw(tmp_path: Path) -> None:
    put(tmp_path, "a.jxl")
    with pytest.raises(
        ValueError, match=r"holds no file to work on .*a\.jxl, for one: files that end in \.jxl are not"
    ):
        find_items(tmp_path, PICTURES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "shut/b.png")
    (tmp_path / "shut").chmod(0)
    items, left_out = walk(tmp_path, PICTURES)
    (tmp_path / "shut").chmod(0o755)
    assert [item.file for item in items] == ["a.png"]
    assert left_out[0].file == "shut"


def test_a_summary_names_failures_and_the_first_of_what_was_left_out() -> None:
    summary = Summary(2, 1, [Failure("a.png", "damaged")], [Failure(f"{n}.txt", "no picture") for n in range(5)])
    assert str(summary) == "2 done, 1 already there, 1 failed, 5 left out"
    assert summary.details(2) == [
        "a.png: damaged",
        "0.txt: left out; no picture",
        "1.txt: left out; no picture",
        "and 3 more left out",
    ]
