"""How many threads to compute with: as many as this process may really use processors.

torch counts the processors of the machine. In a container that may use two of sixty-four, sixty-four threads would take
turns on two, several times slower than two.

Threads that wait for one another spin by default, which is fastest while every thread has a processor to itself. Beside
anything else that computes, such as the browser of a visitor on the same machine, one of them often has none: the rest
then burn the time that it waits for. On two cores that others kept busy, the ten steps of a motion took two such
threads 191 seconds (31 of processor time), one thread alone 6 (1); three smaller steps took threads that sleep 8.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

VARIABLE = "OMP_NUM_THREADS"
WAITING = "OMP_WAIT_POLICY"
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def processors(control_groups: Path = _CONTROL_GROUPS) -> int:
    """Processors this process may use: those it is bound to, at most its container's share of time, at least 1.

    Args:
        control_groups: where Linux tells of the container's share, as version 2 or 1 of its control groups.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _share(control_groups)
    return bound if share is None else max(1, min(bound, math.ceil(share)))


def _share(control_groups: Path) -> float | None:
    """Processors' worth of time, or None where nothing limits it."""
    try:
        if (both := control_groups / "cpu.max").is_file():
            quota, period = both.read_text().split()
        else:
            quota, period = (
                (control_groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None


def limit_threads() -> None:
    """Let libraries use no more threads than there are processors for them, and let waiting threads sleep.

    What the user's environment says of either is kept. Meant for programs, before their heavy imports: torch is told
    of the number even if it is imported already, but how to wait is read only once.
    """
    os.environ.setdefault(WAITING, "PASSIVE")
    if VARIABLE in os.environ:
        return
    count = processors()
    if count < (os.cpu_count() or 1):
        os.environ[VARIABLE] = str(count)
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(min(count, torch.get_num_threads()))
