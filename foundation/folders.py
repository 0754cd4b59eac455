"""Work through a folder of files: alone or shared among processes, resumable, one bad file not stopping the rest.

Under `accelerate launch` every process takes each n-th file of the sorted list. A result appears under its name only
when it is whole, and what is there already is skipped, so that a run may be killed and started again at any time, with
any number of processes.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import socket
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from foundation.files import FULL_DISK, check_folder, stems_from, write_text

logger = logging.getLogger(__name__)

Input = TypeVar("Input")
Output = TypeVar("Output")
Value = TypeVar("Value")

SETTINGS_FILE = "settings.json"
FAILURES_FILE = "failures.jsonl"
PARTIAL = ".partial"
# The last process to finish may be long behind the first; the usual half hour would break off the whole run.
PATIENCE = timedelta(days=30)
STALE = 24 * 3600.0  # seconds after which the leavings of a process on another machine are taken for dead


@dataclass(frozen=True)
class Item:
    """A file to work on, its place relative to the folder, and the name of its result: that place without suffix."""

    path: Path
    file: str
    name: str


@dataclass(frozen=True)
class Failure:
    """A file that gave no result, and why."""

    file: str
    reason: str


@dataclass
class Summary:
    """What became of a folder: how many results were made now, how many were there before, and what failed.

    left_out: files that were not meant for the task, and why.
    """

    done: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    left_out: list[Failure] = field(default_factory=list, compare=False)

    def __str__(self) -> str:
        parts = [f"{self.done} done", f"{self.skipped} already there"] if self.skipped else [f"{self.done} done"]
        parts += [f"{len(self.failures)} failed"] if self.failures else []
        return ", ".join([*parts, f"{len(self.left_out)} left out"] if self.left_out else parts)

    def details(self, most: int = 20) -> list[str]:
        """A line for each file that failed, and for the first `most` that were left out."""
        lines = [f"{printable(one.file)}: {one.reason}" for one in self.failures]
        lines += [f"{printable(one.file)}: left out; {one.reason}" for one in self.left_out[:most]]
        more = len(self.left_out) - most
        return [*lines, f"and {more} more left out"] if more > 0 else lines


@dataclass(frozen=True)
class Task(Generic[Input, Output]):
    """What is done with each file.

    suffixes: which files are meant, in lower case. extension: of a result's name; "" for a result that is a folder.
    settings: what decides the results; a folder that holds results of other settings is refused.
    load: one item to what is computed on. compute: some loaded files at once. save: one output to a path that has the
    result's own name and suffix, in a folder of its own.
    An error in any of the three is that file's failure; a batch that fails is tried again file by file.
    """

    suffixes: tuple[str, ...]
    extension: str
    settings: Mapping[str, Any]
    load: Callable[[Item], Input]
    compute: Callable[[Sequence[Input]], Sequence[Output]]
    save: Callable[[Output, Path], None]
    batch_size: int = 1
    label: str = ""


class Processes:
    """This process among those that `accelerate launch` (or torchrun) started; the only one without it."""

    def __init__(self, device: str = "auto") -> None:
        import torch
        from accelerate import PartialState

        alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
        # Without this, accelerate takes processes on a machine without accelerators for strangers to each other.
        cpu = device == "cpu" or not torch.accelerator.is_available()
        self._state = PartialState(cpu=cpu) if alone else PartialState(cpu=cpu, timeout=PATIENCE)
        self.index, self.count = self._state.process_index, self._state.num_processes

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks for all."""
        return bool(self._state.is_main_process)

    def device(self, name: str) -> str:
        """The device of this process: its own accelerator where several processes share a machine."""
        if self.count == 1 or name not in ("auto", "cuda"):
            return name
        own = self._state.device
        return str(own) if own.type != "cpu" else "cpu"

    def agreed(self, find: Callable[[], Value]) -> Value:
        """What `find` gives the first process, in every process; a ValueError in it is raised in all."""
        from accelerate.utils import broadcast_object_list

        shared: list[Any] = [None, ""]
        if self.first:
            try:
                shared = [find(), ""]
            except ValueError as error:
                shared = [None, str(error)]
        broadcast_object_list(shared)
        if shared[1]:
            raise ValueError(shared[1])
        return shared[0]

    def together(self, own: list[Value]) -> list[Value]:
        """The lists of all processes as one, in every process; waits for the last."""
        from accelerate.utils import gather_object

        return list(gather_object(own))


