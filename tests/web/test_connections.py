"""What a connection may cost before anybody knows who calls, against a real `serve` and real sockets."""

import asyncio
import json
import re
import resource
import select
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.command_line import bare_environment, command
from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.settings import Settings
from webhook_gateway.store import keys, tenants
from webhook_gateway.store.database import Database
from webhook_gateway.web.connections import CloseReason, Connections, Limits
from webhook_gateway.web.protocol import LONGEST_TARGET, MOST_HEADERS, MOST_PIPELINED

HEADERS = 32_768
HEAD = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n"
ALIVE = HEAD + b"\r\n"
ORDER = {"order_id": "ord_1", "patient_id": "pat_1", "ordering_practitioner_id": "prac_1", "priority": "stat"}
EVENT = json.dumps({"type": "lab_order.placed", "data": ORDER})
FLOOD, PART = 200_000_000, 1_000_000
PATIENCE = 30.0


@dataclass
class Served:
    """A running `serve` with one API process."""

    pid: int
    port: int
    key: str
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0), limit=2**24)
        self.writers.append(writer)
        return reader, writer

    async def whole(self, request: bytes, address: str = "127.0.0.1") -> bytes:
        """Everything until the connection is closed."""
        reader, writer = await self.connect(address)
        writer.write(request)
        return await asyncio.wait_for(reader.read(), PATIENCE)

    def post(self, *, close: bool = True) -> bytes:
        head = f"POST /v1/events HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {self.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(EVENT)}\r\n"
        return (head + ("Connection: close\r\n" if close else "") + "\r\n" + EVENT).encode()

    async def refused(self) -> dict[str, float]:
        """What the metrics say, by reason."""
        head = (
            f"GET /metrics HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {self.key}\r\nConnection: close\r\n\r\n"
        )
        text = (await self.whole(head.encode(), "127.0.0.9")).decode()
        found = re.findall(r'^webhook_gateway_connections_refused_total\{reason="(\w+)"\} (\S+)$', text, re.MULTILINE)
        return {reason: float(count) for reason, count in found}

    def most_memory(self) -> int:
        """Bytes that it has had at most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1_024


@asynccontextmanager
async def serving(
    database_url: str, *arguments: str, descriptors: int = 0, **settings: object
) -> AsyncIterator[Served]:
    """`serve` on a free port, with a tenant and a key that may do everything needed here."""
    database, vault = Database(database_url, connections=1), Vault(MasterKeys({"test": bytes(32)}))
    async with database.connection() as connection:
        tenant_id = await tenants.make(connection, vault)
    async with database.begin() as transaction:
        _, key = await keys.issue(transaction, tenant_id, keys.NewKey("a test", ["events:write", "metrics:read"]))
    await database.close()
    given = {f"WEBHOOK_GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
    master = f"test:{b64encode(bytes(32)).decode()}"
    ours = command("serve", "--port", "0", "--processes", "1", *arguments)
    if descriptors:
        ours = [sys.executable, "-c", WITH_DESCRIPTORS, str(descriptors), *ours]
    process = subprocess.Popen(
        ours,
        env=bare_environment(DATABASE_URL=database_url, WEBHOOK_GATEWAY_MASTER_KEYS=master, **given),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    served = Served(process.pid, int(said.rpartition(":")[2]), key)
    try:
        assert b" 200 OK" in await served.whole(HEAD + b"Connection: close\r\n\r\n", "127.0.0.9")
        yield served
    finally:
        for writer in served.writers:
            writer.transport.abort()
        process.send_signal(signal.SIGTERM)
        rest = await asyncio.to_thread(process.communicate)
        assert "Traceback" not in rest[1], rest[1]


WITH_DESCRIPTORS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def check_problem(answer: bytes, status: int, name: str) -> None:
    """The answer is one whole problem, and says that the connection ends."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(head) == [status], answer[:200]
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert int(headers[b"content-length"]) == len(body)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"connection"] == b"close"
    assert headers[b"x-content-type-options"] == b"nosniff"
    problem = json.loads(body)
    assert problem["type"] == f"urn:problem:webhook-gateway:{name}"
    assert problem["status"] == status
    assert problem["request_id"].encode() == headers[b"x-request-id"]


