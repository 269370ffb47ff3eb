"""What processes use, read from /proc: CPU seconds and peak memory of each group, and what strangers took meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU seconds so far: by group, of this bench with all that it started, and of the whole machine (all cores)."""

    at: float
    groups: Mapping[str, float]
    own: float
    busy: float


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds between two samples. ``others`` is the mean number of cores that processes not ours kept busy."""

    seconds: float
    groups: Mapping[str, float]
    others: float


def sample(groups: Mapping[str, Iterable[int]]) -> Sample:
    """``groups`` are process ids; a process counts with its children, those that have ended, too."""
    children = _children()
    used = {name: sum(_cpu(pid, children) for pid in pids) for name, pids in groups.items()}
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
    busy = (user + nice + system + irq + softirq + steal) / TICK
    return Sample(time.monotonic(), used, _cpu(os.getpid(), children), busy)


def between(first: Sample, last: Sample) -> Used:
    seconds = last.at - first.at
    groups = {name: last.groups[name] - first.groups[name] for name in first.groups}
    others = (last.busy - first.busy) - (last.own - first.own)
    return Used(seconds, groups, max(0.0, others / seconds))


def peak_megabytes(pid: int) -> float:
    """The most memory that a process and its children ever held (resident, each by itself, added)."""
    total = 0.0
    for member in _family(pid, _children()):
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{member}/status").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return total


def _cpu(pid: int, children: Mapping[int, list[int]]) -> float:
    total = 0
    for member in _family(pid, children):
        with suppress(OSError, ValueError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(") ")[2].split()
            total += sum(int(field) for field in fields[11:15])  # its own, and its ended children's
    return total / TICK


def _family(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    return [pid, *(member for child in children.get(pid, ()) for member in _family(child, children))]


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
                found.setdefault(parent, []).append(int(entry.name))
    return found
