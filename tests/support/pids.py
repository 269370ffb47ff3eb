"""Processes that are no children of ours: found, and waited for."""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


def children_of(parent: int) -> list[int]:
    """Of one process, now. /proc/<pid>/stat is used since, unlike most of /proc, everybody may read it."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state ppid …, where the name may hold anything (proc_pid_stat(5))
            fields = re.match(r"(\d+) \(.*\) \S (\d+)", stat.read_text(errors="replace"), re.DOTALL)
            if fields is not None and int(fields[2]) == parent:
                found.append(int(fields[1]))
    return found


@contextlib.contextmanager
def watched(pids: Sequence[int]) -> Iterator[Callable[[float], None]]:
    """Takes hold of processes; what it gives waits up to so many seconds until all of them have ended.

    Raises:
        TimeoutError: one of them had not.
    """
    with contextlib.ExitStack() as handles:
        ends = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                handles.callback(os.close, handle)
                ends.append(handle)

        def wait_until_gone(seconds: float) -> None:
            deadline = time.monotonic() + seconds
            for handle in ends:
                readable, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
                if not readable:
                    raise TimeoutError("a process did not end")

        yield wait_until_gone
