"""A gateway within the test's own process, and a partner with a real server: for what needs no processes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.delivery.worker import Worker
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.events import NewEvent
from webhook_gateway.intake.ingest import Ingest, Receipt
from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.sender import Sender
from webhook_gateway.rules import signing
from webhook_gateway.settings import Settings
from webhook_gateway.store import configuration, keyring, tenants
from webhook_gateway.store.database import Database
from webhook_gateway.store.partitions import make_all

PATIENCE = 20.0
TYPE = "payment.processed"


def master_key(name: str) -> str:
    """A line as `webhook-gateway keys master` prints it."""
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


@dataclass(frozen=True, slots=True)
class Got:
    """A request that a partner got. Names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Got], "tuple[int, bytes] | bytes"]
"""Status and body, or the whole answer as it is on the wire."""


def accept_all(_: Got) -> tuple[int, bytes]:
    return 200, b"ok"


@dataclass(slots=True)
class Partner:
    """``answer`` decides on each request and may be exchanged at any time."""

    answer: Answer
    port: int = 0
    scheme: str = "http"
    got: list[Got] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    connections: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = field(default_factory=dict)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def wait_for(self, count: int, path: str | None = None) -> list[Got]:
        """The requests, as soon as there are so many."""

        def found() -> list[Got]:
            return [got for got in self.got if path in (None, got.path)]

        async with asyncio.timeout(PATIENCE), self.arrived:
            await self.arrived.wait_for(lambda: len(found()) >= count)
        return found()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections[writer] = asyncio.current_task()
        try:
            await self._answer_all(reader, writer)
        finally:
            writer.close()
            del self.connections[writer]

    async def close(self) -> None:
        """Ends the connections that are kept for a next request."""
        serving = [task for task in self.connections.values() if task is not None]
        for writer in self.connections:
            writer.transport.abort()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                got = Got(lines[0].split()[1], headers, body)
                answer = self.answer(got)
                if isinstance(answer, tuple):
                    status, body = answer
                    answer = b"HTTP/1.1 %d Status\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body
                writer.write(answer)
                await writer.drain()
                async with self.arrived:
                    self.got.append(got)
                    self.arrived.notify_all()


@asynccontextmanager
async def partner(answer: Answer = accept_all, tls: ssl.SSLContext | None = None) -> AsyncIterator[Partner]:
    made = Partner(answer, scheme="https" if tls else "http")
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()


class Inside:
    """The parts of a gateway, wired as the processes wire them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(str(settings.database_url), connections=8)
        self.vault = Vault(MasterKeys.parse(str(settings.master_keys)))
        self.sender = Sender(policy_from(settings))
        self.ingest = Ingest(self.database, self.vault, Catalogue())
        self.tenant_id = UUID(int=0)
        self.subscriber_id = uuid7()

    async def set_up(self) -> None:
        async with self.database.connection() as connection:
            await make_all(connection)
            self.tenant_id = await tenants.make(connection, self.vault)
            await keyring.fill(self.database, self.vault)
            await connection.execute(
                "INSERT INTO subscribers (id, tenant_id, name) VALUES ($1, $2, $3)",
                self.subscriber_id,
                self.tenant_id,
                str(self.subscriber_id),
            )

    async def add_endpoint(self, url: str, secret: str | None = None, **columns: Any) -> UUID:
        """``columns`` are further ones of the table, as asyncpg wants them."""
        endpoint_id, secret_id = columns.pop("id", None) or uuid7(), uuid7()
        secret = secret or signing.render_secret(os.urandom(32))
        values = {
            "id": endpoint_id,
            "tenant_id": self.tenant_id,
            "subscriber_id": self.subscriber_id,
            "url": url,
            "event_types": ["*"],
            **columns,
        }
        places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        sealed = self.vault.seal(self.tenant_id, "endpoint_secrets", secret_id, secret.encode())
        async with self.database.connection() as connection, connection.transaction():
            await connection.execute(
                f"INSERT INTO endpoints ({', '.join(map(quoted, values))}) VALUES ({places})", *values.values()
            )
            await connection.execute(
                "INSERT INTO endpoint_secrets (id, tenant_id, endpoint_id, secret) VALUES ($1, $2, $3, $4)",
                secret_id,
                self.tenant_id,
                endpoint_id,
                sealed,
            )
            await configuration.changed(connection)
        return endpoint_id

    async def accept(self, **changes: Any) -> UUID:
        """Posts the example of a type, with other values in its data."""
        known = Catalogue().get(self.tenant_id, TYPE)
        assert known is not None
        data = {**known.example, **changes}
        receipt = await self.ingest.accept(self.tenant_id, NewEvent(TYPE, json.dumps(data).encode(), data))
        assert isinstance(receipt, Receipt)
        return receipt.event_id

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """A worker. When this ends it has drained: whatever a partner has answered is settled."""
        stopping = asyncio.Event()
        worker = Worker(self.settings, self.database, self.vault, self.sender, stopping)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            stopping.set()
            await running

    async def rows(self, query: str, *arguments: Any) -> list[Any]:
        async with self.database.connection() as connection:
            found: list[Any] = await connection.fetch(query, *arguments)
            return found

    async def until(self, query: str, *arguments: Any) -> None:
        """Returns once the query answers true. Asks again and again: another process's commit sends us no signal."""
        async with asyncio.timeout(PATIENCE):
            while not (await self.rows(query, *arguments))[0][0]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.sender.aclose()
        await self.database.close()


@asynccontextmanager
async def inside(database_url: str, **changes: Any) -> AsyncIterator[Inside]:
    """A gateway that has a tenant and a subscriber. ``changes`` are settings."""
    keys = {"master_keys": master_key("first")} | changes
    gateway = Inside(Settings(database_url=database_url, development=True, **keys))
    await gateway.set_up()
    try:
        yield gateway
    finally:
        await gateway.close()


def quoted(column: str) -> str:
    return f'"{column}"'
