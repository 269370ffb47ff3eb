"""The load: posts events from a process of its own, cheaply, and writes down when each was due, sent and answered.

Open-loop (``rate``): arrivals come by chance (Poisson) and never wait for answers; where no connection is free they
queue, and the wait counts, since every time is measured from when the event was due. Closed-loop (no ``rate``): each
connection posts again as soon as it is answered. With ``window`` the closed loop also stops while more deliveries than
that are under way, so that what it measures is what the whole pipeline sustains.

    python -m bench.load < plan.json      prints "begun", then the place of its notes
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from . import children
from .alarm import arrive
from .hospital import fill, templates

GLANCE = 0.02
"""Seconds between two looks at how many deliveries are under way."""
PATIENCE = 20.0
"""Seconds that answers may take after the end."""


class Plan(msgspec.Struct, kw_only=True):
    """What to post where. ``seconds`` is how long; ``window`` counts deliveries, of which an event makes ``fanout``."""

    port: int
    notes: str
    seconds: float
    keys: list[str] = msgspec.field(default_factory=lambda: [""])
    types: list[str]
    path: str = "/v1/events"
    connections: int = 64
    rate: float | None = None
    batch: int = 1
    window: int | None = None
    fanout: int = 1
    receiver: int = 0
    first: int = 0
    """The number of the first event: two loads on one database must not share numbers."""
    seed: int = 7


class Notes(msgspec.Struct):
    """One entry a request, in the order of posting, in monotonic nanoseconds; ``answered`` is 0 without an answer."""

    due: list[int]
    noticed: list[int]
    """When the load itself came to it: later than due only by its own slowness."""
    sent: list[int]
    answered: list[int]
    statuses: list[int]
    ids: list[bytes]
    begun: int
    ended: int
    batch: int

    @property
    def accepted(self) -> int:
        """Events, not requests."""
        return self.batch * sum(200 <= status < 300 for status in self.statuses)

    @property
    def refused(self) -> int:
        """Requests that met anything but a 2xx, or nothing at all."""
        return sum(not 200 <= status < 300 for status in self.statuses)

    def rate(self) -> float:
        """Accepted events a second, while the load lasted."""
        answered = sum(
            200 <= status < 300 and at <= self.ended for status, at in zip(self.statuses, self.answered, strict=True)
        )
        return answered * self.batch / ((self.ended - self.begun) / 1e9)


class Line(asyncio.Protocol):
    """One keep-alive connection with one request on it at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._request = -1
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, problem: Exception | None) -> None:
        self._transport = None
        self._load.lost(self)

    def post(self, request: int, message: bytes) -> None:
        self._request = request
        assert self._transport is not None
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"content-length: ", 0, end + 2)
        if end < 0 or len(data) - end - 4 < (int(data[at + 16 : data.index(b"\r", at)]) if at >= 0 else 0):
            self._buffer = data
            return
        self._buffer = b""
        self._load.answered(self, self._request, data, end)


