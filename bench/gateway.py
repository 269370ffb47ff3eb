"""The gateway under measurement: PostgreSQL, API, workers and receiver, each a process of its own, as in production.

Nothing about durability is loosened. Logs are written as in production, to files.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
from uuid_utils.compat import uuid7

from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.host import supervisor
from webhook_gateway.host.embedded_postgres import EmbeddedPostgres
from webhook_gateway.operations.first_start import issue_key
from webhook_gateway.rules import signing
from webhook_gateway.store import keyring, migrate
from webhook_gateway.store.database import Database
from webhook_gateway.store.partitions import make_all

from . import children
from .meter import Meter
from .receiver import Receiver

READY = 30.0
KEYS = 8
"""API keys that the load uses in turn: as many services of a hospital, since each key has a rate of its own."""
ROAD = (
    "events, lookups, idempotency_keys, outbox, deliveries, finished_deliveries, attempts, held_keys, endpoint_health"
)

LEFT_BEHIND = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = 'webhook-gateway' AND state <> 'idle'
"""


@dataclass(slots=True)
class Gateway:
    """One for a run. ``api`` and ``workers`` are started and stopped by the measures."""

    directory: Path
    postgres: EmbeddedPostgres
    vault: Vault
    environment: dict[str, str]
    database: Database
    connection: asyncpg.Connection
    receiver: Receiver
    receiving: subprocess.Popen[bytes]
    tenant_id: UUID
    subscriber_id: UUID
    keys: list[str]
    port: int = 0
    api: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    posted: int = 0
    """Numbers of events that were given away."""

    @classmethod
    async def start(cls) -> Self:
        directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-bench-"))
        directory.chmod(0o711)
        postgres = EmbeddedPostgres.start(directory / "postgres", die_with_parent=True)
        try:
            await asyncio.to_thread(migrate.upgrade, postgres.url)
            text = "bench:" + base64.b64encode(os.urandom(32)).decode()
            vault = Vault(MasterKeys.parse(text))
            database = Database(postgres.url, connections=4)
            keys = [(await issue_key(database, vault, f"bench {n}", ["events:write"]))[1] for n in range(KEYS)]
            await keyring.fill(database, vault)
            connection = await asyncpg.connect(postgres.url)
            await make_all(connection)
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            tenant_id = UUID(str(await connection.fetchval("SELECT id FROM tenants")))
            subscriber_id = uuid7()
            await connection.execute(
                "INSERT INTO subscribers (id, tenant_id, name, event_types, content)"
                """ VALUES ($1, $2, 'bench', '{*,gateway.*}', '{"level": "full", "subject": true}')""",
                *(subscriber_id, tenant_id),
            )
            receiver, receiving = Receiver.start()
        except BaseException:
            postgres.stop(immediate=True)
            shutil.rmtree(directory, ignore_errors=True)
            raise
        environment = {
            "DATABASE_URL": postgres.url,
            "WEBHOOK_GATEWAY_MASTER_KEYS": text,
            "WEBHOOK_GATEWAY_DEVELOPMENT": "true",
            "WEBHOOK_GATEWAY_LOG_LEVEL": "info",
        }
        return cls(
            directory, postgres, vault, environment, database, connection, receiver, receiving, tenant_id,
            subscriber_id, keys,
        )  # fmt: skip

    async def close(self) -> None:
        self.kill_workers()
        self.stop_api()
        children.end(self.receiving)
        self.connection.terminate()
        await self.database.close()
        await asyncio.to_thread(self.postgres.stop, immediate=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    # What runs.

    async def start_api(self, environment: Mapping[str, str] | None = None) -> None:
        """Returns when it takes events."""
        self.port, self.api = await self._serve("api", environment or {})

    async def start_console(self) -> tuple[int, subprocess.Popen[bytes]]:
        """Another API process, whose processes of PostgreSQL are known by their role: its port, and itself."""
        await self.connection.execute("CREATE ROLE console SUPERUSER LOGIN PASSWORD 'console'")
        at = urlsplit(self.postgres.url)
        url = at._replace(netloc=f"console:console@{at.hostname}:{at.port}").geturl()
        return await self._serve("console", {"DATABASE_URL": url})

    async def _serve(self, name: str, environment: Mapping[str, str]) -> tuple[int, subprocess.Popen[bytes]]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = supervisor.gateway("serve", "--port", str(port), "--processes", "1")
        process = self._spawn(name, command, environment)
        deadline = time.monotonic() + READY
        async with httpx.AsyncClient() as http:
            while True:
                with suppress(httpx.TransportError):
                    if (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == httpx.codes.OK:
                        return port, process
                if process.poll() is not None or time.monotonic() > deadline:
                    children.end(process)
                    raise RuntimeError("the API did not start:\n" + self.log_end(name))
                await asyncio.sleep(0.1)

    def stop_api(self) -> None:
        if self.api is not None:
            children.end(self.api)
            self.api = None

    async def start_workers(self, count: int = 1, environment: Mapping[str, str] | None = None) -> None:
        """Returns when all have given their sign of life, and know of each other."""
        await self.connection.execute("DELETE FROM workers")
        for _ in range(count):
            name = f"worker{len(self.workers)}"
            self.workers.append(self._spawn(name, supervisor.gateway("work", "--processes", "1"), environment or {}))
        deadline = time.monotonic() + READY
        while await self.connection.fetchval("SELECT count(*) FROM workers") < len(self.workers):
            if any(worker.poll() is not None for worker in self.workers) or time.monotonic() > deadline:
                raise RuntimeError("a worker did not start:\n" + self.log_end("worker0"))
            await asyncio.sleep(0.05)

    def stop_workers(self) -> None:
        """In good order: what is in flight ends first."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(READY)
        self.workers.clear()

    def kill_workers(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.workers.clear()

    def log_end(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()[-2000:]

    def numbers(self, count: int) -> int:
        """The first of so many numbers that no event has had."""
        self.posted += count
        return self.posted - count

    # What is configured and stored.

    async def set_endpoints(
        self, count: int, *, types: Sequence[str] = ("*",), path: str = "/ok", slots: int = 10, deadline: float = 15.0
    ) -> list[UUID]:
        """Replaces all endpoints. They take the types in turn, one type each."""
        await self.connection.execute("DELETE FROM endpoint_health")
        await self.connection.execute("DELETE FROM endpoint_secrets")
        await self.connection.execute("DELETE FROM endpoints")
        return await self.add_endpoints(count, types=types, path=path, slots=slots, deadline=deadline)

    async def add_endpoints(
        self, count: int, *, types: Sequence[str] = ("*",), path: str = "/ok", slots: int = 10, deadline: float = 15.0
    ) -> list[UUID]:
        made = [uuid7() for _ in range(count)]
        await self.connection.executemany(
            "INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types, slots, deadline) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [
                (
                    endpoint_id,
                    self.tenant_id,
                    self.subscriber_id,
                    f"http://127.0.0.1:{self.receiver.port}{path}/{number}",
                    [types[number % len(types)]],
                    slots,
                    deadline,
                )
                for number, endpoint_id in enumerate(made)
            ],
        )
        secrets = []
        for endpoint_id in made:
            secret_id, secret = uuid7(), signing.encode_secret(os.urandom(32)).encode()
            sealed = self.vault.seal(self.tenant_id, "endpoint_secrets", secret_id, secret)
            secrets.append((secret_id, self.tenant_id, endpoint_id, sealed))
        await self.connection.executemany(
            "INSERT INTO endpoint_secrets (id, tenant_id, endpoint_id, secret) VALUES ($1, $2, $3, $4)", secrets
        )
        await self.connection.execute("UPDATE configuration SET version = version + 1")
        return made

    async def empty(self) -> None:
        """Nothing is stored or on its way any more, and what was noted is forgotten."""
        while await self.connection.fetchval(LEFT_BEHIND):  # noqa: ASYNC110 - by a worker that was killed
            await asyncio.sleep(0.05)
        await self.connection.execute(f"TRUNCATE {ROAD}")
        await self.connection.execute("CHECKPOINT")
        self.receiver.take()

    async def open_deliveries(self) -> int:
        return int(
            await self.connection.fetchval("SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM deliveries)")
        )

    # What it costs.

    def groups(self, **more: int) -> dict[str, list[int]]:
        """Process ids by what they are."""
        groups = {
            "postgres": [self.postgres.process.pid],
            "receiver": [self.receiving.pid],
            "worker": [worker.pid for worker in self.workers],
            "api": [self.api.pid] if self.api is not None else [],
        }
        return {**groups, **{name: [pid] for name, pid in more.items()}}

    async def meter(self, **more: int) -> Meter:
        """Begins to count CPU, WAL and statements; other processes by name belong to us, too."""
        return await Meter.begin(self.connection, self.groups(**more))

    def _spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            return children.spawn(command, stdout=log.fileno(), environment={**self.environment, **environment})
