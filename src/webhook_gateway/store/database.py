"""Connections to Postgres: a pool for the hot statements of the pipeline, and SQLAlchemy for everything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from . import primary
from .clock import Clock
from .pool import Pool

Connection = asyncpg.Connection

FULL_SCAN = 15.0
"""Seconds that a full scan may take: while an old transaction is open it walks over everything that was sent since."""
COMMIT_AS_SAID = """set_config('synchronous_commit',
    CASE WHEN coalesce(current_setting('webhook_gateway.fan_out_synchronous_commit', true), '') IN ('', 'off')
    THEN 'off' ELSE current_setting('synchronous_commit') END, true) <> ''"""
"""SQL: the commit of a fan-out doesn't wait for the disk, unless its operator says so
(docs/decisions/0021-fan-out-need-not-wait-for-the-disk.md)."""
FLUSHED = "SET LOCAL synchronous_commit TO DEFAULT"
"""It does, after all: what a crash takes couldn't be made again as it was."""

READERS = 3
"""Connections of a process for lists and statistics."""


class DatabaseUnavailable(Exception):
    """The database can't be reached or didn't answer in time. Whether a write happened may be unknown: ask again."""


class StatementTimedOut(DatabaseUnavailable):
    """The database could be reached, but a statement took longer than it may: a lock, a plan, a disk that is busy."""


UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""What the driver raises when Postgres is gone, full, starting, stopping, silent, a standby, wants another password, or
broke a deadlock: ask again."""

NAME = {"application_name": "webhook-gateway"}
"""All that the startup packet asks for: a connection pooler refuses one that asks for more."""

SESSION = {
    # A machine that is cut off can't say so. Postgres asks after half a minute of silence, and ends what nobody answers
    # for after another: by the system's own defaults it would keep a dead machine's locks for two hours.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # A plan that is kept is one for tables as they were. Outside the hot statements planning costs nothing that counts.
    "plan_cache_mode": "force_custom_plan",
}

HOT = {
    **SESSION,
    "jit": "off",
    # One plan each, which can't be another: the planner by itself keeps what it made while the table was empty, and a
    # settle then reads all that is open for each of its rows (docs/decisions/0014-rows-by-probe-and-place.md).
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""For hot statements."""

TURN = 0.05
"""Seconds for which one that asks again and again waits for another."""


