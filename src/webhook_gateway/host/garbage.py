"""Python's cyclic garbage collector, set for a process that makes many short-lived objects and few cycles.

Its default looks for cycles after every 700 new objects, which cost a fifth of a worker's time. Reference counting
frees nearly everything at once; what is left in cycles waits a little longer here, which costs a few megabytes.
"""

from __future__ import annotations

import gc

THRESHOLDS = (50_000, 50, 100)


def relax() -> None:
    """Called once, when everything that lives as long as the process has been made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
