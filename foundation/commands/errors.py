"""What the commands of both libraries do alike: few threads, and a user's mistake in one line."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from foundation.files import ending_on_signals
from foundation.threads import limit_threads

_REMEDIES: dict[int | None, str] = {
    errno.ENOENT: "check the name",
    errno.EEXIST: "name another place",
    errno.ENOTDIR: "name a place in a folder",
    errno.EISDIR: "name a file",
    errno.EACCES: "name a place that you may read or write",
    errno.EPERM: "name a place that you may read or write",
    errno.EROFS: "name a place that can be written to",
    errno.ENOSPC: "free some space",
}

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def user_errors(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Turn a user's mistake into one line on stderr and exit code 2, without a traceback."""

    @functools.wraps(function)
    def command(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        limit_threads()
        try:
            with ending_on_signals():
                return function(*args, **kwargs)
        except (ValueError, OSError) as error:
            typer.secho(f"Error: {message(error)}", err=True, fg=typer.colors.RED)
            raise typer.Exit(2) from error

    return command


def message(error: Exception) -> str:
    """What an error says; for one of the operating system the path, what is wrong with it, and what to do."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        remedy = f"; {_REMEDIES[error.errno]}" if error.errno in _REMEDIES else ""
        return f"{error.filename}: {reason}{remedy}"
    return str(error)
