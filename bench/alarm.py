"""When what comes by chance is due, to some microseconds: timers of the event loop have a grain of a millisecond."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

GRAIN = 250_000
"""Nanoseconds at least between two rings: what is due within is handled together."""

_TFD_TIMER_ABSTIME = 1  # timerfd_create(2)
_libc = ctypes.CDLL(None, use_errno=True)


async def arrive(begun: int, rate: float, seconds: float, seed: int, each: Callable[[int, int], None]) -> None:
    """Calls ``each(due, now)`` for arrivals by chance (Poisson), on a schedule that nothing slows down.

    The same seed is the same schedule. ``begun``, ``due`` and ``now`` are monotonic nanoseconds.
    """
    chance, until = random.Random(seed), begun + int(seconds * 1e9)
    due = begun + int(chance.expovariate(rate) * 1e9)
    with Alarm() as alarm:
        while due < until:
            now = time.monotonic_ns()
            while due <= now and due < until:
                each(due, now)
                due += int(chance.expovariate(rate) * 1e9)
            await alarm.at(min(until, max(due, now + GRAIN)))


class Alarm:
    """A timer of the kernel (timerfd_create(2)) on the running event loop."""

    def __init__(self) -> None:
        self._descriptor = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "no timer")
        self._rang = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._descriptor, self._ring)

    async def at(self, when: int) -> None:
        """Returns at that time (monotonic nanoseconds), or at once where it is over."""
        self._rang.clear()
        once = struct.pack("4q", 0, 0, *divmod(when, 1_000_000_000))
        _libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, once, None)
        await self._rang.wait()

    def _ring(self) -> None:
        os.read(self._descriptor, 8)
        self._rang.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
