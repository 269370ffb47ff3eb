"""What one request costs the process that serves it: how long it holds everybody else up, and how much memory it takes.

The API runs as a process of its own, as `serve` starts it. While a request is under way a thread asks ``/healthz``
again and again: the most processor time that passes before an answer is how long the event loop was held, however busy
the machine is. Memory is the peak beyond what it had before. Both as the kernel counts them. For all requests, as a
table:

    python -m tests.web.cost
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.command_line import bare_environment, command
from tests.support.postgres import serving as postgres
from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.store import keys, migrate, tenants
from webhook_gateway.store.database import Database

MASTER_KEYS = "test:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
LIMIT = 1_048_576


@dataclass
class Cost:
    """``held`` is in seconds of the processor, ``memory`` in bytes."""

    status: int = 0
    held: float = 0.0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """An API process, and a client that may do everything."""

    pid: int
    client: httpx.AsyncClient

    async def cost(self, method: str, path: str, body: bytes) -> Cost:
        with self._watching() as cost:
            answer = await self.client.request(
                method, path, content=body, headers={"Content-Type": "application/json"}, timeout=100
            )
        cost.status = answer.status_code
        return cost

    @contextmanager
    def _watching(self) -> Iterator[Cost]:
        cost, done = Cost(), threading.Event()
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # the peak begins anew: proc(5)
        before = self._memory("VmRSS")
        asking = threading.Thread(target=self._ask, args=(cost, done))
        asking.start()
        try:
            yield cost
        finally:
            done.set()
            asking.join()
            cost.memory = self._memory("VmHWM") - before

    def _ask(self, cost: Cost, done: threading.Event) -> None:
        where = urlsplit(str(self.client.base_url))
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=100)
        while not done.is_set():
            before = self._worked()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            cost.held = max(cost.held, self._worked() - before)
        connection.close()

    def _worked(self) -> float:
        """Seconds of the processor that it has used so far: proc_pid_stat(5), fields 14 and 15."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1_024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))


