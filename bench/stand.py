"""One checkout's gateway on a stand of its own: as `up` runs it by default, with its own PostgreSQL and receiver.

It is started by its command line and set up over its API, so the checkout may be of any version.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import asyncpg
import httpx

from webhook_gateway.host.embedded_postgres import EmbeddedPostgres

from . import children
from .gateway import KEYS, READY, ROAD
from .hospital import TYPES
from .load import Plan
from .machine import children_of
from .meter import Meter
from .receiver import Receiver

THERE = """
SELECT string_agg(quote_ident(relname), ', ') FROM pg_class
WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND relname = ANY($1)
"""


@dataclass(slots=True)
class Stand:
    """It runs from `start` until `close`, and has one endpoint, which wants everything."""

    checkout: Path
    directory: Path
    postgres: EmbeddedPostgres
    connection: asyncpg.Connection
    receiver: Receiver
    receiving: subprocess.Popen[bytes]
    gateway: subprocess.Popen[bytes] | None = None
    port: int = 0
    keys: list[str] = field(default_factory=list)
    posted: int = 0

    @classmethod
    async def start(cls, checkout: Path) -> Self:
        """``checkout`` has a .venv of its own. Returns when the gateway takes events.

        Raises:
            RuntimeError: it did not start; the message ends with what it said.
        """
        directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-bench-"))
        directory.chmod(0o711)
        postgres = EmbeddedPostgres.start(directory / "postgres", die_with_parent=True)
        try:
            connection = await asyncpg.connect(postgres.url)
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            stand = cls(checkout, directory, postgres, connection, *Receiver.start())
            await stand._set_up(await stand.launch())
        except BaseException:
            postgres.stop(immediate=True)
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return stand

    async def launch(self) -> str:
        """Starts the gateway, or starts it anew. Returns what it said until it was ready."""
        await self.stop()
        python, data = self.checkout / ".venv/bin/python", self.directory / "data"
        up = ("-P", "-m", "webhook_gateway.cli", "up", "--development", "--port", "0", "--data", str(data))
        output = self.directory / "gateway.log"
        with output.open("wb") as log:
            environment = {"DATABASE_URL": self.postgres.url}
            self.gateway = children.spawn((str(python), *up), stdout=log.fileno(), environment=environment)
        deadline = time.monotonic() + READY
        while "ready; " not in (said := output.read_text()):
            if self.gateway.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the gateway did not start:\n" + said[-2000:])
            await asyncio.sleep(0.1)
        self.port = int(said.partition("http://127.0.0.1:")[2].split()[0])
        return said

    async def stop(self) -> None:
        if self.gateway is not None:
            await asyncio.to_thread(children.end, self.gateway)

    async def close(self) -> None:
        await self.stop()
        children.end(self.receiving)
        self.connection.terminate()
        await asyncio.to_thread(self.postgres.stop, immediate=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    async def empty(self) -> None:
        """Nothing is stored any more, and what was noted is forgotten."""
        there = await self.connection.fetchval(THERE, ROAD.split(", "))
        await self.connection.execute(f"TRUNCATE {there}")
        await self.connection.execute("CHECKPOINT")
        self.receiver.take()

    async def meter(self, **more: int) -> Meter:
        """Begins to count; ``gateway`` is everything that `up` started, with itself."""
        assert self.gateway is not None
        commands = children_of(self.gateway.pid)
        groups = {
            "gateway": [self.gateway.pid],
            "api": [pid for pid, command in commands.items() if " serve " in command],
            "worker": [pid for pid, command in commands.items() if " work " in command],
            "postgres": [self.postgres.process.pid],
            "receiver": [self.receiving.pid],
        }
        return await Meter.begin(self.connection, {**groups, **{name: [pid] for name, pid in more.items()}})

    def plan(self, seconds: float, **more: Any) -> Plan:
        """A load with numbers of its own."""
        self.posted += 1_000_000
        notes = str(self.directory / "notes")
        given = {"types": list(TYPES), "keys": self.keys, "receiver": self.receiver.port, **more}
        return Plan(port=self.port, notes=notes, seconds=seconds, first=self.posted % 9_000_000_000, **given)

    async def _set_up(self, said: str) -> None:
        """With the administrator's key, which is said at the first start."""
        headers = {"Authorization": "Bearer whk_" + said.partition("whk_")[2].split()[0]}
        base = f"http://127.0.0.1:{self.port}"
        async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False) as http:
            for number in range(KEYS):
                made = await _made(http, "/v1/keys", {"name": f"bench {number}", "scopes": ["events:write"]})
                self.keys.append(made["key"])
            knows = (await http.get("/openapi.json")).json()["components"]["schemas"]["NewSubscriber"]["properties"]
            permission = {
                name: given for name, given in {"event_types": ["*"], "content": "full"}.items() if name in knows
            }
            subscriber = await _made(http, "/v1/subscribers", {"name": "bench", **permission})
            url = f"http://127.0.0.1:{self.receiver.port}/ok/0"
            await _made(http, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": url, "event_types": ["*"]})


async def _made(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await http.post(path, json=body)
    if answer.is_error:
        raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text}")
    made: dict[str, Any] = answer.json()
    return made
