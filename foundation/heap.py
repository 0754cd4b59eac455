"""Memory of a program that runs for days: large blocks go back to the system when they are freed.

The GNU C library keeps what threads free for their next request, in an arena for each of up to eight threads a
processor, and raises the size from which blocks are mapped on their own after each that is freed. With tensors of a few
megabytes in dozens of threads that keeps gigabytes which nobody uses.
"""

from __future__ import annotations

import ctypes

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1  # of malloc.h
ARENAS = 2
LARGE = 1 << 20  # bytes; frames and feature maps are larger, most else is smaller


def keep_small() -> bool:
    """Few arenas, and blocks of a megabyte or more mapped on their own; returns whether the C library understood.

    Meant for servers, before their first large work.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    asked = ((_ARENA_MAX, ARENAS), (_MMAP_THRESHOLD, LARGE), (_TRIM_THRESHOLD, 8 * LARGE))
    understood = [bool(mallopt(name, value)) for name, value in asked]  # each is asked, whatever came of the last
    return all(understood)
