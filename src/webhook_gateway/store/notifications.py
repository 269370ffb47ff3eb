"""NOTIFY and LISTEN between processes. It only shortens a wait: whoever waits polls, too: that is the truth."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from uuid import uuid4

from webhook_gateway import telemetry

from . import advisory_locks
from .database import UNAVAILABLE, Connection, Database, DatabaseUnavailable, is_cancelled

CHANNEL = "webhook_gateway"
API_CHANNEL = "webhook_gateway_api"
"""For what API processes listen to: were it the other, each event would wake them, too."""
OUTBOX = "outbox"
DELIVERIES = "deliveries"
CONFIGURATION = "configuration"
STATS = "stats"
"""Attempts were counted."""
FOR_API = frozenset({CONFIGURATION, STATS})
GAP = 0.005
"""Seconds between two notifications of one process: NOTIFY takes a lock on the whole database while it commits."""

ASK_AFTER = 30.0
"""Seconds after which a listening connection is asked whether it is still one: nothing else is ever sent on it."""
ANSWER = 5.0


NOTIFY = """
-- notify: with no need to wait for the disk, since what is told of has been committed
SELECT set_config('synchronous_commit', 'off', true), pg_notify(channel, $2) FROM unnest($1::text[]) channel
"""

HEAR_ALL = "NOTIFY {}"
"""Whoever listens to it hears before its answer all that was committed before: else a transaction's locks are gone a
moment before anybody is told what it said."""


async def notify(database: Database, what: str) -> None:
    """Tells every process, after the commit and outside any transaction. Lost where there is no database: no harm."""
    channels = [CHANNEL, API_CHANNEL] if what in FOR_API else [CHANNEL]
    with contextlib.suppress(DatabaseUnavailable):
        async with database.connection() as connection:
            await connection.execute(NOTIFY, channels, what)


class Heard(asyncio.Event):
    """Set by notifications; keeps all that they said, but for what is done ``at_once``, which says whether it is."""

    def __init__(self, at_once: Callable[[str], bool] = lambda _: False) -> None:
        super().__init__()
        self._words: list[str] = []
        self._at_once = at_once

    def tell(self, words: str) -> None:
        if self._words or not self._at_once(words):
            self._words.append(words)
            super().set()

    def take(self) -> list[str]:
        """What was said since the last time."""
        words, self._words = self._words, []
        return words


class Told(Heard):
    """Keeps up to so many words, and none once somebody has set it without any."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._is_all = False

    def set(self) -> None:
        self._is_all = False
        super().set()

    def tell(self, words: str) -> None:
        if len(self._words) < self._most:
            super().tell(words)
        else:
            self.set()

    def take(self) -> list[str]:
        """What was said since the last time; nothing where that isn't all that it was set for."""
        words = super().take()
        is_all, self._is_all = self._is_all, True
        return words if is_all else []


class OwnChannel:
    """A channel on which this process alone listens; it has no ``name`` while nobody does. By the same name the session
    that listens has a lock: who can have the lock instead knows that what it would say is not heard."""

    def __init__(self) -> None:
        self.name: str | None = None

    async def open(self, connection: Connection, hear: Callable[..., None]) -> None:
        name = f"{CHANNEL}_{uuid4().hex}"
        await advisory_locks.try_lock(connection, name)
        await connection.add_listener(name, hear)
        self.name = name

    async def close(self, connection: Connection) -> None:
        """Afterwards all that was said has been heard."""
        name, self.name = self.name, None
        if name is not None and not connection.is_closed():
            with contextlib.suppress(*UNAVAILABLE):
                await advisory_locks.unlock(connection, name)
                await connection.execute(f"{advisory_locks.AFTER_APPENDS}; {HEAR_ALL.format(name)}", timeout=ANSWER)


class Notifier:
    """Sends notifications of one kind, however often it is asked to: the next one `GAP` after the last, or later."""

    def __init__(self, database: Database, what: str) -> None:
        self._database = database
        self._what = what
        self._asked = asyncio.Event()
        self._gap = GAP

    def ask(self, gap: float = GAP) -> None:
        """``gap`` is seconds until the one after it."""
        self._gap = gap
        self._asked.set()

    async def run(self) -> None:
        while not is_cancelled():
            await self._asked.wait()
            self._asked.clear()
            try:
                await notify(self._database, self._what)
            except Exception as error:
                telemetry.notifications_interrupted(error)  # who waits for it polls as well
            await asyncio.sleep(self._gap)


async def listen(
    database: Database,
    heard: Mapping[str, asyncio.Event],
    channel: str = CHANNEL,
    own: OwnChannel | None = None,
    *,
    beside: bool = False,
) -> None:
    """Sets the event of each notification that arrives, for ever; connects again when the connection breaks.

    ``beside``: on the connection that this process uses first for everything else. Postgres wakes every session that
    listens for each event that is stored, but the one that stores it is awake.
    """
    once = partial(_listen_beside if beside else partial(_listen_apart, own), database, heard, channel)
    while not is_cancelled():
        try:
            await once()
        except Exception as error:
            telemetry.notifications_interrupted(error)
        await asyncio.sleep(1.0)


async def _listen_beside(database: Database, heard: Mapping[str, asyncio.Event], channel: str) -> None:
    async with database.connection() as connection:
        broken = await _hear(connection, heard, channel)
        database.prefer(connection)
    await broken.wait()  # all others would notice sooner than we


async def _listen_apart(
    own: OwnChannel | None, database: Database, heard: Mapping[str, asyncio.Event], channel: str
) -> None:
    connection = await database.connect()
    try:
        broken = await _hear(connection, heard, channel, own)
        while not await _within(broken, ASK_AFTER):
            await connection.fetchval("SELECT 1", timeout=ANSWER)  # or whoever is between us has forgotten us
    finally:
        if own is not None:
            await own.close(connection)
        connection.terminate()


async def _hear(
    connection: Connection, heard: Mapping[str, asyncio.Event], channel: str, own: OwnChannel | None = None
) -> asyncio.Event:
    """Is set when the connection ends."""
    broken = asyncio.Event()
    connection.add_termination_listener(lambda *_: broken.set())

    def hear(_connection: object, _pid: int, _channel: str, what: object) -> None:
        kind, _, words = str(what).partition(" ")
        match heard.get(kind):
            case Heard() as told if words:
                told.tell(words)
            case asyncio.Event() as event:
                event.set()

    await connection.add_listener(channel, hear)
    if own is not None:
        await own.open(connection, hear)
    for event in heard.values():
        event.set()  # what was missed while nobody listened
    return broken


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