class Load:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._templates = templates(plan.types)
        self._heads = [[_head(plan, key, len(fill(t, 0))) for key in plan.keys] for t in self._templates]
        self._idle: set[Line] = set()
        self._waiting: deque[int] = deque()
        self._due, self._noticed = array("q"), array("q")
        self._sent, self._answered = array("q"), array("q")
        self._statuses = array("h")
        self._ids: list[bytes] = []
        self._open = 0
        self._lines = 0
        self._running = True
        self._held = False
        self._accepted = 0
        self._done = asyncio.Event()

    async def run(self) -> None:
        plan, loop = self._plan, asyncio.get_running_loop()
        for _ in range(plan.connections):
            _, line = await loop.create_connection(lambda: Line(self), "127.0.0.1", plan.port)
            self._idle.add(line)
            self._lines += 1
        watching = None
        if plan.window is not None:
            reader, writer = await asyncio.open_connection("127.0.0.1", plan.receiver)
            before = await _count(reader, writer)
            watching = asyncio.create_task(self._watch(reader, writer, before, plan.window))
        gc.disable()
        print("begun", flush=True)
        begun = time.monotonic_ns()
        if plan.rate is None:
            for line in list(self._idle):
                self._next(line)
            await asyncio.sleep(plan.seconds)
        else:
            await arrive(begun, plan.rate, plan.seconds, plan.seed, self._arrived)
        ended = time.monotonic_ns()
        self._running = False
        if watching is not None:
            watching.cancel()
        if self._open or self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), PATIENCE)
        notes = Notes(
            due=list(self._due),
            noticed=list(self._noticed),
            sent=list(self._sent),
            answered=list(self._answered),
            statuses=list(self._statuses),
            ids=self._ids,
            begun=begun,
            ended=ended,
            batch=plan.batch,
        )
        Path(plan.notes).write_bytes(msgspec.msgpack.encode(notes))
        print(plan.notes, flush=True)

    def answered(self, line: Line, request: int, data: bytes, end: int) -> None:
        self._answered[request] = time.monotonic_ns()
        status = int(data[9:12])
        self._statuses[request] = status
        at = data.find(b'"id":"evt_', end)
        if at >= 0 and self._plan.batch == 1:
            self._ids[request] = data[at + 6 : at + 36]
        if status < 300:
            self._accepted += self._plan.batch
        self._open -= 1
        self._next(line)

    def lost(self, line: Line) -> None:
        self._lines -= 1
        self._idle.discard(line)
        if not self._lines:
            self._done.set()

    def _next(self, line: Line) -> None:
        """What a free connection does."""
        if self._waiting:
            self._post(line, self._waiting.popleft())
        elif self._running and self._plan.rate is None and not self._held:
            self._idle.discard(line)
            now = time.monotonic_ns()
            self._post(line, self._new(now, now))
        else:
            self._idle.add(line)
            if not self._running and not self._open:
                self._done.set()

    def _new(self, due: int, now: int) -> int:
        self._due.append(due)
        self._noticed.append(now)
        self._sent.append(0)
        self._answered.append(0)
        self._statuses.append(0)
        self._ids.append(b"")
        return len(self._due) - 1

    def _post(self, line: Line, request: int) -> None:
        message = self._render(request)
        self._sent[request] = time.monotonic_ns()
        self._open += 1
        line.post(request, message)

    def _arrived(self, due: int, now: int) -> None:
        request = self._new(due, now)
        if self._idle:
            self._post(self._idle.pop(), request)
        else:
            self._waiting.append(request)

    async def _watch(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, before: int, window: int
    ) -> None:
        """Holds the connections while the window is full."""
        while True:
            received = await _count(reader, writer) - before
            self._held = self._accepted * self._plan.fanout - received > window
            if not self._held:
                for line in list(self._idle):
                    self._next(line)
            await asyncio.sleep(GLANCE)

    def _render(self, request: int) -> bytes:
        plan = self._plan
        if plan.batch == 1:
            which, number = request % len(self._templates), plan.first + request
            head = self._heads[which][request % len(plan.keys)]
            return head + fill(self._templates[which], number)
        first = plan.first + request * plan.batch
        events = (fill(self._templates[n % len(self._templates)], n) for n in range(first, first + plan.batch))
        body = b'{"events":[' + b",".join(events) + b"]}"
        return _head(plan, plan.keys[request % len(plan.keys)], len(body)) + body


def _head(plan: Plan, key: str, length: int) -> bytes:
    return (
        f"POST {plan.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


class Posting:
    """A load under way in its own process. ``begun`` returns when it posts; ``notes`` waits for its end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        command = (sys.executable, "-m", "bench.load")
        self._process = children.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(plan))
        self._process.stdin.close()

    async def begun(self) -> None:
        await self._line()

    async def notes(self) -> Notes:
        await self._line()
        self._process.wait(PATIENCE)
        raw = Path(self._plan.notes).read_bytes()
        Path(self._plan.notes).unlink()
        return msgspec.msgpack.decode(raw, type=Notes)

    async def notes_after_begun(self) -> Notes:
        await self.begun()
        return await self.notes()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _line(self) -> str:
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        if not line:
            raise RuntimeError(f"the load ended early with status {self._process.wait()}")
        return line.decode().strip()


def percentiles(values: Sequence[float], at: Sequence[float] = (50, 95, 99, 99.9)) -> dict[str, float]:
    """By name (``p99.9``), in the unit of the values; nearest rank, nothing interpolated."""
    ordered = sorted(values)
    if not ordered:
        return {f"p{p:g}": float("nan") for p in at}
    return {f"p{p:g}": ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in at}


async def _count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(b"GET /-/count HTTP/1.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    return int(await reader.readexactly(int(head.rpartition(b": ")[2])))


if __name__ == "__main__":
    uvloop.run(Load(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)).run())
