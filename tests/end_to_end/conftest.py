"""A worker in this process, real partners over real sockets, real Postgres."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

import asyncpg
import pytest
import uvloop
from uuid_utils.compat import uuid7

from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.delivery.worker import Worker
from webhook_gateway.intake.events import NewEvent, prepare
from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.sender import Sender
from webhook_gateway.rules import signing
from webhook_gateway.settings import Settings
from webhook_gateway.store import configuration, keyring, outbox, tenants
from webhook_gateway.store.database import Database
from webhook_gateway.store.notifications import CONFIGURATION, OUTBOX, notify


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The exchange is tested on both event loops, since each has transports of its own."""
    plain = {"asyncio": asyncio.new_event_loop}
    return {**plain, "uvloop": uvloop.new_event_loop} if item.path.name == "test_http1.py" else plain


Answer = Callable[["Received"], Awaitable[bytes]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as a partner saw it; ``at`` is in seconds of monotonic time."""

    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Partner:
    """A server of a partner: answers by turns, and remembers what it got and how much at once."""

    url: str = ""
    answers: list[Answer | bytes] = field(default_factory=list)
    otherwise: Answer | bytes = OK
    received: list[Received] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def got(self, count: int, seconds: float = 20.0) -> list[Received]:
        """What it has received, once that is at least ``count``."""
        async with asyncio.timeout(seconds), self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= count)
        return self.received

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self.connections.add(connection)
        connection.add_done_callback(self.connections.discard)

    async def close(self) -> None:
        connections = list(self.connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
                body = await reader.readexactly(int(headers["content-length"]))
                await self._answer(Received(headers, body, monotonic()), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, received: Received, writer: asyncio.StreamWriter) -> None:
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        async with self.arrived:
            self.received.append(received)
            self.arrived.notify_all()
        answer = self.answers.pop(0) if self.answers else self.otherwise
        try:
            writer.write(answer if isinstance(answer, bytes) else await answer(received))
        finally:
            self.busy -= 1
        await writer.drain()


def status(code: int, *headers: str) -> bytes:
    """An answer with that status and no body."""
    return "\r\n".join([f"HTTP/1.1 {code} Whatever", "content-length: 0", *headers, "", ""]).encode()


@dataclass
class Road:
    """A hospital, its partners, and workers."""

    database: Database
    vault: Vault
    settings: Settings
    tenant_id: UUID
    subscriber_id: UUID

    @asynccontextmanager
    async def worker(self, **changes: object) -> AsyncIterator[Worker]:
        settings = self.settings.model_copy(update=changes)
        sender, stopping = Sender(policy_from(settings)), asyncio.Event()
        worker = Worker(settings, self.database, self.vault, sender, stopping)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            stopping.set()
            await running
            await sender.aclose()

    async def endpoint(self, url: str, *patterns: str, secret: str | None = None, **columns: object) -> UUID:
        """An endpoint as the API makes it; ``columns`` are further ones of its row."""
        endpoint_id = uuid7()
        names = ["id", "tenant_id", "subscriber_id", "url", "event_types", *columns]
        values = [endpoint_id, self.tenant_id, self.subscriber_id, url, list(patterns) or ["*"], *columns.values()]
        async with self.database.connection() as connection:
            await connection.execute(
                f"INSERT INTO endpoints ({', '.join(names)}) "
                f"VALUES ({', '.join(f'${n}' for n in range(1, len(names) + 1))})",
                *values,
            )
        await self.secret(endpoint_id, secret or signing.render_secret(os.urandom(32)))
        return endpoint_id

    async def secret(self, endpoint_id: UUID, secret: str) -> None:
        """One more live secret."""
        secret_id = uuid7()
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO endpoint_secrets (id, tenant_id, endpoint_id, secret) VALUES ($1, $2, $3, $4)",
                secret_id,
                self.tenant_id,
                endpoint_id,
                self.vault.seal(self.tenant_id, "endpoint_secrets", secret_id, secret.encode()),
            )
        await self.change("SELECT 1")

    async def change(self, statement: str, *values: object) -> None:
        """A change of configuration, with its notification."""
        async with self.database.connection() as connection, connection.transaction():
            await connection.execute(statement, *values)
            await configuration.changed(connection)
        await notify(self.database, CONFIGURATION)

    async def post(self, count: int = 1, *, key: str | None = None, type: str = "lab_result.final") -> list[UUID]:
        events = [
            prepare(
                self.vault, self.tenant_id, NewEvent(type, json.dumps({"n": n}).encode(), {}, ordering_key=key), None
            )
            for n in range(count)
        ]
        async with self.database.connection() as connection:
            await outbox.append(connection, events)
        await notify(self.database, OUTBOX)
        return [event.id for event in events]

    async def rows(self, query: str, *values: object) -> list[asyncpg.Record]:
        async with self.database.connection() as connection:
            return list(await connection.fetch(query, *values))

    async def until(self, query: str, *values: object, seconds: float = 20.0) -> list[asyncpg.Record]:
        """The rows of the query, once it has any."""
        async with asyncio.timeout(seconds):
            while not (rows := await self.rows(query, *values)):  # noqa: ASYNC110 - a row gives no signal
                await asyncio.sleep(0.01)
        return rows


@pytest.fixture
async def road(database_url: str) -> AsyncIterator[Road]:
    key = os.urandom(32)
    settings = Settings(
        database_url=database_url,
        development=True,
        master_keys="test:" + base64.b64encode(key).decode(),
        log_level="error",
    )
    database, vault, subscriber_id = Database(database_url, connections=10), Vault(MasterKeys({"test": key})), uuid7()
    async with database.connection() as connection:
        tenant_id = await tenants.make(connection, vault)
        await connection.execute(
            "INSERT INTO subscribers (id, tenant_id, name) VALUES ($1, $2, 'Laboratory')", subscriber_id, tenant_id
        )
    await keyring.fill(database, vault)
    yield Road(database, vault, settings, tenant_id, subscriber_id)
    await database.close()


@pytest.fixture
async def open_partner() -> AsyncIterator[Callable[..., Awaitable[Partner]]]:
    """Opens partners' servers: ``await open_partner(status(503), status(503))`` fails twice, then accepts."""
    servers: list[tuple[asyncio.Server, Partner]] = []

    async def opened(*answers: Answer | bytes, otherwise: Answer | bytes = OK) -> Partner:
        partner = Partner(answers=list(answers), otherwise=otherwise)
        server = await asyncio.start_server(partner.serve, "127.0.0.1", 0)
        servers.append((server, partner))
        partner.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        return partner

    yield opened
    for server, partner in servers:
        server.close()
        await partner.close()
