"""Connections go to the server that takes writes, wherever that is now, and whatever the password is."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from tests.support.postgres import FAST, MortalPostgres
from tests.support.standby import standby_of
from webhook_gateway.store.database import Database, DatabaseUnavailable
from webhook_gateway.store.primary import servers

READ_ONLY = "SET default_transaction_read_only = on"
WRITE = "CREATE TABLE written (); DROP TABLE written"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[MortalPostgres, MortalPostgres]]:
    """A primary, and a standby of it."""
    directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-pair-"))
    directory.chmod(0o755)
    try:
        with (
            MortalPostgres.start(directory / "primary", settings=FAST, die_with_parent=True) as primary,
            standby_of(primary, directory / "standby") as standby,
        ):
            yield primary, standby
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def opened(url: str, **options: float) -> AsyncIterator[Database]:
    database = Database(url, **options)  # type: ignore[arg-type]
    try:
        yield database
    finally:
        await database.close()


async def test_connections_to_a_server_that_takes_no_writes_any_more_are_left(database_url: str) -> None:
    async with opened(database_url, connections=2) as database:
        async with database.connection() as one, database.connection() as other:
            await one.execute(READ_ONLY)
            await other.execute(READ_ONLY)
        with pytest.raises(DatabaseUnavailable):
            async with database.connection() as connection:
                await connection.execute(WRITE)
        async with database.connection() as one, database.connection() as other:
            await one.execute(WRITE)
            await other.execute(WRITE)


async def test_so_are_those_of_configuration(database_url: str) -> None:
    async with opened(database_url, connections=1) as database:
        async with database.begin() as connection:
            await connection.execute(text(READ_ONLY))
        with pytest.raises(DatabaseUnavailable):
            async with database.begin() as connection:
                await connection.execute(text("CREATE TABLE written ()"))
        async with database.begin() as connection:
            await connection.execute(text("CREATE TABLE written ()"))


async def test_a_server_without_writes_is_told(database_url: str) -> None:
    async with opened(database_url, connections=1) as database:
        await database.expect_writable()
        async with database.connection() as connection:
            await connection.execute(READ_ONLY)
        with pytest.raises(DatabaseUnavailable):
            await database.expect_writable()
        await database.expect_writable()


async def test_the_primary_is_found_among_several_servers(pair: tuple[MortalPostgres, MortalPostgres]) -> None:
    primary, standby = pair
    async with opened(standby.url) as only_standby:
        with pytest.raises(DatabaseUnavailable, match="TargetServerAttributeNotMatched"):
            await only_standby.expect_writable()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for other in (standby.port, 1, silent.getsockname()[1]):
            url = primary.url.replace(f":{primary.port}/", f":{other},127.0.0.1:{primary.port}/")
            async with opened(url) as database:
                await database.expect_writable()
                async with database.begin() as connection:
                    assert not await connection.scalar(text("SELECT pg_is_in_recovery()"))
                listening = await database.connect()
                assert listening.get_settings().in_hot_standby == "off"
                await listening.close()


async def test_another_password_is_a_database_that_is_unavailable_until_the_file_has_it(
    pair: tuple[MortalPostgres, MortalPostgres], tmp_path: Path
) -> None:
    primary, _ = pair
    passwords = tmp_path / "pgpass"

    def write(password: str) -> None:
        passwords.write_text(f"*:*:*:gateway:{password}\n")
        passwords.chmod(0o600)

    async def begin(database: Database) -> None:
        async with database.begin():
            pass

    async def connect(database: Database) -> None:
        await (await database.connect()).close()

    ways: list[Callable[[Database], Awaitable[None]]] = [Database.expect_writable, begin, connect]
    administrator = await asyncpg.connect(primary.url)
    try:
        await administrator.execute("CREATE ROLE gateway LOGIN PASSWORD 'first'")
        write("first")
        async with opened(f"postgresql://gateway@127.0.0.1:{primary.port}/postgres?passfile={passwords}") as database:
            await database.expect_writable()
            await administrator.execute(
                "ALTER ROLE gateway PASSWORD 'second'; "
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'"
            )
            for way in ways:
                with pytest.raises(DatabaseUnavailable):
                    await way(database)
            with pytest.raises(DatabaseUnavailable, match="InvalidPassword"):
                await database.expect_writable()
            write("second")
            for way in ways:
                await way(database)
    finally:
        await administrator.execute("DROP ROLE IF EXISTS gateway")
        await administrator.close()


def test_each_server_of_a_url_is_asked_by_itself() -> None:
    assert servers("postgresql+asyncpg://a:b@one:1,[::2]:2/c?passfile=d") == [
        "postgresql://a:b@one:1/c?passfile=d",
        "postgresql://a:b@[::2]:2/c?passfile=d",
    ]
    assert servers("postgres://one/c") == ["postgresql://one/c"]