def work_through(folder: Path, out: Path, task: Task[Input, Output], processes: Processes) -> Summary:
    """Make the result of every file below `folder` in `out`, which mirrors its subfolders.

    Returns the summary over all processes, in every process; `out/failures.jsonl` then lists the files that failed.
    Raises ValueError if there is nothing to do, `out` is `folder` itself or holds results of other settings, and
    the error of a full disk.
    """
    items, left_out = processes.agreed(lambda: _begin(folder, out, task))
    own = items[processes.index :: processes.count]
    waiting = [item for item in own if not result_path(out, item, task.extension).exists()]
    failures: list[Failure] = []
    with _partial_folder(out) as partial:
        for start in _shown(range(0, len(waiting), task.batch_size), len(waiting), task, processes):
            failures += _batch(waiting[start : start + task.batch_size], out, partial, task)
    rows = processes.together([(len(waiting) - len(failures), len(own) - len(waiting), failures)])
    summary = Summary(sum(row[0] for row in rows), sum(row[1] for row in rows), [one for row in rows for one in row[2]])
    summary.failures.sort(key=lambda failure: failure.file)
    summary.left_out = left_out
    if processes.first:
        _report(out, summary.failures)
    return summary


def find_items(folder: Path, suffixes: tuple[str, ...], outside: Path | None = None) -> list[Item]:
    """The files of :func:`walk`. Raises ValueError if there is none."""
    return _walk_to_some(folder, suffixes, outside)[0]


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of :func:`walk` that lie in `folder` itself, by name. Raises ValueError if there is no such folder."""
    return [item.path for item in walk(folder, suffixes)[0] if item.path.parent == folder]


def _walk_to_some(folder: Path, suffixes: tuple[str, ...], outside: Path | None) -> tuple[list[Item], list[Failure]]:
    items, left_out = walk(folder, suffixes, outside)
    if not items:
        seen = f"; {printable(left_out[0].file)}, for one: {left_out[0].reason}" if left_out else ""
        raise ValueError(f"{folder} holds no file to work on ({', '.join(suffixes)}){seen}")
    return items, left_out


def walk(folder: Path, suffixes: tuple[str, ...], outside: Path | None = None) -> tuple[list[Item], list[Failure]]:
    """Files below `folder` with one of `suffixes`, in order of their place, and every other file with the reason.

    Hidden files and folders are left alone, and so is what lies in `outside`. Linked folders are not entered. Files
    that differ in their suffix only keep it in the result's name. Raises ValueError if there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    apart = outside.resolve() if outside is not None else None
    places: list[Path] = []
    left_out: list[Failure] = []

    def unreadable(error: OSError) -> None:
        place = Path(error.filename).relative_to(folder) if error.filename else Path()
        left_out.append(Failure(_written(place), f"the folder cannot be read ({error.strerror})"))

    for parent, inner, files in os.walk(folder, onerror=unreadable):
        inner[:] = [name for name in inner if not name.startswith(".") and (Path(parent) / name).resolve() != apart]
        for name in [*files, *(name for name in inner if os.path.islink(os.path.join(parent, name)))]:
            path = Path(parent) / name
            if name.startswith("."):
                continue
            reason = _unfit(path, suffixes)
            if reason:
                left_out.append(Failure(_written(path.relative_to(folder)), reason))
            else:
                places.append(path.relative_to(folder))
    return _named(folder, sorted(places)), sorted(left_out, key=lambda one: one.file)


def _unfit(path: Path, suffixes: tuple[str, ...]) -> str:
    """Why a file is not worked on; empty if it is."""
    if path.is_dir():
        return "linked folders are not entered"
    if path.suffix.lower() not in suffixes:
        return f"files that end in {path.suffix} are not read" if path.suffix else "its name has no ending"
    if _written(path) != str(path):
        return "its name is not UTF-8; rename it"
    if path.is_symlink() and not path.exists():
        return "it is a link that leads nowhere"
    if not path.is_file():
        return "it is a device or pipe"
    return ""


def _written(place: Path) -> str:
    """A place as text; bytes that are none are replaced."""
    return os.fsencode(place).decode("utf-8", "replace")


def printable(name: str) -> str:
    """A file's name without what would move the cursor of a terminal."""
    return "".join(f"\\x{ord(letter):02x}" if unicodedata.category(letter) == "Cc" else letter for letter in name)