async def flood(served: Served, begin: bytes, unit: bytes) -> int:
    """How many bytes could be sent, of as many as `FLOOD`, before the connection broke."""
    _, writer = await served.connect()
    part, sent = unit * (PART // len(unit)), 0
    with suppress(ConnectionError):
        writer.write(begin)
        while sent < FLOOD:
            writer.write(part)
            await asyncio.wait_for(writer.drain(), PATIENCE)
            sent += len(part)
    return sent


CHUNKED = b"POST /v1/events HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "a header line": (HEAD + b"X-A: ", b"a"),
    "a header's name": (HEAD, b"a"),
    "a request line": (b"GET /", b"a"),
    "headers": (HEAD, b"a: b\r\n"),
    "a trailer": (CHUNKED + b"0\r\nX-A: ", b"a"),
    "an extension of a chunk": (CHUNKED + b"1;", b"a"),
    "empty lines": (b"", b"\r\n"),
    "a body that nobody reads": (b"POST /v1/events HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b"a"),
    "requests that nobody waits for": (b"", ALIVE),
}


async def test_what_has_no_end_is_cut_off_early_and_takes_no_memory(database_url: str) -> None:
    async with serving(database_url) as served:
        before = served.most_memory()
        for name, (begin, unit) in ENDLESS.items():
            assert await flood(served, begin, unit) < 30_000_000, name
        assert served.most_memory() - before < 100_000_000
        assert statuses(await served.whole(served.post())) == [202]


async def test_a_head_that_is_too_large_is_answered_and_one_that_just_fits_is_served(database_url: str) -> None:
    def target(length: int) -> bytes:
        return b"GET /healthz?" + b"a" * (length - 9) + b" HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"

    def headers(count: int, size: int = 0) -> bytes:
        lines = [b"X-%d: %s\r\n" % (number, b"a" * size) for number in range(count - 2)]
        return HEAD + b"Connection: close\r\n" + b"".join(lines) + b"\r\n"

    trailer = CHUNKED + b"0\r\nX-A: " + b"a" * 320_000
    late = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"0\r\nAuthorization: Bearer x\r\n\r\n"
    async with serving(database_url) as served:
        for answer in (target(LONGEST_TARGET), headers(MOST_HEADERS), headers(100, 300)):
            assert statuses(await served.whole(answer)) == [200]
        check_problem(await served.whole(target(LONGEST_TARGET + 1)), 414, "uri-too-long")
        check_problem(await served.whole(target(2 * HEADERS)), 414, "uri-too-long")
        check_problem(await served.whole(headers(MOST_HEADERS + 1)), 431, "headers-too-large")
        check_problem(await served.whole(headers(100, 400)), 431, "headers-too-large")
        check_problem(await served.whole(headers(3, HEADERS)), 431, "headers-too-large")
        check_problem(await served.whole(b"\x16\x03\x01\x02\x00\x01"), 400, "bad-request")
        check_problem(await served.whole(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400, "bad-request")
        assert statuses(await served.whole(trailer)) == [401]
        assert statuses(await served.whole(late)) == [401]
        refused = await served.refused()
        assert refused == {"request_line": 2, "headers": 4, "malformed": 2}


async def dripped(served: Served, begin: bytes) -> bytes:
    """The answer to somebody who sends a byte from time to time."""
    reader, writer = await served.connect()
    writer.write(begin)
    whole = asyncio.create_task(reader.read())
    while not (await asyncio.wait({whole}, timeout=0.05))[0]:
        with suppress(ConnectionError):
            writer.write(b"a")
            await writer.drain()
    return whole.result()


async def test_who_is_too_slow_or_silent_is_ended(database_url: str) -> None:
    async with serving(database_url, header_timeout=0.4, idle_timeout=0.4, body_rate=100_000) as served:
        served_post = served.post(close=False)
        head = served.post().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        body = head.replace(b"Content-Length: %d" % len(EVENT), b"Content-Length: 100000")
        chunked = body.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked") + b"ffff\r\n"
        nobody = b"POST /v1/events HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"
        (
            silent,
            partial,
            dripping_head,
            partial_body,
            dripping_body,
            dripping_chunk,
            answered_early,
            idle,
            partial_next,
        ) = await asyncio.gather(
            served.whole(b""),
            served.whole(HEAD),
            dripped(served, HEAD),
            served.whole(body + b"{"),
            dripped(served, body),
            dripped(served, chunked),
            dripped(served, nobody),
            served.whole(served_post),
            served.whole(served_post + HEAD),
        )
        assert silent == b""
        check_problem(partial, 408, "request-timeout")
        check_problem(dripping_head, 408, "request-timeout")
        for answer in (partial_body, dripping_body, dripping_chunk):
            check_problem(answer, 408, "request-timeout")
        assert statuses(answered_early) == [401]
        assert statuses(idle) == [202]
        assert statuses(partial_next)[0] == 202
        refused = await served.refused()
        assert refused["slow_headers"] >= 3
        assert refused["slow_body"] == 4


async def test_who_takes_nothing_of_an_answer_is_ended(database_url: str) -> None:
    async with serving(database_url, idle_timeout=0.4, public_docs=True) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            request = b"GET /openapi.json HTTP/1.1\r\nHost: gateway\r\n\r\n"
            client.sendall(request * 100)
            client.sendall(request * 10_000)
            # Only a reset shows without reading: the other end has gone, and what we sent last was never read.
            poll = select.poll()
            poll.register(client, 0)
            assert await asyncio.to_thread(poll.poll, PATIENCE * 1_000)
        assert (await served.refused())["unread"] == 1


async def test_one_address_can_not_take_the_connections_of_another(database_url: str) -> None:
    async with serving(database_url, api_connections_by_address=100, api_connections=400) as served:
        held = [await served.connect() for _ in range(600)]
        ended = [reader for reader, _ in held if reader is not held[0][0]][99:]
        for reader in ended:
            check_problem(await asyncio.wait_for(reader.read(), PATIENCE), 503, "unavailable")
        assert statuses(await served.whole(served.post(), "127.0.0.2")) == [202]
        reader, writer = held[0]
        writer.write(served.post())  # whoever was let in is served
        assert statuses(await reader.read()) == [202]
        assert statuses(await served.whole(served.post())) == [202]  # and leaves its place to another
        assert await served.refused() == {"address": 500}


async def test_a_proxy_that_is_trusted_is_not_counted_by_its_address(database_url: str) -> None:
    given = ("--trusted-proxies", "127.0.0.3,10.0.0.0/8")
    async with serving(database_url, *given, api_connections_by_address=1, api_connections=20) as served:
        for _ in range(19):
            await served.connect("127.0.0.3")
        assert statuses(await served.whole(served.post(), "127.0.0.3")) == [202]
        assert await served.refused() == {}
        await served.connect("127.0.0.3")
        check_problem(await served.whole(b"", "127.0.0.2"), 503, "unavailable")


async def test_clients_never_take_the_descriptors_that_the_database_needs(database_url: str) -> None:
    async with serving(database_url, descriptors=128, header_timeout=60) as served:
        held = [await served.connect(f"127.0.0.{number}") for number in range(10, 14) for _ in range(30)]
        open_ones = Path(f"/proc/{served.pid}/fd")
        assert len(held) == 120
        writer, answers = held[0][1], []
        for _ in range(3):
            writer.write(served.post(close=False))
            answers.append((await held[0][0].readuntil(b"\r\n\r\n"))[:12])
            await held[0][0].readuntil(b"}")
        assert answers == [b"HTTP/1.1 202"] * 3
        assert len(list(open_ones.iterdir())) < 128


async def test_requests_in_a_row_are_answered_in_a_row_up_to_a_number(database_url: str) -> None:
    async with serving(database_url, idle_timeout=1) as served:
        last = HEAD + b"Connection: close\r\n\r\n"
        assert statuses(await served.whole(ALIVE * MOST_PIPELINED + last)) == [200] * (MOST_PIPELINED + 1)
        too_many = await served.whole(ALIVE * 1_000)
        assert statuses(too_many) == [200] * (MOST_PIPELINED + 1) + [503]
        posts = await served.whole(served.post(close=False) * 10 + b"\x00")
        assert statuses(posts) == [202] * 10 + [400]
        unfinished = await served.whole(served.post(close=False) * 2 + CHUNKED + b"no length\r\n")
        assert statuses(unfinished) == [202, 202, 400]
        upgrade = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        assert statuses(await served.whole(upgrade + last))[0] == 200


class Checked:
    """A connection that notes how the sweep sees it."""

    def check(self, now: float, passed: float) -> None:
        raise AssertionError("nobody sweeps here")


async def test_an_event_is_answered_as_whole_and_as_everything_else_is(database_url: str) -> None:
    async with serving(database_url) as served:
        answers = await served.whole(served.post(close=False) + ALIVE + served.post(), "127.0.0.2")
    heads, bodies, closes = [], [], []
    while answers:
        head, _, answers = answers.partition(b"\r\n\r\n")
        headers = dict(re.findall(rb"^([\w-]+): (.*?)\r?$", head, re.MULTILINE))
        length = int(headers.pop(b"content-length"))
        bodies.append(json.loads(answers[:length]))
        answers = answers[length:]
        closes.append(headers.pop(b"connection", None))
        heads.append(set(headers))
    assert closes == [None, None, b"close"]
    assert heads[0] == heads[1] == heads[2]
    assert [body.get("type") for body in bodies] == ["lab_order.placed", None, "lab_order.placed"]


async def test_an_event_is_judged_alike_however_its_bytes_come_and_whatever_came_before(database_url: str) -> None:
    async with serving(database_url) as served:
        reader, writer = await served.connect("127.0.0.2")
        post, answers = served.post(close=False), b""
        head = post.removesuffix(EVENT.encode())
        turns = {
            post: [202],
            post + b"": [202],
            head + EVENT.replace("}}", "}]").encode(): [400],
            head + EVENT.replace("stat", "now!").encode(): [422],
            post * 3: [202] * 3,
            post + ALIVE: [202, 200],
            post + post[:-1] + b"}" + post[:50]: [202, 202],
            post[50:]: [202],
            b"\r\n" + post: [202],
            head.replace(b"POST", b"PUT"): [405],
            EVENT.encode() + post: [202],
        }
        for sent, wanted in turns.items():
            writer.write(sent)
            before = len(statuses(answers))
            while len(found := statuses(answers)[before:]) < len(wanted):
                answers += await asyncio.wait_for(reader.read(65_536), PATIENCE)
            assert found == wanted, sent
        assert answers.count(b"\r\ncontent-length: ") == len(statuses(answers))


async def test_a_request_that_begins_behind_an_event_is_read_as_one_with_its_rest(database_url: str) -> None:
    """Whoever has a key could else say, for everybody at an address, what a header section of their choice means."""
    async with serving(database_url) as served:
        post = served.post(close=False)
        without_body = post.partition(b"\r\n\r\n")[0].replace(b"Content-Length: ", b"X-Length: ")
        reader, writer = await served.connect("127.0.0.2")
        for sent, wanted in (
            (post, b" 202 "),
            (post + without_body + b"\r\nX-Rest: ", b" 202 "),
            (ALIVE, b" 400 "),  # a header's rest: an event without a body
        ):
            writer.write(sent)
            assert wanted in await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE)
        assert b" 200 " in await served.whole(HEAD + b"Connection: close\r\n\r\n", "127.0.0.2")
        other, alive = await served.connect("127.0.0.2")
        alive.write(ALIVE)
        assert b" 200 " in await asyncio.wait_for(other.readuntil(b"}"), PATIENCE)
        for sent, wanted in (
            (post, b" 202 "),
            (post + b"PUT /readyz HTTP/1.1\r\nX-Rest: ", b" 202 "),
            (post, b" 405 "),
        ):
            alive.write(sent)
            assert wanted in await asyncio.wait_for(other.readuntil(b"}"), PATIENCE)


async def test_nothing_is_done_of_what_comes_behind_our_last_word(database_url: str) -> None:
    database = Database(database_url, connections=1)
    async with serving(database_url, body_limit=1_024) as served:
        assert statuses(await served.whole(served.post())) == [202]
        head = served.post(close=False).partition(b"Content-Length")[0]
        large = head + b"Content-Length: 2000\r\n\r\n" + b" " * 2_000
        assert statuses(await served.whole(large + served.post())) == [413]
        assert statuses(await served.whole(served.post())) == [202]
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM outbox") == 2
    await database.close()


async def test_the_body_of_a_request_that_asks_for_an_upgrade_is_never_the_next_request(database_url: str) -> None:
    async with serving(database_url) as served:
        reader, writer = await served.connect()
        asking = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(ALIVE)
        writer.write(served.post(close=False).partition(b"Content-Length")[0] + asking)
        answer = await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE)
        writer.write(ALIVE + HEAD + b"Connection: close\r\n\r\n")
        assert b"ask for no other" in answer
        assert statuses(answer + await asyncio.wait_for(reader.read(), PATIENCE)) == [400]


