"""Freed blocks go back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys, threading
import numpy as np
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "1":
    from foundation.heap import keep_small
    if not keep_small():
        print("none"); sys.exit()
pinned = []
def work(seed):
    for size in (30, 24, 18, 12, 8):
        held = [np.ones(size << 17) for _ in range(4)]
        pinned.append(np.ones(2000))  # a small block that lies above large ones
        del held
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
pages = int(open("/proc/self/statm").read().split()[1])
print(pages * os.sysconf("SC_PAGE_SIZE") >> 20)
"""


def resident(small: bool) -> int:
    """MB after large blocks were freed by several threads."""
    command = [sys.executable, "-c", PROGRAM, str(ROOT), str(int(small))]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if said == "none":
        pytest.skip("this C library has no mallopt")
    return int(said)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is counted by Linux's /proc")
def test_freed_memory_goes_back() -> None:
    assert resident(True) < 120
