"""Stages of a trace: they add up, nest, and are told by a command's --trace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from foundation.commands.tracing import Traced, trace_command
from foundation.trace import peak_mb, stage, staged, traced_to_log, tracing


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_stages_inside_others_are_taken_out_of_them_and_all_add_up() -> None:
    begun = time.perf_counter()
    with tracing() as trace:
        with stage("outer"):
            busy(0.02)
            for _ in range(2):
                with stage("inner"):
                    busy(0.03)
        with stage("after"):
            pass
    whole = time.perf_counter() - begun
    assert list(trace.stages) == ["inner", "outer", "after"]
    assert trace.stages["inner"].seconds >= 0.06
    assert trace.stages["outer"].seconds >= 0.02
    assert sum(s.seconds for s in trace.stages.values()) <= whole
    assert trace.stages["outer"].seconds <= whole - 0.06
    assert 0 < trace.stages["inner"].processor <= time.process_time() - trace.before
    assert 0 < trace.stages["inner"].peak_mb <= peak_mb()


def test_making_parts_counts_and_using_them_does_not() -> None:
    def parts() -> Iterator[int]:
        for number in range(3):
            busy(0.01)
            yield number

    with tracing() as trace:
        taken = []
        for part in staged("making", parts()):
            with stage("using"):
                busy(0.02)
            taken.append(part)
    assert taken == [0, 1, 2]
    assert trace.stages["using"].seconds >= 0.06
    assert trace.stages["making"].seconds >= 0.03
    assert list(staged("making", parts())) == [0, 1, 2]  # without anybody who traces


def test_a_failed_stage_is_told_and_ends_it() -> None:
    with tracing() as trace:
        with pytest.raises(RuntimeError, match="broken"), stage("outer"), stage("inner"):
            raise RuntimeError("broken")
        with stage("next"):
            pass
    assert list(trace.stages) == ["inner", "outer", "next"]


def test_other_threads_are_not_traced() -> None:
    def work() -> None:
        with stage("elsewhere"):
            pass

    with tracing() as trace:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert not trace.stages


def test_one_line_in_the_log_for_the_outermost(caplog: pytest.LogCaptureFixture) -> None:
    @traced_to_log("inner work")
    def inner() -> int:
        with stage("thinking"):
            return 5

    with caplog.at_level(logging.INFO, "foundation.trace"):
        assert inner() == 5
        with traced_to_log("all of it"):
            inner()
            with stage("drawing"):
                pass
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" 0.0")[0] for line in lines] == ["inner work: thinking", "all of it: thinking"]
    assert "drawing 0.00 s; " in lines[1]
    assert lines[1].endswith(" MB at most")


def test_a_command_says_its_stages_on_standard_error() -> None:
    app = typer.Typer()

    @app.callback()
    def set_up(context: typer.Context, trace: Traced = False) -> None:
        if trace:
            trace_command(context)

    @app.command()
    def work() -> None:
        with stage("thinking"):
            typer.echo("done")

    told = CliRunner().invoke(app, ["--trace", "work"])
    assert told.stdout == "done\n"
    words = [line.split() for line in told.stderr.splitlines()]
    assert words[0] == ["stage", "seconds", "share", "processor", "peak", "MB"]
    assert words[1][0] == "thinking"
    assert words[1][2] == "100%"
    assert CliRunner().invoke(app, ["work"]).stderr == ""
    with tracing() as trace:  # what a command opened is closed again
        pass
    assert not trace.stages