@asynccontextmanager
async def served(database_url: str) -> AsyncIterator[Served]:
    """One API process with the default tenant."""
    database, vault = Database(database_url, connections=1), Vault(MasterKeys({"test": bytes(32)}))
    try:
        async with database.connection() as connection:
            tenant_id = await tenants.make(connection, vault)
        async with database.begin() as connection:
            _, key = await keys.issue(connection, tenant_id, keys.NewKey("costly", ("admin", "events:write")))
    finally:
        await database.close()
    settings = {
        "DATABASE_URL": database_url,
        "WEBHOOK_GATEWAY_MASTER_KEYS": MASTER_KEYS,
        "WEBHOOK_GATEWAY_API_RATE": "0",
    }
    process = await asyncio.create_subprocess_exec(
        *command("serve", "--port", "0", "--processes", "1"),
        env=bare_environment(**settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        said = (await process.stderr.readline()).decode()
        url = said[said.index("http://") :].split()[0]
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            base_url=url, headers=headers, trust_env=False, verify=False, timeout=100
        ) as client:
            for name, schema in SCHEMAS.items():
                made = await client.post("/v1/event-types", json={"name": name, "schema": schema, "example": {}})
                assert made.status_code == 201, made.text
            for name in ("lab_result.final", *SCHEMAS):  # what is compiled for the first is not what a request costs
                await client.post("/v1/events", json={"type": name, "data": {"x": None}})
            yield Served(process.pid, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


SCHEMAS: dict[str, dict[str, Any]] = {
    "costly.required": {"properties": {"x": {"items": {"required": [f"member_{n}" for n in range(20)]}}}},
    "costly.all_required": {"anyOf": [{"maxProperties": 0}, {"required": [f"member_{n}" for n in range(400)]}]},
    "costly.any_of": {"properties": {"x": {"items": {"anyOf": [{"required": [f"m{n}" for n in range(20)]}] * 2}}}},
    "costly.pattern": {"properties": {"x": {"pattern": "a[ab]{300}c"}}},
    "costly.patterns": {"properties": {"x": {"items": {"pattern": "^([ab]{1,20}){1,9}$"}}}},
    "costly.decimals": {"properties": {"x": {"items": {"multipleOf": 0.01, "minimum": 0.5}}}},
    "costly.unique": {"properties": {"x": {"uniqueItems": True, "items": {"uniqueItems": True}}}},
    "costly.tree": {"properties": {"x": {"$ref": "#"}, "c": {"items": {"$ref": "#"}}, "v": {"type": "integer"}}},
    "costly.text": {"properties": {"x": {"allOf": [{"maxLength": 10**6 + n, "format": "email"} for n in range(40)]}}},
    "costly.names": {"additionalProperties": {"type": "integer"}, "propertyNames": {"pattern": "^[a-z0-9]+$"}},
}


def _filled(before: str, item: str, after: str) -> bytes:
    """As many of the item as a body may hold."""
    room = LIMIT - len(before) - len(after)
    return f"{before}{','.join([item] * (room // (len(item) + 1)))}{after}".encode()


def _event(name: str, item: str, before: str = '{"x":[', after: str = "]}") -> Callable[[], bytes]:
    return lambda: _filled(f'{{"type":"{name}","data":{before}', item, f"{after}}}")


def _string(name: str, text: str) -> Callable[[], bytes]:
    return lambda: json.dumps({"type": name, "data": {"x": (text * LIMIT)[: LIMIT - 100]}}).encode()


def _members(before: str, after: str) -> Callable[[], bytes]:
    return lambda: (before + ",".join(f'"m{n}":{{}}' for n in range(80_000)) + after).encode()


def _batch(item: str) -> Callable[[], bytes]:
    return lambda: f'{{"events":[{",".join([item] * 1_000)}]}}'.encode()


def _deep(item: str, levels: int) -> Callable[[], bytes]:
    def body() -> bytes:
        before = '{"type":"costly.tree","data":' + '{"c":[' * levels
        return _filled(before, item, "]}" * levels + "}")

    return body


def _type(schema: str) -> Callable[[], bytes]:
    return lambda: f'{{"name":"costly.new","schema":{schema},"example":{{}}}}'.encode()


def _nested(keyword: str, times: int) -> str:
    below = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(times)}
    return json.dumps({"$defs": {**below, f"d{times}": {"type": "object"}}, "$ref": "#/$defs/d0"})


def _wrong_types() -> bytes:
    return b'{"event_types":[' + b"0," * 19_000 + b"0]}"


EVENT, BATCH, TYPES = ("POST", "/v1/events"), ("POST", "/v1/events/batch"), ("POST", "/v1/event-types")
REQUESTS: dict[str, tuple[tuple[str, str], Callable[[], bytes]]] = {
    "observations without members": (EVENT, _event("lab_result.final", "{}", '{"observations":[')),
    "items that lack twenty members": (EVENT, _event("costly.required", "{}")),
    "items that fit no alternative": (EVENT, _event("costly.any_of", "{}")),
    "a long text that lacks 400 members": (EVENT, _string("costly.all_required", "x")),
    "a pattern and a long text": (EVENT, _string("costly.pattern", "ab")),
    "a pattern and many texts": (EVENT, _event("costly.patterns", '"abababababababababababab"')),
    "numbers that are no multiples": (EVENT, _event("costly.decimals", "1e99")),
    "numbers": (EVENT, _event("costly.decimals", "1")),
    "lists that may not be the same": (EVENT, _event("costly.unique", "[1]")),
    "a text for forty formats": (EVENT, _string("costly.text", "x@")),
    "a tree": (EVENT, _deep('{"c":[{"c":[]}]}', 20)),
    "a tree as deep as may be, with a fault": (EVENT, _deep('{"v":"x"}', 90)),
    "a tree deeper than may be": (EVENT, _deep("{}", 5_000)),
    "members of many names": (EVENT, _members('{"type":"costly.names","data":{', "}}")),
    "numbers without end": (EVENT, lambda: b'{"type":"costly.decimals","data":{"x":[' + b"1" * 1_000_000 + b"]}}"),
    "unknown members of an event": (EVENT, _members('{"type":"lab_result.final","data":{},', "}")),
    "null for a thousand events": (BATCH, _batch("null")),
    "a thousand events with faults": (
        BATCH, _batch('{"type":"costly.required","data":{"x":[' + ",".join(["{}"] * 320) + "]}}"),
    ),
    "a batch of anything": (BATCH, lambda: _filled('{"events":[', "[]", "]}")),
    "a schema nested 27 times": (TYPES, _type(_nested("allOf", 27))),
    "a schema nested 44 times": (TYPES, _type(_nested("anyOf", 44))),
    "a schema of many members": (TYPES, _type(json.dumps({"properties": {f"m{n}": {} for n in range(19_000)}}))),
    "a schema of many values": (TYPES, lambda: _filled('{"name":"a.b","example":{},"schema":{"enum":[', "0", "]}}")),
    "unknown members of a subscriber": (("POST", "/v1/subscribers"), _members('{"name":"x",', "}")),
    "wrong types for an endpoint": (("POST", "/v1/endpoints"), _wrong_types),
    "nothing but brackets": (("POST", "/v1/subscribers"), lambda: b"[" * LIMIT),
    "the API's document": (("GET", "/openapi.json"), bytes),
    "a method that no path has": (("PUT", "/v1/events"), bytes),
}  # fmt: skip


async def main() -> None:
    """Prints the table."""
    with postgres() as server:
        async with server.copy("template1") as url:
            await asyncio.to_thread(migrate.upgrade, url)
            async with served(url) as api:
                for name, ((method, path), body) in REQUESTS.items():
                    cost = await api.cost(method, path, body())
                    print(f"{name:42}{cost.status:5}{cost.held * 1e3:8.0f} ms{cost.memory / 1e6:8.1f} MB", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
