"""A partner: a server on loopback that keeps what it gets, and answers as a test wants, down to the single byte."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from time import monotonic

PATIENCE = 20.0
"""Seconds after which what has not come will not come."""
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came, with its first line. Names of headers are in lower case; ``at`` is monotonic seconds."""

    line: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Reply = bytes | tuple[int, bytes]
"""The whole answer as it is on the wire, or status and body."""
Answer = Reply | Callable[[Received], Reply | Awaitable[Reply]]


def status(code: int, *headers: str, body: bytes = b"") -> bytes:
    """An answer with that status."""
    lines = [f"HTTP/1.1 {code} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def listening_socket() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    # Connections inherit it. asyncio sets it on its own sockets alone, and elsewhere an answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Connection:
    """One connection to a partner, with what behaviours are made of."""

    def __init__(self, partner: Partner, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.partner, self.reader, self.writer = partner, reader, writer
        self.idle = False

    async def receive(self) -> Received | None:
        """One whole request; None when there is none any more."""
        self.idle = True
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return None
        self.idle = False
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        received = Received(head[0], headers, body, monotonic())
        await self.partner.keep(received)
        return received

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def wait_for_the_end(self) -> None:
        """Until the gateway lets go."""
        while data := await self.reader.read(65536):
            self.partner.leftovers += len(data)

    def reset(self) -> None:
        """Break off with RST instead of FIN."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Connection], Awaitable[None]]


class Partner:
    """Gives ``answers`` by turns, and ``otherwise`` when there is none left; or behaves as it is told to."""

    def __init__(
        self, *answers: Answer, otherwise: Answer = OK, behave: Behaviour | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.answers = list(answers)
        self.otherwise = otherwise
        self.behave = behave or self._answer_all
        self.host = host
        self.scheme = "http"
        self.port = 0
        self.received: list[Received] = []
        self.busy = self.busiest = 0  # requests that wait for their answer
        self.accepted = 0  # connections
        self.leftovers = 0  # bytes that could still be read after the partner was forgiven
        self.called = asyncio.Event()  # set at the first connection
        self.forgiven = asyncio.Event()  # set at the end: a partner who never read begins to
        self._arrived = asyncio.Condition()
        self._serving: dict[asyncio.Task[None], Connection] = {}
        self._server: asyncio.Server | None = None

    def url(self, path: str = "/hook", host: str | None = None, scheme: str | None = None) -> str:
        return f"{scheme or self.scheme}://{host or self.host}:{self.port}{path}"

    async def got(self, count: int = 1, target: str | None = None) -> list[Received]:
        """The requests, as soon as there are so many; those for one target if it is given."""

        def found() -> list[Received]:
            return [received for received in self.received if target in (None, received.target)]

        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: len(found()) >= count)
        return found()

    async def open(self, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None) -> None:
        listener = listening_socket()
        if receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._server = await asyncio.start_server(self._serve, sock=listener, ssl=tls)
        self.scheme = "https" if tls else "http"
        self.port = listener.getsockname()[1]

    def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    async def let_go(self, seconds: float = 3.0) -> int:
        """Takes no more connections. How many are still held open after a while, but those kept for a next request."""
        self.forgiven.set()
        self.stop_listening()
        for connection in self._serving.values():
            if connection.idle:
                connection.writer.transport.abort()
        if not self._serving:
            return 0
        _, stuck = await asyncio.wait(self._serving, timeout=seconds)
        return len(stuck)

    async def close(self) -> None:
        await self.let_go(0)
        serving = list(self._serving)
        for task in serving:
            self._serving[task].writer.transport.abort()
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def keep(self, received: Received) -> None:
        async with self._arrived:
            self.received.append(received)
            self._arrived.notify_all()

    async def answer(self, received: Received) -> Reply:
        answer = self.answers.pop(0) if self.answers else self.otherwise
        if isinstance(answer, bytes | tuple):
            return answer
        reply = answer(received)
        return await reply if inspect.isawaitable(reply) else reply

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: what asyncio says of its own when it is cancelled depends on its version.
        connection = Connection(self, reader, writer)
        task = asyncio.get_running_loop().create_task(self._serve_one(connection))
        self._serving[task] = connection
        task.add_done_callback(self._serving.__delitem__)

    async def _serve_one(self, connection: Connection) -> None:
        self.accepted += 1
        self.called.set()
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self.behave(connection)
        finally:
            connection.writer.transport.abort()

    async def _answer_all(self, connection: Connection) -> None:
        while received := await connection.receive():
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            try:
                reply = await self.answer(received)
            finally:
                self.busy -= 1
            await connection.send(status(reply[0], body=reply[1]) if isinstance(reply, tuple) else reply)


@asynccontextmanager
async def partner(
    *answers: Answer, otherwise: Answer = OK, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Partner]:
    made = Partner(*answers, otherwise=otherwise)
    await made.open(tls)
    try:
        yield made
    finally:
        await made.close()


class PartnerBeside:
    """A partner for a test that isn't async: it lives in a thread of its own."""

    def __init__(self, partner: Partner, loop: asyncio.AbstractEventLoop) -> None:
        self._partner, self._loop = partner, loop
        self.url = partner.url

    @property
    def received(self) -> list[Received]:
        return self._partner.received

    def got(self, count: int = 1) -> list[Received]:
        """The requests, as soon as there are so many."""
        return asyncio.run_coroutine_threadsafe(self._partner.got(count), self._loop).result()


@contextmanager
def partner_beside(*answers: Answer, otherwise: Answer = OK) -> Iterator[PartnerBeside]:
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    there = partner(*answers, otherwise=otherwise)
    try:
        made = asyncio.run_coroutine_threadsafe(there.__aenter__(), loop).result()
        yield PartnerBeside(made, loop)
        asyncio.run_coroutine_threadsafe(there.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
