"""How long a process goes on working when others wait for its processor."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from struct import pack

LONG = 100_000_000
"""Nanoseconds: the longest turn that Linux gives to a process which is like all others. Its default is some 3 ms."""
_SET = {"x86_64": 314, "aarch64": 274}
"""The system call sched_setattr(2), which not every C library has, by machine."""


def take_long_turns() -> None:
    """The calling thread takes longer turns: it gets as much as before, and whoever wakes up beside it goes first.

    That suits a worker, whose neighbours have answers to give. Linux heeds it since 6.12, other systems never.
    """
    with suppress(OSError, AttributeError, KeyError):  # another system or machine, or a container that forbids it
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return  # somebody has chosen otherwise
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        # struct sched_attr: size, policy, flags, nice, priority, runtime (the turn), deadline, period
        attributes = pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, nice, 0, LONG, 0, 0)
        ctypes.CDLL(None).syscall(_SET[platform.machine()], 0, attributes, 0)
