"""Files and folders of results: written beside their place and renamed, so that they are whole or as they were before.

A temporary file lies in the folder of its target, under a hidden name of its own: any number of threads and processes
may write the same file at once, and the last one wins. After a failure, Ctrl-C or TERM nothing is left of it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
SAFETENSORS = ".safetensors"

_PREFIX = ".part-"
_LONGEST_SUFFIX = 16  # a longer one names no format, and the temporary name has to stay below 255 bytes
_SPARE = 1 << 20  # bytes; with less free a failure that states no reason is taken for a full disk
_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your share of the disk is full; free some space or choose another folder",
    errno.EFBIG: "it would be larger than a file may be here; choose another folder",
    errno.EACCES: "it may not be written to; choose a folder that you may write to",
    errno.EPERM: "it may not be written to; choose a folder that you may write to",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "it is a link that leads in a circle; choose another name",
}


class UnwritableError(OSError, ValueError):
    """An output that cannot be written. The message names the file, the reason and the remedy; errno is kept."""

    def __init__(self, path: Path, reason: str, number: int | None = None) -> None:
        super().__init__(f"cannot write {path}: {reason}")
        self.errno = number


def is_safetensors(path: str | Path) -> bool:
    """Whether a path is named as a safetensors file is, in large or small letters."""
    return Path(path).suffix.lower() == SAFETENSORS


def disk_is_full(error: BaseException) -> bool:
    """Whether a full disk is behind an error or one of its causes."""
    return stems_from(error, FULL_DISK)


def stems_from(error: BaseException | None, numbers: Collection[int]) -> bool:
    """Whether an error, or one of its causes, is the operating system's with one of these numbers (errno)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return True
        error = error.__cause__
    return False


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path with the suffix of `path`; move it there on success, delete it otherwise.

    A file that is there before keeps its mode; where `path` is a link, the file that it leads to is replaced.

    Raises:
        UnwritableError: the folder does not exist, `path` is no regular file, or writing fails.
    """
    path = Path(path)
    target = _resolved(path)
    suffix = path.suffix.lower() if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    partial = target.with_name(_temporary_name(suffix))
    with ending_on_signals(), _user_errors(path, partial):
        try:
            mode = _create(partial)
            with suppress(FileNotFoundError):
                mode = stat.S_IMODE(target.stat().st_mode)
            yield partial
            partial.chmod(mode)  # some writers make a file that only its owner may read
            os.replace(partial, target)
        finally:
            with suppress(OSError):  # also where it could not be made
                partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file. Raises UnwritableError as :func:`replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file in UTF-8. Raises UnwritableError as :func:`replacing`."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def replacing_files(folder: str | Path, stale: Callable[[], Collection[str]] = frozenset) -> Iterator[Path]:
    """Give an empty folder to write into; on success its content moves into `folder`, all of it or nothing.

    What has the same name in `folder` is replaced, what `stale` names (asked at the end) is removed, and the rest
    stays. A folder that does not exist appears with its content in it.

    Raises:
        UnwritableError: the parent folder does not exist, `folder` is a file, or writing fails.
    """
    folder = Path(folder)
    target = _resolved(folder, is_folder=True)
    present = target.is_dir()
    partial = (target if present else target.parent) / _temporary_name()
    with ending_on_signals(), _user_errors(folder, partial, target):
        try:
            partial.mkdir()
            yield partial
            if present:
                _move_in(partial, target, stale())
            else:
                os.rename(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Give an empty folder to write into that becomes `folder`, which must not exist, when it is whole.

    Raises:
        FileExistsError: `folder` exists.
        UnwritableError: as :func:`replacing_files`.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} exists already; name a folder that does not")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing_files(folder) as partial:
        yield partial


def set_aside(folder: Path) -> Path:
    """Where :func:`replace_folder` keeps what was there while it renames; a killed run may leave it."""
    return folder.with_name(f"{folder.name}.old")


def replace_folder(made: Path, folder: Path) -> None:
    """Put the folder `made`, of the same disk, in the place of `folder`; a kill in between leaves :func:`set_aside`."""
    aside = set_aside(folder)
    if folder.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
    try:
        os.rename(made, folder)
    except OSError:
        if aside.is_dir():
            os.rename(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def check_writable(path: str | Path) -> None:
    """Find out before the work whether :func:`replacing` could write `path`. Raises UnwritableError if not."""
    path = Path(path)
    target = _resolved(path)
    if target.exists() and not os.access(target, os.W_OK):
        raise UnwritableError(path, _REMEDIES[errno.EACCES], errno.EACCES)
    _try_out(path, target.parent)


def check_folder(folder: str | Path) -> None:
    """Find out before the work whether files could be written into `folder`, which may have to be made with parents.

    Raises UnwritableError if not.
    """
    folder = Path(folder)
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    _try_out(folder, _resolved(nearest, is_folder=True))
    with _user_errors(folder, folder), suppress(FileNotFoundError, NotADirectoryError):
        folder.lstat()  # a name that is too long


def _try_out(path: Path, folder: Path) -> None:
    """Write a little into `folder` and remove it."""
    partial = folder / _temporary_name()
    with ending_on_signals(), _user_errors(path, partial):
        try:
            _create(partial)
            partial.write_bytes(bytes(4096))
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let TERM and a closed terminal end the program as Ctrl-C does, so that what is half written is removed.

    Only where nobody else listens to them, and in the main thread, which alone can.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
    raise SystemExit(128 + number)


def _temporary_name(suffix: str = "") -> str:
    return f"{_PREFIX}{secrets.token_hex(8)}{suffix}"


def _create(partial: Path) -> int:
    """Make an empty file with the mode that any new file gets here, and give that mode."""
    handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def _resolved(path: Path, is_folder: bool = False) -> Path:
    """Where `path` really is: links keep being links. Raises UnwritableError if it is not what can be replaced."""
    try:
        target = path.resolve() if path.is_symlink() else path
        mode = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except (OSError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else errno.ELOOP
        raise UnwritableError(path, _reason(error, number), number) from error
    if mode is None and not target.parent.is_dir():
        raise UnwritableError(
            path, f"the folder {target.parent} does not exist; create it or choose another one", errno.ENOENT
        )
    if mode is not None and is_folder and not stat.S_ISDIR(mode):
        raise UnwritableError(path, "it is a file; name a folder", errno.ENOTDIR)
    if mode is not None and not is_folder and stat.S_ISDIR(mode):
        raise UnwritableError(path, "it is a folder; name a file", errno.EISDIR)
    if mode is not None and not is_folder and not stat.S_ISREG(mode):
        raise UnwritableError(path, "it is a device or pipe; name a file", errno.EINVAL)
    return target


@contextmanager
def _user_errors(path: Path, *places: Path) -> Iterator[None]:
    """Say of a failure to write at `places` what is wrong with `path`; let everything else through."""
    try:
        yield
    except UnwritableError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)  # av's errors carry one that the system does not know
        if number is None and not isinstance(error, ValueError):  # some writers lose the reason
            number = errno.ENOSPC if _has_no_room(places[0].parent) else None
        if not isinstance(error, OSError) and number is None:
            raise
        if _is_elsewhere(getattr(error, "filename", None), places):
            raise
        raise UnwritableError(path, _reason(error, number), number) from error


def _has_no_room(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _SPARE
    except OSError:
        return False


def _is_elsewhere(name: object, places: Sequence[Path]) -> bool:
    """Whether an error is about a file that has nothing to do with what is written."""
    if not isinstance(name, str | os.PathLike):
        return False
    file = Path(name).absolute()
    return not any(place.absolute() in (file, *file.parents) for place in places)


def _reason(error: Exception, number: int | None) -> str:
    known = _REMEDIES.get(number or 0)
    if known is not None:
        return known
    text = str(getattr(error, "strerror", None) or error)
    return f"{text[:1].lower()}{text[1:]}; choose another folder or name"


def _move_in(partial: Path, target: Path, stale: Collection[str]) -> None:
    """Move the content of `partial` into `target` and what it replaces aside; take all of it back if that fails."""
    new = sorted(os.listdir(partial))
    aside = partial / _temporary_name()
    aside.mkdir()
    old = [name for name in sorted({*new, *stale}) if os.path.lexists(target / name)]
    moves = [(target / name, aside / name) for name in old] + [(partial / name, target / name) for name in new]
    done: list[tuple[Path, Path]] = []
    try:
        for source, place in moves:
            done.append((source, place))
            os.rename(source, place)
        for name in {*new} & {*old}:
            if (aside / name).is_file() and not (target / name).is_symlink():
                shutil.copymode(aside / name, target / name)
    except BaseException:
        for source, place in reversed(done):
            with suppress(FileNotFoundError):
                os.rename(place, source)
        raise
