"""The database's time. What is due is its word, so a machine whose clock is an hour off changes nothing.

Its own clock may step: set by hand, stood still with its machine, or another server's. What is written in a wrong hour
stays for as long as the step was. So a step isn't followed before it has lasted; until then statements that are told
the time which this process goes by take nothing up, and write by that time.
"""

from __future__ import annotations

import os
from struct import unpack
from time import monotonic, time
from typing import TYPE_CHECKING
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as DriverUUID  # half the cost to make, and less to hash and to send

from webhook_gateway import telemetry

if TYPE_CHECKING:
    from .database import Connection

STEP = 60.0
"""Seconds by which the database's clock may depart from this machine's monotonic one."""
LASTS = 60.0
"""Seconds after which a step is followed."""
TICK = 5e-7

TIME = "SELECT extract(epoch FROM clock_timestamp())::float8"


def time_near(expected: str, otherwise: str | None = None) -> str:
    """SQL: the database's time, or where that isn't near to the parameter ``expected``, this or ``otherwise``."""
    is_far = f"abs(extract(epoch FROM now())::float8 - {expected}::float8) > {STEP}"
    return f"CASE WHEN {is_far} THEN {otherwise or f'to_timestamp({expected})'} ELSE now() END"


class Clock:
    """Unix seconds by the database's clock, carried on by this machine's monotonic one."""

    def __init__(self) -> None:
        self._offset = time() - monotonic()
        self._stepped: tuple[float, float] | None = None
        """The offset that it would have, and since when, by monotonic time."""
        self._latest = 0.0
        self.is_set = False
        """Until the database has told it, the time is this machine's, which may be an hour off."""
        self.steps = 0
        """That are over: it went back, or is followed."""

    def now(self) -> float:
        return self._offset + monotonic()

    def at(self, moment: float) -> float:
        """What it showed, or will show, at a moment of monotonic time."""
        return self._offset + moment

    def is_certain(self) -> bool:
        return self.is_set and self._stepped is None

    def set(self, now: float) -> None:
        offset = now - (moment := monotonic())
        if self.is_set and abs(offset - self._offset) > STEP:
            if self._stepped is None or abs(offset - self._stepped[0]) > STEP:
                self._stepped = offset, moment
                telemetry.clock_stepped(offset - self._offset)
            if moment - self._stepped[1] < LASTS:
                return
        if self._stepped is not None:
            telemetry.clock_settled(offset - self._offset)
            self._stepped, self._latest, self.steps = None, 0.0, self.steps + 1
        self._offset, self.is_set = offset, True

    async def ask(self, connection: Connection) -> None:
        self.set(await connection.fetchval(TIME))

    def new_id(self) -> UUID:
        """Higher than the one before, whatever the clock does within a minute."""
        self._latest = max(self.now(), self._latest + TICK)
        return id_at(self._latest)


async def new_id(connection: Connection) -> UUID:
    return id_at(await connection.fetchval(TIME))


def id_at(seconds: float) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7) of that time; after the milliseconds come twelve bits of their fraction."""
    if not _chances:
        _chances.extend(unpack("512Q", os.urandom(4_096)))  # a system call for each costs more than the rest
    ticks = int(seconds * 4_096_000)
    number = ticks >> 12 << 80 | 7 << 76 | (ticks & 4_095) << 64 | 2 << 62 | _chances.pop() >> 2
    return DriverUUID(number.to_bytes(16))


_chances: list[int] = []
