"""The partners of a bench: answers POSTs on loopback and notes when the first byte of each came.

A process of its own, raw on top of the event loop, since it shares two cores with what it measures. The path says how
to answer: ``/ok/…`` at once, ``/20ms/…`` and ``/100ms/…`` after that time, ``/500/…`` with that status, ``/hang/…``
never.

    python -m bench.receiver      prints its port
    GET /-/count                  how many POSTs came in
    GET /-/take                   what was noted (msgpack, see `Arrivals`), and begins anew
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Self, cast

import msgspec
import uvloop

from . import children

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
NAME = b"webhook-id: "


class Arrivals(msgspec.Struct):
    """One entry a POST, in order: ``paths[i]``, ``ids[i]`` (the webhook-id) and when (monotonic nanoseconds)."""

    paths: list[bytes]
    ids: list[bytes]
    times: list[int]


received = 0
noted = Arrivals([], [], [])


class Partner(asyncio.Protocol):
    """One connection: requests come one after the other, and are answered as their path asks."""

    def __init__(self) -> None:
        self._buffer = b""
        self._began = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        else:
            self._began = time.monotonic_ns()
        self._buffer = data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        if data.startswith(b"GET "):
            self._buffer = b""
            self._tell(data)
            return
        at = data.lower().find(b"content-length: ", 0, end + 2) + 16
        if len(data) - end - 4 < int(data[at : data.index(b"\r", at)]):
            return
        self._buffer = b""
        self._take(data, end)

    def _take(self, data: bytes, end: int) -> None:
        global received
        received += 1
        path = data[5 : data.index(b" ", 5)]
        at = data.find(NAME, 0, end)
        noted.paths.append(path)
        noted.ids.append(data[at + 12 : data.index(b"\r", at)] if at >= 0 else b"")
        noted.times.append(self._began)
        if path.startswith(b"/ok"):
            self._answer(OK)
        elif path.startswith(b"/20ms"):
            asyncio.get_running_loop().call_later(0.02, self._answer, OK)
        elif path.startswith(b"/100ms"):
            asyncio.get_running_loop().call_later(0.1, self._answer, OK)
        elif path.startswith(b"/500"):
            self._answer(BROKEN)

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)

    def _tell(self, data: bytes) -> None:
        global noted
        body = b"%d" % received
        if data.startswith(b"GET /-/take "):
            body, noted = msgspec.msgpack.encode(noted), Arrivals([], [], [])
        self._answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class Receiver:
    """The running receiver, as the bench asks it. ``port`` is on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    @classmethod
    def start(cls) -> tuple[Self, subprocess.Popen[bytes]]:
        """It, and its process, which is the caller's to end."""
        process = children.spawn((sys.executable, "-m", "bench.receiver"), stdout=subprocess.PIPE)
        assert process.stdout is not None
        return cls(int(process.stdout.readline())), process

    def count(self) -> int:
        """How many POSTs came since it was started."""
        return int(self._get("/-/count"))

    def take(self) -> Arrivals:
        """What came since the last time."""
        return msgspec.msgpack.decode(self._get("/-/take"), type=Arrivals)

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a webhook's first byte came for the first time (monotonic nanoseconds), and to which path."""

    at: int
    path: bytes


def firsts(arrivals: Arrivals) -> dict[bytes, Arrival]:
    """By webhook-id: its first arrival anywhere."""
    found: dict[bytes, Arrival] = {}
    for path, webhook, at in zip(arrivals.paths, arrivals.ids, arrivals.times, strict=True):
        if webhook not in found:
            found[webhook] = Arrival(at, path)
    return found


async def serve() -> None:
    gc.disable()  # what it notes only grows, and nothing of it makes a cycle
    server = await asyncio.get_running_loop().create_server(Partner, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
