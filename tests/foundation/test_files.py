"""Files and folders are whole or as they were: at once, on a full disk, on a signal, through links, with long names."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from foundation.files import (
    UnwritableError,
    check_folder,
    check_writable,
    disk_is_full,
    is_safetensors,
    new_folder,
    replace_folder,
    replacing,
    replacing_files,
    set_aside,
    write_text,
)

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A disk of 40 kB. Skips the test where this process may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # torch keeps a file open that it could not write


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow past 4 kB: writing fails in the middle, for everybody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_files(folder: Path, texts: Mapping[str, Any], stale: Collection[str] = ()) -> None:
    with replacing_files(folder, lambda: stale) as partial:
        for name, text in texts.items():
            (partial / name).write_text(text)


def test_a_file_is_the_older_one_until_the_newer_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("older")
    with replacing(target) as partial:
        assert (partial.parent, partial.suffix) == (tmp_path, ".txt")
        assert partial.name.startswith("."), "walkers of folders leave it alone"
        partial.write_text("newer")
        assert target.read_text() == "older"
    with pytest.raises(ZeroDivisionError), replacing(target) as partial:
        partial.write_text(f"half {1 / 0}")
    with pytest.raises(KeyboardInterrupt), replacing(target) as partial:
        raise KeyboardInterrupt
    assert content(tmp_path) == {"a.txt": "newer"}


def test_modes_are_those_of_the_older_file_or_of_any_new_one(tmp_path: Path) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    (tmp_path / "plain").touch()
    kept = tmp_path / "kept"
    kept.touch()
    kept.chmod(0o640)
    write_text(kept, "x")
    with replacing(tmp_path / "new") as partial:
        save_file({"a": torch.zeros(2)}, partial)  # makes a file for its owner only
    assert mode(kept) == 0o640
    assert mode(tmp_path / "new") == mode(tmp_path / "plain")


def test_links_stay_links(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    for name, target in (("a.txt", real / "b.txt"), ("folder", real), ("loop", tmp_path / "loop")):
        (tmp_path / name).symlink_to(target)
    write_text(tmp_path / "a.txt", "through a link that led nowhere")
    write_text(tmp_path / "a.txt", "again")
    with replacing_files(tmp_path / "folder") as partial:
        (partial / "c.txt").write_text("c")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "folder").is_symlink()
    assert content(real) == {"b.txt": "again", "c.txt": "c"}
    with pytest.raises(UnwritableError, match="loop: it is a link that leads in a circle"):
        write_text(tmp_path / "loop", "x")


@pytest.mark.parametrize("name", ["x" * 255, "x" * 251 + ".mp4", "é" * 127 + "x", "." + "y" * 254])
def test_every_legal_name_can_be_written(tmp_path: Path, name: str) -> None:
    check_writable(tmp_path / name)
    write_text(tmp_path / name, "whole")
    assert content(tmp_path) == {name: "whole"}


def test_what_cannot_be_written_is_told_beforehand(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for name, says in [
        ("x" * 256, "the name is too long; choose a shorter one"),
        ("absent/a.txt", "absent does not exist; create it"),
        ("file/a.txt", "file does not exist; create it"),
        (".", "it is a folder; name a file"),
        ("pipe", "it is a device or pipe; name a file"),
    ]:
        for attempt in (check_writable, lambda path: write_text(path, "x")):
            with pytest.raises(UnwritableError, match=says) as caught:
                attempt(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)
            assert isinstance(caught.value, ValueError)
    check_writable(tmp_path / "file")
    check_folder(tmp_path / "a" / "b" / "c")
    check_folder(tmp_path)
    for name in ("file", "file/b"):
        with pytest.raises(UnwritableError, match="it is a file; name a folder"):
            check_folder(tmp_path / name)
    with pytest.raises(UnwritableError, match="the name is too long"):
        check_folder(tmp_path / ("x" * 256))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    """Asked of another user where this one is root, who may write anywhere."""
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o555)
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from foundation.files import check_folder, check_writable\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "for check, path in ((check_writable, sys.argv[2] + '/a.txt'), (check_folder, sys.argv[2] + '/b')):\n"
        "    try: check(path)\n"
        "    except ValueError as error: print(error)\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", program, str(ROOT), str(shut)], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all("it may not be written to; choose a folder that you may write to" in line for line in lines)


NOISE = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.txt", lambda path: path.write_text("x" * 100_000)),
        ("a.png", lambda path: Image.fromarray(NOISE).save(path)),
        ("a.npy", lambda path: np.save(path, NOISE)),
        ("a.safetensors", lambda path: save_file({"a": torch.zeros(100_000)}, path)),
        ("a.pt", lambda path: torch.save(torch.zeros(100_000), path)),
    ],
)
def test_a_full_disk_leaves_nothing_and_names_the_file(
    tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    with tiny_disk(tmp_path / "small") as disk:
        says = f"cannot write {disk}/{name}: the disk is full"
        with pytest.raises(UnwritableError, match=says) as caught, replacing(disk / name) as partial:
            write(partial)
        assert disk_is_full(caught.value)
        assert list(disk.iterdir()) == []


def test_a_full_disk_leaves_no_folder(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "small") as disk:
        with pytest.raises(UnwritableError, match=f"cannot write {disk}/out: the disk is full"):
            write_files(disk / "out", {"first": "x" * 20_000, "second": "x" * 90_000})
        assert list(disk.iterdir()) == []
        (disk / "filling").write_bytes(bytes(40_960))
        with pytest.raises(UnwritableError, match="the disk is full"):
            check_writable(disk / "a.txt")


def test_a_limit_on_files_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("older")
    with pytest.raises(UnwritableError, match=r"a\.txt: it would be larger than a file may be here"), small_files():
        write_text(tmp_path / "a.txt", "x" * 10_000)
    assert content(tmp_path) == {"a.txt": "older"}


def test_other_errors_go_through(tmp_path: Path) -> None:
    for error, text in [
        (ValueError("a frame of another size"), "a frame of another size"),
        (FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "input.png")), "input.png"),
        (RuntimeError("the renderer stopped"), "the renderer stopped"),
    ]:
        with pytest.raises(type(error), match=text) as caught, replacing(tmp_path / "a.txt"):
            raise error
        assert caught.value is error


def test_files_move_into_a_folder_together(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with replacing_files(folder) as partial:
        for name in ("a", "b", "c"):
            (partial / name).write_text("first")
        assert not folder.exists()
    (folder / "mine").write_text("mine")
    (folder / "a").chmod(0o600)
    with replacing_files(folder, lambda: {"b", "c", "d"}) as partial:
        (partial / "a").write_text("second")
        (partial / "deep").mkdir()
        (partial / "deep" / "b").write_text("second")
        assert (folder / "b").read_text() == "first"
    assert content(folder) == {"a": "second", "deep/b": "second", "mine": "mine"}
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o600
    before = content(folder)
    with pytest.raises(TypeError):
        write_files(folder, {"a": "third", "b": None}, {"mine"})
    assert content(folder) == before


def test_moving_in_is_taken_back_as_a_whole(tmp_path: Path) -> None:
    """The second of two names cannot be moved in, because a folder of another disk is mounted there."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a").write_text("older")
    with tiny_disk(folder / "b"), pytest.raises(UnwritableError, match="cannot write"):
        write_files(folder, {"a": "newer", "b": "newer"})
    assert (folder / "a").read_text() == "older"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_a_new_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "new") as partial:
        (partial / "a").write_text("a")
        assert not (tmp_path / "deep" / "new").exists()
    assert content(tmp_path) == {"deep/new/a": "a"}
    with pytest.raises(FileExistsError, match="exists already; name a folder that does not"), new_folder(tmp_path):
        pass
    with pytest.raises(RuntimeError), new_folder(tmp_path / "half") as partial:
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for name, text in (("state", "older"), ("made", "newer"), ("state.old", "left by a killed run")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(text)
    assert set_aside(tmp_path / "state") == tmp_path / "state.old"
    replace_folder(tmp_path / "made", tmp_path / "state")
    assert content(tmp_path) == {"state/a": "newer"}
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "absent", tmp_path / "state")
    assert content(tmp_path) == {"state/a": "newer"}


