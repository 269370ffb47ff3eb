"""Partners that misbehave, as real servers: each behaviour is one function of a connection."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

from tests.support.partner import OK, Behaviour, Connection, Partner, status

DRIP = 0.05  # seconds between two drops


@asynccontextmanager
async def hostile(
    behave: Behaviour, *, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
) -> AsyncIterator[Partner]:
    """Run a partner. On leaving, the gateway must have let go of every connection but those kept for a next request."""
    partner = Partner(behave=behave, host="partner.example.com")
    await partner.open(tls, receive_buffer)
    try:
        yield partner
        stuck = await partner.let_go()
        assert not stuck, f"the gateway held {stuck} connections open"
    finally:
        await partner.close()


def answers(data: bytes) -> Behaviour:
    """Answers every request with the same bytes."""

    async def behave(connection: Connection) -> None:
        while await connection.receive():
            await connection.send(data)

    return behave


friendly = answers(OK)


def answers_status(code: int, *headers: str) -> Behaviour:
    return answers(status(code, *headers))


async def accepts_and_never_answers(connection: Connection) -> None:
    await connection.wait_for_the_end()


async def resets_on_accept(connection: Connection) -> None:
    connection.reset()


async def closes_without_an_answer(connection: Connection) -> None:
    await connection.receive()


def closes_at_the_second_request(*, reset: bool = False) -> Behaviour:
    """Answers once, and closes when it is asked again: as if it had closed just before."""

    async def behave(connection: Connection) -> None:
        await connection.receive()
        await connection.send(OK)
        await connection.receive()
        if reset:
            connection.reset()

    return behave


async def resets_after_headers(connection: Connection) -> None:
    await connection.receive()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    connection.reset()


async def closes_within_headers(connection: Connection) -> None:
    await connection.receive()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Le")


async def drips_its_body(connection: Connection) -> None:
    await connection.receive()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    await drip(connection, iter(lambda: b"x", b""))


async def drips_its_headers(connection: Connection) -> None:
    await connection.receive()
    await connection.send(b"HTTP/1.1 200 OK\r\n")
    await drip(connection, (b"X: y\r\n" for _ in iter(int, 1)))


async def drips_one_header(connection: Connection) -> None:
    await connection.receive()
    await connection.send(b"HTTP/1.1 200 OK\r\nX: ")
    await drip(connection, (b"y" for _ in iter(int, 1)))


async def drip(connection: Connection, drops: Iterator[bytes]) -> None:
    for drop in drops:
        await connection.send(drop)
        await asyncio.sleep(DRIP)


async def sends_endless_103s(connection: Connection) -> None:
    await connection.receive()
    while True:
        await connection.send(b"HTTP/1.1 103 Early Notifications\r\nLink: </x>\r\n\r\n")


async def drips_endless_103s(connection: Connection) -> None:
    await connection.receive()
    await drip(connection, (b"HTTP/1.1 103 Early Notifications\r\n\r\n" for _ in iter(int, 1)))


async def sends_an_infinite_body(connection: Connection) -> None:
    await connection.receive()
    await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await connection.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")


async def sends_200_mb_of_gzipped_zeros(connection: Connection) -> None:
    await connection.receive()
    squeeze = zlib.compressobj(1, wbits=31)
    zeros = bytes(2**20)
    bomb = b"".join(squeeze.compress(zeros) for _ in range(200)) + squeeze.flush()
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    await connection.send(head.encode() + bomb)
    await connection.wait_for_the_end()


async def sends_a_5_mb_header(connection: Connection) -> None:
    await connection.receive()
    await connection.send(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(80):
        await connection.send(b"y" * 65536)
    await connection.send(b"\r\nContent-Length: 0\r\n\r\n")
    await connection.wait_for_the_end()


async def sends_a_5_mb_status_line(connection: Connection) -> None:
    await connection.receive()
    await connection.send(b"HTTP/1.1 200 ")
    for _ in range(80):
        await connection.send(b"y" * 65536)
    await connection.wait_for_the_end()


async def sends_10_000_headers(connection: Connection) -> None:
    await connection.receive()
    lines = "".join(f"X-{number}: y\r\n" for number in range(10_000))
    await connection.send(f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n".encode())
    await connection.wait_for_the_end()


async def never_reads(connection: Connection) -> None:
    connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await connection.partner.forgiven.wait()
    connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await connection.wait_for_the_end()


async def answers_before_it_read_the_body(connection: Connection) -> None:
    await connection.reader.readuntil(b"\r\n\r\n")
    connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    await connection.partner.forgiven.wait()
    connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await connection.wait_for_the_end()


async def never_shakes_hands(connection: Connection) -> None:
    """For a partner without TLS who is called by https: reads the greeting and keeps silent."""
    await connection.wait_for_the_end()


def refuses_the_handshake(context: ssl.SSLContext) -> Behaviour:
    """Sends the alert that OpenSSL writes, as a web server does; asyncio's own server would drop it."""

    async def behave(connection: Connection) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server_side = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(await connection.reader.read(65536))
        with suppress(ssl.SSLError):
            server_side.do_handshake()
        await connection.send(outgoing.read())
        await connection.wait_for_the_end()

    return behave


async def speaks_plain_http_to_tls(connection: Connection) -> None:
    await connection.reader.read(1024)
    await connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


async def tunnels(connection: Connection) -> None:
    """An egress proxy: CONNECT to 127.0.0.1 on the asked port, whatever the name."""
    request = await connection.receive()
    assert request is not None
    assert request.line.startswith("CONNECT ")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(request.target.rpartition(":")[2]))
    await connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    try:
        await asyncio.gather(_copy(connection.reader, writer), _copy(reader, connection.writer))
    finally:
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
