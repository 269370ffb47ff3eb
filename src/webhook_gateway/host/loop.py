"""A stage as a loop around one round, which says how long to sleep before the next; and turns within long work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import floor
from time import monotonic

from webhook_gateway import telemetry
from webhook_gateway.store.database import DatabaseUnavailable, StatementTimedOut, is_cancelled

POLL = 1.0
"""Seconds after which a stage of a worker begins a round, notified or not."""
EVEN = 2.0
"""Seconds: longer waits end in even ones, and where nothing is open a round a second is left out."""
SELDOM = 20.0
"""Seconds, of stages for which another one looks whether there is something."""
BACKOFF = (0.2, 2.0)
"""Seconds to wait after an error: first, and at most."""
EARLY = 0.01
TURN = 0.005
"""Seconds of work without a pause after which others have their turn."""


class Loop:
    """Rounds until the stop; an error costs a wait, never the process.

    ``poll`` does one round and returns the seconds to sleep, which `wake` ends early.
    """

    def __init__(self, stage: str, poll: Callable[[], Awaitable[float]], wake: asyncio.Event | None = None) -> None:
        self.stage = stage
        self._ails_since: float | None = None
        self._poll = poll
        self._stopping = asyncio.Event()
        self.wake = wake or asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0

    def stop(self) -> None:
        """After the round that is under way."""
        self._stopping.set()
        self.wake.set()

    def ailing(self) -> float:
        """Seconds since a round began that has not ended well, nor met no database; a stage that sleeps is well."""
        if self._ails_since is None or self._stopping.is_set():
            return 0.0
        return monotonic() - self._ails_since

    async def run(self) -> None:
        patience = BACKOFF[0]
        while not self._stopping.is_set() and not is_cancelled():
            self.wake.clear()
            has_failed = False
            if self._ails_since is None:
                self._ails_since = monotonic()
            try:
                pause = await self._poll()
                patience = BACKOFF[0]
                self._ails_since = None
            except Exception as error:
                if isinstance(error, StatementTimedOut):
                    telemetry.statement_timed_out(self.stage)
                elif isinstance(error, DatabaseUnavailable):
                    telemetry.database_unavailable(self.stage, error)
                else:
                    telemetry.stage_failed(self.stage, error)
                if isinstance(error, DatabaseUnavailable):
                    self._ails_since = None
                has_failed = True
                pause, patience = patience, min(patience * 2, BACKOFF[1])
            moment = monotonic() + pause
            if pause >= POLL:  # stages wake up together; a timer may be early by a moment
                every = EVEN if pause >= EVEN else POLL
                moment = floor((moment + EARLY) / every) * every
            if has_failed:  # a notification doesn't correct that
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
            elif pause > 0:
                self._wake_at(moment)
                await self.wake.wait()

    def _wake_at(self, moment: float) -> None:
        """A timer that is set for then stays: most sleeps are ended by events, and each would else set one."""
        if self._timer is None or self._wakes_at != moment:
            if self._timer is not None:
                self._timer.cancel()
            self._wakes_at = moment
            self._timer = asyncio.get_running_loop().call_later(moment - monotonic(), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.wake.set()


class Turns:
    """Between the pieces of work that has begun with it."""

    def __init__(self) -> None:
        self._began = monotonic()

    async def give(self) -> None:
        """Lets others go on, where this one has for `TURN` seconds."""
        if monotonic() - self._began > TURN:
            await asyncio.sleep(0)
            self._began = monotonic()