async def test_a_body_in_chunks_is_held_to_the_limit_even_if_all_of_it_is_here(database_url: str) -> None:
    async with serving(database_url, body_limit=1_024) as served:
        assert statuses(await served.whole(served.post())) == [202]
        event = EVENT + " " * 1_024
        head = served.post().partition(b"\r\n\r\n")[0]
        head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
        sent = head + f"\r\n\r\n{len(event):x}\r\n{event}\r\n0\r\n\r\n".encode()
        assert statuses(await served.whole(sent)) == [413]


async def test_a_length_with_zeros_without_end_is_a_length(database_url: str) -> None:
    async with serving(database_url) as served:
        sent = served.post().replace(b"Content-Length: ", b"Content-Length: " + b"0" * 5_000)
        assert statuses(await served.whole(sent)) == [202]
        assert statuses(await served.whole(sent)) == [202]


def limits(connections: int = 100, by_address: int = 2, trusted: str = "") -> Limits:
    given = Settings(api_connections=connections, api_connections_by_address=by_address)
    return Limits.from_settings(given, trusted)


@pytest.mark.parametrize(
    ("others", "address", "reason"),
    [
        (["10.0.0.1"] * 2, "10.0.0.1", CloseReason.ADDRESS),
        (["10.0.0.1"] * 2, "::ffff:10.0.0.1", CloseReason.ADDRESS),
        (["10.0.0.1"] * 2, "10.0.0.2", None),
        (["2001:db8::1", "2001:db8::2"], "2001:db8::3", CloseReason.ADDRESS),
        (["2001:db8::1", "2001:db8::2"], "2001:db8:0:1::3", None),
        (["fe80::1%eth0"] * 2, "fe80::2%eth1", CloseReason.ADDRESS),
        (["192.0.2.7"] * 50, "192.0.2.7", None),
        (["192.0.2.7"] * 100, "10.0.0.1", CloseReason.CONNECTIONS),
    ],
)
async def test_connections_are_counted_by_who_has_the_address(
    others: list[str], address: str, reason: CloseReason | None
) -> None:
    counted = Connections(limits(trusted="192.0.2.0/24"))
    loop = asyncio.get_running_loop()
    for other in others:
        assert counted.admit(Checked(), other, loop) is None
    assert counted.admit(Checked(), address, loop) == reason


async def test_an_address_is_forgotten_with_its_last_connection() -> None:
    counted, loop = Connections(limits()), asyncio.get_running_loop()
    for _ in range(3):
        first, second = Checked(), Checked()
        assert [counted.admit(each, "10.0.0.1", loop) for each in (first, second)] == [None, None]
        for each in (first, second, first, Checked()):
            counted.leave(each)


@pytest.mark.parametrize("descriptors", [20, 128, 512, 1_024, 65_536])
def test_what_waits_to_be_accepted_fits_beside_what_is_open(descriptors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    found = limits(2_000, 2_000)
    assert 16 <= found.connections <= 2_000
    assert found.by_address <= found.connections // 2
    assert found.backlog >= 1
    assert descriptors < 128 or found.connections + found.backlog + 64 <= descriptors
