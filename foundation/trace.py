"""Where the time of a command or a click goes: stages with their seconds, and the memory held by then.

    with tracing() as trace:
        with stage("motion"):
            ...
    print(trace.table())

Stages are named where the work is done, and cost nothing while nobody traces. One inside another is taken out of the
outer one's time, so that all add up. Belongs to one thread: what others do meanwhile counts for the stage that waits.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import local
from typing import TypeVar

logger = logging.getLogger(__name__)

_open = local()

T = TypeVar("T")


@dataclass
class Stage:
    """What one stage took, all its turns together.

    Attributes:
        seconds: by the clock.
        processor: seconds of all of the process's threads.
        peak_mb: the most memory that the process has held until the stage's end, in MB; 0 where that is not known.
    """

    seconds: float = 0.0
    processor: float = 0.0
    peak_mb: float = 0.0


@dataclass
class Trace:
    """Stages in the order in which they first ended; ``before`` is the processor time spent until tracing began."""

    stages: dict[str, Stage] = field(default_factory=dict)
    before: float = 0.0
    _inner: list[list[float]] = field(default_factory=list, repr=False)

    def line(self) -> str:
        """One line for a log: ``motion 2.5 s, frames 3.3 s; 1240 MB at most``."""
        parts = ", ".join(f"{name} {stage.seconds:.2f} s" for name, stage in self.stages.items())
        return f"{parts or 'nothing to do'}; {max((s.peak_mb for s in self.stages.values()), default=0):.0f} MB at most"

    def table(self) -> str:
        """Stages as lines of a table, for a person to read."""
        total = Stage(*(sum(getattr(s, name) for s in self.stages.values()) for name in ("seconds", "processor")))
        width = max(map(len, ("start of the program", *self.stages)))
        lines = [f"{'stage':{width}} {'seconds':>8} {'share':>6} {'processor':>10} {'peak MB':>8}"]
        for name, stage in self.stages.items():
            share = stage.seconds / max(total.seconds, 1e-9)
            lines.append(
                f"{name:{width}} {stage.seconds:8.2f} {share:6.0%} {stage.processor:10.2f} {stage.peak_mb:8.0f}"
            )
        lines.append(f"{'all of these':{width}} {total.seconds:8.2f} {'':6} {total.processor:10.2f}")
        lines.append(f"{'start of the program':{width}} {'':8} {'':6} {self.before:10.2f}")
        return "\n".join(lines)


@contextmanager
def tracing() -> Iterator[Trace]:
    """Take up the stages of this thread while this is open; inside another, both are told."""
    outer: Trace | None = getattr(_open, "trace", None)
    trace = Trace(before=time.process_time())
    _open.trace = trace
    try:
        yield trace
    finally:
        _open.trace = outer
        if outer is not None:
            for name, inner in trace.stages.items():
                _add(outer, name, inner.seconds, inner.processor)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count what is done inside for a stage of the trace that is open, if there is one."""
    trace: Trace | None = getattr(_open, "trace", None)
    if trace is None:
        yield
        return
    begun, processor = time.perf_counter(), time.process_time()
    inner = [0.0, 0.0]
    trace._inner.append(inner)
    try:
        yield
    finally:
        trace._inner.pop()
        seconds, processor = time.perf_counter() - begun, time.process_time() - processor
        _add(trace, name, seconds - inner[0], processor - inner[1])
        if trace._inner:
            trace._inner[-1][0] += seconds
            trace._inner[-1][1] += processor


def staged(name: str, parts: Iterable[T]) -> Iterator[T]:
    """The same parts; making each of them counts for a stage, what is done with them between does not."""
    iterator = iter(parts)
    while True:
        with stage(name):
            try:
                part = next(iterator)
            except StopIteration:
                return
        yield part


@contextmanager
def traced_to_log(what: str) -> Iterator[None]:
    """Trace what is done inside, for one quiet line in the log; inside another trace, only for that one."""
    inside = getattr(_open, "trace", None) is not None
    with tracing() as trace:
        yield
    if inside:
        return
    logger.info("%s: %s", what, trace.line())


def _add(trace: Trace, name: str, seconds: float, processor: float) -> None:
    known = trace.stages.setdefault(name, Stage())
    known.seconds += seconds
    known.processor += processor
    known.peak_mb = peak_mb()


def peak_mb() -> float:
    """The most memory this process has held, in MB (10^6 bytes); 0 where the system does not say."""
    if sys.platform == "win32":
        return 0.0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6