class Database:
    """Both ways into one Postgres. Everything opens lazily, so a process can start before its database.

    ``patience`` bounds, in seconds, how long a statement or a wait for a connection may take. Half of it is how long
    Postgres waits for the next statement of a transaction of the pipeline. Changes have four times as long, and lists
    `READERS` connections of their own; ``alike``, they share connections and bounds.
    """

    def __init__(self, url: str, *, connections: int = 8, patience: float = 4.0, alike: bool = False) -> None:
        self._servers = primary.servers(url)
        self._connections = connections
        self._patience = patience
        self._readers, self._changes_within = (connections, patience) if alike else (READERS, 4 * patience)
        self._pool: Pool | None = None
        self._left: set[Pool] = set()
        self._has_sessions = False
        """Whatever pools connections before Postgres leaves each of ours its session."""
        self._engines: dict[float, AsyncEngine] = {}
        self._turn = asyncio.Lock()
        self.clock = Clock()

    def connection(self) -> _Borrowed:
        """A driver's connection for the hot statements, outside any transaction.

        Raises:
            StatementTimedOut: what it was used for took too long.
            DatabaseUnavailable: no connection could be had, or it broke while it was used.
        """
        pool = self._pool = self._pool or Pool(self._connect_hot, self._connections)
        return _Borrowed(pool, self._patience, self._leave)

    @asynccontextmanager
    async def in_turn(self) -> AsyncIterator[Connection]:
        """As `connection`, for what is asked again and again though nothing happens: for a moment one of them waits for
        another, so that one process of the server wakes up for all."""
        waited = False
        with suppress(TimeoutError):
            async with asyncio.timeout(TURN):
                waited = await self._turn.acquire()
        try:
            async with self.connection() as connection:
                yield connection
        finally:
            if waited:
                self._turn.release()

    def opened_at(self, connection: Connection) -> float:
        """When a connection for hot statements was, by monotonic time; infinite where there are newer ones only."""
        return inf if self._pool is None else self._pool.opened_at(connection)

    def prefer(self, connection: Connection) -> None:
        """It is to be used before all others for hot statements, as long as it lasts."""
        if self._pool is not None:
            self._pool.first = connection

    def prefers(self, connection: Connection) -> bool:
        """Whether no other is to be used before it."""
        first = None if self._pool is None else self._pool.first
        return first is None or first is connection or first.is_closed()

    async def expect_writable(self) -> None:
        """
        Raises:
            DatabaseUnavailable: it can't be reached, or takes no writes.
        """
        async with self.connection() as connection:
            if await connection.fetchval("SELECT current_setting('transaction_read_only')") == "on":
                raise asyncpg.ReadOnlySQLTransactionError

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction for configuration; commits at the end.

        Raises:
            DatabaseUnavailable: no connection could be had, or it broke while it was used.
        """
        async with self._transaction(self._connections, self._changes_within) as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction for lists and statistics, which have `READERS` connections of their own: however many are asked
        for, changes don't wait for them. Postgres ends a statement of theirs after ``patience``.

        Raises:
            DatabaseUnavailable: no connection could be had, it broke while it was used, or a statement took too long.
        """
        async with self._transaction(self._readers, self._patience) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, most: int, patience: float) -> AsyncIterator[AsyncConnection]:
        if patience not in self._engines:
            self._engines[patience] = create_async_engine(
                "postgresql+asyncpg://",
                async_creator=partial(self._connect, patience),
                pool_size=most,
                max_overflow=0,
                pool_timeout=self._patience,
                pool_pre_ping=True,
            )
            event.listen(self._engines[patience].sync_engine, "handle_error", _leave_standby)
        try:
            async with self._engines[patience].begin() as connection:
                yield connection
        except (*UNAVAILABLE, PoolTimeout) as error:
            raise _unavailable(error) from error
        except DBAPIError as error:
            if error.connection_invalidated or isinstance(_driver_error(error), UNAVAILABLE):
                raise DatabaseUnavailable(type(error.orig).__name__) from error
            raise

    async def connect(self) -> asyncpg.Connection:
        """A connection of one's own, outside the pool, for listening to notifications.

        Raises:
            DatabaseUnavailable: no connection could be had.
        """
        try:
            return await self._connect(self._patience)
        except UNAVAILABLE as error:
            raise _unavailable(error) from error

    async def close(self) -> None:
        for pool in (self._pool, *self._left):
            if pool is not None:
                pool.terminate()
        for engine in self._engines.values():
            await engine.dispose()

    async def _connect(self, patience: float) -> asyncpg.Connection:
        """``patience`` is what a statement may take: Postgres ends it, and if that is not heard, so does the driver."""
        connection = await self._to_primary(command_timeout=patience + 1)
        await self._prepare(connection, {**SESSION, "statement_timeout": f"{patience * 1_000:.0f}"})
        return connection

    async def _connect_hot(self) -> asyncpg.Connection:
        connection = await self._to_primary(command_timeout=self._patience)
        # Fan-out holds a lock: who is cut off in it must not keep it from all others.
        cut_off = f"{self._patience * 500:.0f}"
        await self._prepare(connection, {**HOT, "idle_in_transaction_session_timeout": cut_off})
        return connection

    def _leave(self, pool: Pool) -> None:
        """Its other connections are where this one is: perhaps nobody answers there. Those in use may go on."""

        def close() -> None:
            pool.close()
            self._left.discard(pool)

        if pool is self._pool:
            self._pool = None
            self._left.add(pool)
            asyncio.get_running_loop().call_later(self._patience, close)  # whoever waits for one has it by then

    async def _to_primary(self, **options: Any) -> asyncpg.Connection:
        return await primary.connect(self._servers, self._patience, server_settings=NAME, **options)

    async def _prepare(self, connection: asyncpg.Connection, settings: Mapping[str, str]) -> None:
        """Sets the session up, once it is one: a pooler shows by telling another process than that which answers."""
        statements = [f"SET {name} = '{value}'" for name, value in settings.items()]
        statements.append(f"SELECT WHERE pg_backend_pid() <> {connection.get_server_pid()}")
        try:
            if await connection.execute("; ".join(statements)) != "SELECT 0" and not self._has_sessions:
                await primary.expect_sessions(partial(self._to_primary, statement_cache_size=0))
                self._has_sessions = True
        except BaseException:
            connection.terminate()
            raise


def is_cancelled() -> bool:
    """Whether this task has been told to end: what breaks while it ends may have taken the cancellation's place."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _unavailable(error: Exception) -> DatabaseUnavailable:
    return DatabaseUnavailable(str(error) if isinstance(error, primary.SharedSessions) else type(error).__name__)


class _Borrowed:
    """A connection of the pool while it is used: a generator would cost as much as the rest of its way."""

    __slots__ = ("_connection", "_leave", "_patience", "_pool")

    def __init__(self, pool: Pool, patience: float, leave: Callable[[Pool], None]) -> None:
        self._pool, self._patience, self._leave = pool, patience, leave

    async def __aenter__(self) -> Connection:
        try:
            self._connection = await self._pool.acquire(self._patience)
        except UNAVAILABLE as error:
            raise _unavailable(error) from error
        return self._connection

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, TimeoutError | asyncio.CancelledError):
            self._pool.release(self._connection)
        else:
            await asyncio.shield(self._pool.release_cut_off(self._connection, self._patience / 4))
        if isinstance(error, TimeoutError | asyncpg.ReadOnlySQLTransactionError):
            self._leave(self._pool)
        if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
            raise StatementTimedOut(type(error).__name__) from error
        # What the driver calls a DataError is a bug of ours, not an absence.
        if isinstance(error, UNAVAILABLE) and not isinstance(error, ValueError):
            raise _unavailable(error) from error


def _leave_standby(context: ExceptionContext) -> None:
    """All connections of the pool are where one is that takes no writes."""
    if isinstance(context.original_exception.__cause__, asyncpg.ReadOnlySQLTransactionError):
        context.is_disconnect = True


def _driver_error(error: DBAPIError) -> BaseException | None:
    return error.orig.__cause__ if error.orig is not None else None
