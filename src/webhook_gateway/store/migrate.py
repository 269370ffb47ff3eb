"""Bring a database to the newest schema, from a checkout or from an installed wheel; needs no alembic.ini.

The functions are synchronous since Alembic is; inside an event loop, call them with `asyncio.to_thread`.
"""

import asyncio
import io
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from . import partitions, primary

MIGRATION_LOCK: Final = 7_709_146_402_251_864_931
"""The advisory lock that one migrator holds. Any number will do, as long as nobody else in the database uses it."""

T = TypeVar("T")

_one_at_a_time = threading.Lock()  # Alembic keeps the migration under way in module globals

_BETWEEN_TRIES_SECONDS: Final = 0.1
PATIENCE: Final = 30.0
"""Seconds in which one of the database's servers has to take the connection."""


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate the database at `url` up to `revision`, and make the partitions of the days to come.

    Does nothing if all is there already.

    Migrators that start at the same time take turns. A statement waits at most ten seconds for a table that the running
    gateway uses, and then fails rather than hold everybody up: try again.

    Raises the driver's error (OSError, asyncpg.PostgresError or SQLAlchemy's DBAPIError around it) if it can't be done.
    """
    with _one_at_a_time:
        command.upgrade(_config(url), revision)
    if revision == "head":
        asyncio.run(_make_partitions(url))


def current(url: str) -> str | None:
    """The revision which the database at `url` has; None for one that has never been migrated."""
    return asyncio.run(run_on(url, lambda connection: MigrationContext.configure(connection).get_current_revision()))


def head() -> str:
    """The newest revision that this version of the gateway brings."""
    revision = ScriptDirectory.from_config(_config("")).get_current_head()
    if revision is None:
        raise LookupError(f"There are no migrations in {migrations()}.")
    return revision


async def _make_partitions(url: str) -> None:
    """Before the first event comes, so that none has to move from the default partition later."""
    connection = await primary.connect(primary.servers(url), PATIENCE)
    try:
        with suppress(asyncpg.LockNotAvailableError):  # the gateway is at work: its workers make them
            await partitions.make_all(connection)
    finally:
        await connection.close()


async def run_on(url: str, work: Callable[[Connection], T]) -> T:
    """Do `work` on a connection of its own, closed afterwards."""
    # asyncpg reads the URL itself, so that sslmode, sslrootcert and the rest of libpq's words hold.
    connect = partial(primary.connect, primary.servers(url), PATIENCE)
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def take_lock(connection: Connection) -> None:
    """Wait until no other migrator is at work. The lock goes when the connection closes, however that happens.

    Asks again and again, since waiting inside a statement would keep a snapshot open, and the other migrator's CREATE
    INDEX CONCURRENTLY waits for all of those: both would wait for ever.
    """
    while not connection.scalar(select(func.pg_try_advisory_lock(MIGRATION_LOCK))):
        connection.rollback()
        time.sleep(_BETWEEN_TRIES_SECONDS)
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.commit()


def migrations() -> Path:
    """Where the revisions are: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "_migrations"
    return packaged if packaged.is_dir() else package.parents[1] / "migrations"


def _config(url: str) -> Config:
    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config
