"""A partner that writes down every request: which event, when, which bytes, and what it answered."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

ANSWER = b"HTTP/1.1 %d -\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Call:
    """A complete request. ``at`` is monotonic seconds; ``timestamp`` is the header, Unix seconds."""

    at: float
    digest: bytes
    status: int
    timestamp: int


Hook = Callable[[str, str, int], Awaitable[int]]
"""Given endpoint, event id and how often it has come: the status to answer."""


class Partner:
    """Serves any number of endpoints, told apart by path. ``latency`` is in seconds."""

    def __init__(self) -> None:
        self.latency = 0.02
        self.calls: dict[str, dict[str, list[Call]]] = defaultdict(lambda: defaultdict(list))
        self.received = 0
        """Calls of all endpoints. Whoever measures asks often, so nothing is counted then."""
        self.hook: Hook | None = None
        self.last_at = 0.0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    def url(self, endpoint: str) -> str:
        return f"http://127.0.0.1:{self.port}/{endpoint}"

    def had(self, endpoint: str, event_id: str) -> float | None:
        """When the endpoint first took the event with a 2xx, or None."""
        times = [call.at for call in self.calls[endpoint].get(event_id, ()) if call.status < 300]
        return min(times, default=None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers["content-length"]))
                status = await self._take(head[0].split(" ")[1].removeprefix("/"), headers, body)
                writer.write(ANSWER % status)
        self._open.discard(writer)
        writer.close()

    async def _take(self, endpoint: str, headers: dict[str, str], body: bytes) -> int:
        at, event_id = monotonic(), headers["webhook-id"]
        earlier = len(self.calls[endpoint][event_id])
        status = 200 if self.hook is None else await self.hook(endpoint, event_id, earlier)
        call = Call(at, hashlib.sha256(body).digest(), status, int(headers["webhook-timestamp"]))
        self.calls[endpoint][event_id].append(call)
        self.received += 1
        self.last_at = at
        if self.latency:
            await asyncio.sleep(self.latency)
        return status
