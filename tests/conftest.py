"""The database fixtures: one PostgreSQL for the run, one migrated template, and a copy of it for each test that asks.

DATABASE_URL in the environment points the tests at another server; its account must be allowed to create databases.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from webhook_gateway.host.embedded_postgres import EmbeddedPostgres
from webhook_gateway.store import migrate
from webhook_gateway.store.database import plain


@dataclass(frozen=True, slots=True)
class OtherPostgres:
    """A server that runs whether we test or not."""

    url: str


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres | OtherPostgres]:
    """The server of this run; its `url` is that of the maintenance database."""
    if url := os.environ.get("DATABASE_URL"):
        yield OtherPostgres(plain(url))
        return
    # Not pytest's own temporary directory: as root the server runs as another account, which could not reach it.
    directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-test-"))
    try:
        with EmbeddedPostgres.start(directory, die_with_parent=True) as server:
            yield server
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres | OtherPostgres) -> Iterator[str]:
    """The name of a database with the newest schema and nothing else in it."""
    name = f"webhook_gateway_template_{os.getpid()}"
    # In a thread of its own, which has no event loop that theirs could get in the way of.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _execute(postgres.url, f'CREATE DATABASE "{name}"')).result()
        try:
            thread.submit(migrate.upgrade, _url_of(postgres.url, name)).result()
            yield name
        finally:
            drop = _execute(postgres.url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            thread.submit(asyncio.run, drop).result()


_serial = count(1)


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres | OtherPostgres, template: str) -> AsyncIterator[str]:
    """The URL of a freshly migrated database which this test has for itself."""
    name = f"webhook_gateway_test_{os.getpid()}_{next(_serial)}"
    # Copying files is twice as fast as logging them, for a schema without rows.
    await _execute(postgres.url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    try:
        yield _url_of(postgres.url, name)
    finally:
        await _execute(postgres.url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _url_of(server: str, database: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{database}"))
