"""How many processes suit this machine: each takes one core, so there is one for each core that we may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

Processes = int | Literal["auto"]
AUTO: Final = "auto"
MOST: Final = 256
QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
"""Of control groups, version 2: what a container may use, whatever its machine has."""


def read(value: object) -> Processes:
    """A number of processes as it stands in the environment or on the command line.

    Raises:
        ValueError: it is neither a number from 1 to 256 nor ``auto``.
    """
    text = str(value).strip()
    if text == AUTO:
        return AUTO
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST:
        return int(text)
    raise ValueError(f"write a number from 1 to {MOST}, or {AUTO} for one process a core")


def usable() -> int:
    """The cores that this process may use now."""
    try:
        quota = QUOTA.read_text()
    except OSError:  # no control groups of version 2, or we are in the outermost one
        quota = None
    return within(len(os.sched_getaffinity(0)), quota)


def within(cores: int, quota: str | None) -> int:
    """Whole cores, at least 1. ``quota`` is what cpu.max says: microseconds of CPU (or ``max``) in so many of time."""
    allowed, _, period = (quota or "max").strip().partition(" ")
    if allowed != "max":
        cores = min(cores, int(allowed) // int(period))
    return max(1, min(cores, MOST))


def alone(wanted: Processes, cores: int) -> int:
    """For ``serve`` or ``work``, which has the machine for itself."""
    return wanted if isinstance(wanted, int) else cores


def shared(apis: Processes, workers: Processes, cores: int) -> tuple[int, int]:
    """API and worker processes for ``up``, which runs both on one machine.

    A delivery costs its worker a little more than its event costs the API, so the workers get the odd core. Where one
    of the two numbers is given, the other half takes what is left.
    """
    if isinstance(apis, int):
        return apis, workers if isinstance(workers, int) else max(1, cores - apis)
    if isinstance(workers, int):
        return max(1, cores - workers), workers
    half = max(1, cores // 2)
    return half, max(1, cores - half)
