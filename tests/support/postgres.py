"""The PostgreSQL that a run of the tests has, and databases in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.support.pids import children_of, watched
from webhook_gateway.host.embedded_postgres import EmbeddedPostgres
from webhook_gateway.store.primary import servers

MANY = {"max_connections": "400"}
# What a killed process has written stays with the kernel, and no test cuts the power. Commits still wait for it.
FAST = {**MANY, "fsync": "off"}
_serial = count(1)


class MortalPostgres(EmbeddedPostgres):
    """One that is killed as the kernel would when memory is short, and comes back."""

    def kill(self) -> None:
        """kill -9 the postmaster. Returns once its children are gone, too."""
        with watched([self.process.pid, *children_of(self.process.pid)]) as wait_until_gone:
            self.process.kill()
            self.process.wait()
            wait_until_gone(60)

    def restart(self, *, immediate: bool = False) -> None:
        """Stop, unless it is down already, and start again on the same port, so `url` stays the same."""
        self.stop(immediate=immediate)
        with self._alone():
            self._launch(self.port)


@dataclass(frozen=True, slots=True)
class Server:
    """``url`` is that of its maintenance database; ``data`` is None where the server is somebody else's."""

    url: str
    data: Path | None = None

    def url_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    async def execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url, timeout=30)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @asynccontextmanager
    async def copy(self, template: str, tablespace: str = "pg_default") -> AsyncIterator[str]:
        """The URL of a database that begins as a copy of another, and goes again."""
        name = f"webhook_gateway_test_{os.getpid()}_{next(_serial)}"
        # Copying files is much faster than logging them, for a schema without rows.
        options = f'TEMPLATE "{template}" TABLESPACE "{tablespace}" STRATEGY FILE_COPY'
        await self.execute(f'CREATE DATABASE "{name}" {options}')
        try:
            yield self.url_of(name)
        finally:
            await self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextmanager
def serving(settings: Mapping[str, str] = FAST) -> Iterator[Server]:
    """DATABASE_URL's, or one of our own with these settings."""
    if url := os.environ.get("DATABASE_URL"):
        yield Server(servers(url)[0])
        return
    # Not pytest's own temporary directory: as root the server runs as another account, which could not reach it.
    directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-test-"))
    try:
        with EmbeddedPostgres.start(directory, settings=settings, die_with_parent=True) as server:
            yield Server(server.url, directory)
    finally:
        shutil.rmtree(directory)
