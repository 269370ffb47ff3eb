"""The network between two parties, as a TCP proxy that can be slow, narrow, silent or cut."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

CHUNK = 65_536
STATEMENT_WITH_A_BODY = 500
"""Bytes from which what a client sends Postgres is taken for a statement that stores an event."""


@dataclass(slots=True, eq=False)
class _Wire:
    """One connection through the link."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    flows: asyncio.Event
    doomed: bool = False

    def reset(self) -> None:
        """Both ends get RST instead of FIN."""
        for end in (self.client, self.server):
            raw = end.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


class Link:
    """Listens on ``port`` and forwards to the target. What is set holds for open and new connections alike.

    ``latency`` is in seconds, added to whatever the client sends; ``limit`` is in bytes a second each way, 0 for none.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._wires: set[_Wire] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._to_swallow = 0
        self.swallowed = 0
        self.latency = 0.0
        self.limit = 0.0
        self.address = ""
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self._server = await asyncio.start_server(self._connect, address, 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self.heal()
        if self._server is not None:
            self._server.close()
        for wire in self._wires:
            wire.flows.set()
        self.reset()

    def blackhole(self) -> None:
        """Nothing gets through any more, and nobody is told. What is under way arrives after `heal`."""
        self._flows.clear()

    def heal(self) -> None:
        self._flows.set()
        self.latency = self.limit = 0.0

    def move(self, port: int) -> None:
        """The address leads to another server of this host; connections that are open stay where they are."""
        self._target = (self._target[0], port)

    def lose(self) -> None:
        """The machine behind it is gone, and nobody is told: open connections stay silent for ever, new ones don't."""
        self._flows.clear()
        self._flows = asyncio.Event()
        self._flows.set()

    def reset(self) -> None:
        """Cuts every open connection."""
        for wire in list(self._wires):
            wire.reset()

    def swallow(self, answers: int) -> None:
        """So many times, lets a statement that stores an event through, and cuts the connection at its answer."""
        self._to_swallow += answers

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._flows.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        wire = _Wire(writer, far_writer, self._flows)
        self._wires.add(wire)
        try:
            await asyncio.gather(self._send(wire, reader), self._answer(wire, far_reader))
        except OSError:
            await wire.flows.wait()
            wire.reset()
        finally:
            self._wires.discard(wire)
            for end in (writer, far_writer):
                end.close()

    async def _send(self, wire: _Wire, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK):
            if self._to_swallow and not wire.doomed and len(data) > STATEMENT_WITH_A_BODY:
                self._to_swallow -= 1
                wire.doomed = True
            await self._pass_on(data, wire, wire.server, self.latency)
        await wire.flows.wait()
        wire.server.write_eof()

    async def _answer(self, wire: _Wire, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK):
            if wire.doomed:  # Postgres has answered, so the commit is done; the client never hears of it
                self.swallowed += 1
                wire.reset()
                return
            await self._pass_on(data, wire, wire.client, 0.0)
        await wire.flows.wait()
        wire.client.write_eof()

    async def _pass_on(self, data: bytes, wire: _Wire, to: asyncio.StreamWriter, latency: float) -> None:
        await wire.flows.wait()
        if wait := latency + (len(data) / self.limit if self.limit else 0.0):
            await asyncio.sleep(wait)
            await wire.flows.wait()
        to.write(data)
        await to.drain()
