"""The way to the server that takes writes, among those of the URL, and past whatever pools connections in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

TRANSACTIONS = 3
"""By which it shows whether a connection keeps its server process."""


class SharedSessions(asyncpg.InterfaceError):
    """A pooler gives each transaction another server process. The message names the remedy."""


def servers(url: str) -> list[str]:
    """The URL once for each server that it names, as the driver wants it: without SQLAlchemy's driver name."""
    for prefix in ("postgresql+asyncpg://", "postgres://"):
        url = url.replace(prefix, "postgresql://", 1) if url.startswith(prefix) else url
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=login + at + host)) for host in hosts.split(",")]


async def connect(known: list[str], patience: float, **options: Any) -> asyncpg.Connection:
    """A connection to the first of the servers that takes writes; from then on it is asked first.

    A machine that is off says nothing, so each server has its part of the ``patience``, in seconds.

    Raises what the driver raises for the last of them: OSError, asyncpg.PostgresError or asyncpg.InternalClientError.
    """
    reason: Exception = LookupError("no server is named")
    for server in list(known):
        try:
            found: asyncpg.Connection = await asyncpg.connect(
                server, timeout=patience / len(known), target_session_attrs=SessionAttribute.read_write, **options
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
            reason = error
        else:
            known.sort(key=server.__ne__)
            return found
    raise reason


async def expect_sessions(connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
    """
    Raises:
        SharedSessions: two connections had the same server process, or one had several.
    """
    connections = [await connect(), await connect()]
    processes: list[set[int]] = [set(), set()]
    try:
        for _ in range(TRANSACTIONS):
            for connection, seen in zip(connections, processes, strict=True):
                async with connection.transaction():
                    seen.add(await connection.fetchval("SELECT pg_backend_pid()"))
    finally:
        for connection in connections:
            connection.terminate()
    if sum(map(len, processes)) > len(processes) or processes[0] & processes[1]:
        raise SharedSessions(
            "a connection pooler gives each transaction another session: set pool_mode = session for this database "
            "(PgBouncer), or let DATABASE_URL name PostgreSQL itself"
        )
