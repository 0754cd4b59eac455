"""What the commands of both libraries do alike: few threads, and a user's mistake told in one line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from commons.threads import limit_threads

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def one_sentence(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Turn a user's mistake into one line on stderr and exit code 2, without a traceback."""

    @functools.wraps(function)
    def command(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        limit_threads()
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError) as error:
            typer.secho(f"Error: {explained(error)}", err=True, fg=typer.colors.RED)
            raise typer.Exit(2) from error

    return command


def explained(error: Exception) -> str:
    """What an error says; for one of the operating system the path, what is wrong with it, and what to do."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        return f"{error.filename}: {reason}; name a place that exists and that you may read or write"
    return str(error)
