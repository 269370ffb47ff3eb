"""A DNS server of the tests' own, and the product's resolver for it: names resolve to what a test says, or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.support.partner import PATIENCE
from webhook_gateway.outbound.resolvers import DnsResolver

OWN_DNS = Path(__file__).parent / "own_dns"
"""A directory that in a process's PYTHONPATH has it ask what its `OWN_DNS` names, as `DnsServer.address`."""


class DnsServer:
    """Answers A, AAAA and CNAME over UDP and TCP.

    ``records`` holds addresses, and names that stand for a CNAME. A name that is not in it does not exist (NXDOMAIN).
    """

    def __init__(self) -> None:
        self.records: dict[str, Sequence[str]] = {"localhost": ["127.0.0.1", "::1"]}
        self.silent: set[str] = set()
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self._question = asyncio.Event()
        self.port = 0
        self.ttl = 0

    async def until_asked(self, names: set[str]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not names.issubset(self.asked):
                self._question.clear()
                await self._question.wait()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def resolve(self) -> DnsResolver:
        """What the sender is given instead of the machine's own."""
        return DnsResolver([self.address])

    def answer(self, wire: bytes, room: int) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked.append(name)
        self._question.set()
        if name in self.silent:
            return None
        response = dns.message.make_response(query)
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self.records:
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            self._fill(response, name, question.rdtype)
        try:
            return response.to_wire(max_size=room)
        except dns.exception.TooBig:
            truncated = dns.message.make_response(query)
            truncated.flags |= dns.flags.TC
            return truncated.to_wire()

    def _fill(self, response: dns.message.Message, name: str, kind: dns.rdatatype.RdataType) -> None:
        records = self.records[name]
        for alias in (record for record in records if not _is_address(record)):
            response.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", "CNAME", alias + "."))
            self._fill(response, alias, kind)
        wanted = [
            record for record in records if _is_address(record) and (":" in record) == (kind == dns.rdatatype.AAAA)
        ]
        if wanted:
            type_ = dns.rdatatype.to_text(kind)
            response.answer.append(dns.rrset.from_text_list(name + ".", self.ttl, "IN", type_, wanted))


def _is_address(record: str) -> bool:
    return ":" in record or record.replace(".", "").isdigit()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, room=1232)
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    server = DnsServer()

    async def answer_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        answer = server.answer(wire, room=65535)
        if answer is not None:
            writer.write(len(answer).to_bytes(2) + answer)
            await writer.drain()
        writer.close()

    stream = await asyncio.start_server(answer_stream, "127.0.0.1", 0)
    server.port = stream.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(server), ("127.0.0.1", server.port))
    try:
        yield server
    finally:
        transport.close()
        stream.close()
        await stream.wait_closed()
