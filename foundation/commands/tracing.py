"""`--trace`: after any command, where its time went."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from foundation.trace import Trace, tracing

Traced = Annotated[bool, typer.Option("--trace", help="Before a command: say at its end where its time went.")]


def trace_command(context: typer.Context) -> None:
    """Trace the command that is about to run in a context, and print its stages to standard error at its end."""
    stack = ExitStack()
    trace = stack.enter_context(tracing())
    context.call_on_close(lambda: _end(stack, trace))


def _end(stack: ExitStack, trace: Trace) -> None:
    stack.close()
    if trace.stages:
        typer.echo(trace.table(), err=True)