def _named(folder: Path, places: Sequence[Path]) -> list[Item]:
    stems = Counter(map(_stem, places))
    names = [stem if stems[stem] == 1 else place.as_posix() for place in places for stem in [_stem(place)]]
    if len(set(names)) < len(names):  # a.png, a.jpg and a.png.jpg
        names = [place.as_posix() for place in places]
    return [Item(folder / place, place.as_posix(), name) for place, name in zip(places, names, strict=True)]


def _stem(place: Path) -> str:
    return place.with_suffix("").as_posix()


def result_path(out: Path, item: Item, extension: str) -> Path:
    """Where the result of `item` belongs."""
    return out / f"{item.name}{extension}"


def _begin(folder: Path, out: Path, task: Task[Any, Any]) -> tuple[list[Item], list[Failure]]:
    """Find the files, prepare the output folder, and check that its results are of the same settings."""
    if out.resolve() == folder.resolve():
        raise ValueError(f"the results would lie among the files of {folder}; give another folder for them")
    items, left_out = _walk_to_some(folder, task.suffixes, out)
    settings = json.loads(json.dumps(dict(task.settings)))  # as they read back
    path = out / SETTINGS_FILE
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged ({error}); give another folder for the results") from error
        changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
        if changed:
            changes = ", ".join(f"{key} {before.get(key)!r}, now {settings.get(key)!r}" for key in changed)
            raise ValueError(
                f"{out} holds results of other settings ({changes}); give the same ones, or another folder"
            )
    else:
        check_folder(out)
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    _sweep(out / PARTIAL)
    return items, left_out


def _batch(items: Sequence[Item], out: Path, partial: Path, task: Task[Input, Output]) -> list[Failure]:
    """Results of some files at once. Returns those that failed."""
    loaded: list[tuple[Item, Input]] = []
    failures: list[Failure] = []
    for item in items:
        with _told(item, failures):
            loaded.append((item, task.load(item)))
    if not loaded:
        return failures
    outputs: Sequence[Output] | None = None
    if len(loaded) > 1:
        try:
            outputs = task.compute([value for _, value in loaded])
        except Exception as error:  # which of them it was shows one by one
            logger.info("a batch of %d failed (%s); one by one", len(loaded), error)
    for index, (item, value) in enumerate(loaded):
        with _told(item, failures):
            output = outputs[index] if outputs is not None else task.compute([value])[0]
            target = result_path(out, item, task.extension)
            written = partial / target.name
            try:
                task.save(output, written)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(written, target)
            finally:
                _remove(written)
    return failures


@contextmanager
def _told(item: Item, failures: list[Failure]) -> Iterator[None]:
    """Turn an error into a failure of this file; a full disk would fail every further file, and ends the run."""
    try:
        yield
    except Exception as error:
        if stems_from(error, (*FULL_DISK, errno.EROFS)):
            raise
        expected = isinstance(error, ValueError | OSError)
        reason = str(error) or type(error).__name__
        logger.warning("%s: %s", item.file, reason, exc_info=None if expected else error)
        failures.append(Failure(item.file, reason if expected else f"{type(error).__name__}: {reason}"))


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """A folder of this process beside the results, on the same disk."""
    folder = out / PARTIAL / f"{socket.gethostname()}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(partial: Path) -> None:
    """Remove what killed processes have left behind."""
    for left in partial.glob("*"):
        host, _, number = left.name.rpartition("-")
        if host == socket.gethostname():
            dead = not _alive(int(number)) if number.isdigit() else True
        else:
            dead = time.time() - left.stat().st_mtime > STALE
        if dead:
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _shown(starts: range, total: int, task: Task[Any, Any], processes: Processes) -> Iterator[int]:
    """The starts of the batches, with a bar in the first process over its own share."""
    from tqdm.auto import tqdm

    share = f" (process 1 of {processes.count})" if processes.count > 1 else ""
    with tqdm(total=total, desc=f"{task.label}{share}", disable=not processes.first, unit="file") as bar:
        for start in starts:
            yield start
            bar.update(min(task.batch_size, total - start))


def _report(out: Path, failures: Sequence[Failure]) -> None:
    path = out / FAILURES_FILE
    if failures:
        write_text(path, "".join(json.dumps(vars(one), ensure_ascii=False) + "\n" for one in failures))
    else:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty while another run works here
        (out / PARTIAL).rmdir()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
