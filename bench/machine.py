"""What processes use, as the kernel counts: CPU, wake-ups and peak memory of each group, and what strangers took."""

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
    wakeups: Mapping[str, int]
    own: float
    busy: float


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds between two samples. ``others`` is the mean number of cores that processes not ours kept busy.

    ``wakeups`` are voluntary context switches: how often a thread of the group waited for something.
    """

    seconds: float
    groups: Mapping[str, float]
    wakeups: Mapping[str, int]
    others: float


def sample(groups: Mapping[str, Iterable[int]]) -> Sample:
    """``groups`` are process ids; a process counts with its children, those that have ended, too."""
    children = _children()
    used = {name: sum(_cpu(pid, children) for pid in pids) for name, pids in groups.items()}
    wakeups = {name: sum(_wakeups(pid, children) for pid in pids) for name, pids in groups.items()}
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
    busy = (user + nice + system + irq + softirq + steal) / TICK
    return Sample(time.monotonic(), used, wakeups, _cpu(os.getpid(), children), busy)


def between(first: Sample, last: Sample) -> Used:
    seconds = last.at - first.at
    groups = {name: last.groups[name] - first.groups[name] for name in first.groups}
    wakeups = {name: last.wakeups[name] - first.wakeups[name] for name in first.groups}
    others = (last.busy - first.busy) - (last.own - first.own)
    return Used(seconds, groups, wakeups, max(0.0, others / seconds))


def peak_megabytes(pid: int) -> float:
    """The most memory that a process and its children ever held (resident, each by itself, added)."""
    total = 0.0
    for member in _family(pid, _children()):
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{member}/status").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return total


def _cpu(pid: int, children: Mapping[int, list[int]]) -> float:
    total = 0.0
    for member in _family(pid, children):
        with suppress(OSError, ValueError):
            total += time.clock_gettime((~member << 3) | 2)  # clock_getcpuclockid(3): to the nanosecond
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(") ")[2].split()
            total += sum(int(field) for field in fields[13:15]) / TICK  # its ended children's
    return total


def _wakeups(pid: int, children: Mapping[int, list[int]]) -> int:
    total = 0
    for member in _family(pid, children):
        with suppress(OSError):
            for status in Path(f"/proc/{member}/task").glob("*/status"):
                total += int(status.read_text().rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total


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


def children_of(pid: int) -> dict[int, str]:
    """The command lines of a process's children, by their process ids."""
    found = {}
    for child in _children().get(pid, []):
        with suppress(OSError):
            found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ").strip()
    return found
