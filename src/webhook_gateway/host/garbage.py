"""Python's memory, set for a process that makes many short-lived objects and few cycles.

Its default looks for cycles after every 700 new objects, which cost a fifth of a worker's time. Reference counting
frees nearly everything at once; what is left in cycles waits a little longer here, which costs a few megabytes.

And what it is made of lies on thousands of small pages, which a processor that was elsewhere has to find again.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

THRESHOLDS = (50_000, 50, 100)
HUGE = 2_097_152
COLLAPSE = 25
"""Puts what is there onto a huge page, now: MADV_COLLAPSE of madvise(2), since Linux 6.1."""


def relax() -> None:
    """Called once, when everything that lives as long as the process has been made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    with suppress(OSError, AttributeError):  # no Linux
        _use_huge_pages()


def _use_huge_pages() -> None:
    """Takes no more memory: where nothing is yet, nothing is put. The kernel says no where it can't."""
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, _, _, file, *name = line.split()
        if rights == "rw-p" and file == "0" and name in ([], ["[heap]"]):
            begin, end = (int(address, 16) for address in place.split("-"))
            for at in range(-(-begin // HUGE) * HUGE, end - HUGE + 1, HUGE):
                madvise(at, HUGE, COLLAPSE)
