"""How many processors a process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.threads import processors


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000000 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_processors_follow_the_container(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert processors(tmp_path) == (expected or bound)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to processors here")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors")
@pytest.mark.parametrize(("given", "expected"), [(None, 1), ("2", 2)])
def test_a_bound_process_computes_with_what_it_has(given, expected):
    program = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from foundation.threads import limit_threads
import torch
limit_threads()
print(os.environ["OMP_NUM_THREADS"], torch.get_num_threads())
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if given is not None:
        environment["OMP_NUM_THREADS"] = given
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    variable, threads = map(int, done.stdout.split())
    assert variable == expected
    assert threads <= expected


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_wants_otherwise(given, expected):
    program = "import os, sys; from foundation.threads import limit_threads; limit_threads(); import gid.cli.main;"
    program += "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]  # in time: torch reads it when it is imported


def test_the_app_says_so_before_it_imports_torch():
    source = (Path(__file__).parents[2] / "app.py").read_text(encoding="utf-8")
    lines = source.splitlines()
    said = next(number for number, line in enumerate(lines) if '"OMP_WAIT_POLICY"' in line)
    first = next(
        number for number, line in enumerate(lines) if line.startswith(("import gradio", "from ui", "from gid"))
    )
    assert said < first