def test_many_writers_at_once(tmp_path: Path) -> None:
    target, texts = tmp_path / "a.txt", [str(number) * 50_000 for number in range(4)]
    write_text(target, texts[0])
    failures: list[BaseException] = []
    seen: list[str] = []

    def work(text: str) -> None:
        try:
            for _ in range(40):
                write_text(target, text)
                seen.append(target.read_text())
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(text,)) for text in texts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert set(seen) <= set(texts), "nobody read half a file"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import signal, sys, time; sys.path.insert(0, sys.argv[1])\n"
        # A shell's background jobs ignore the one, what `nohup` starts the other.
        "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from foundation.files import replacing, replacing_files\n"
        "with replacing_files(sys.argv[2] + '/out') as folder, replacing(sys.argv[2] + '/a.txt') as file:\n"
        "    (folder / 'half').write_text('half'); file.write_text('half'); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(ROOT), str(tmp_path)], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if any(path.suffix == ".txt" and path.stat().st_size for path in tmp_path.glob(".*")):
            break
        time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(number)
    assert process.wait(60) != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "expected"), [("a.safetensors", True), ("a.SAFETENSORS", True), ("a.bin", False)])
def test_one_rule_for_the_suffix(name: str, expected: bool) -> None:
    assert is_safetensors(Path("x") / name) is expected
