"""The sender, against real sockets: hostile partners, hostile DNS, bad certificates, and policy at every turn."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import pytest
import trustme
import uvloop

from tests.end_to_end import hostile as partners
from tests.end_to_end.hostile import hostile
from tests.support.dns_server import DnsServer, dns_server
from tests.support.partner import OK, PATIENCE, Behaviour, Connection, status
from webhook_gateway.outbound.egress import AddressDenied, Egress
from webhook_gateway.outbound.http1 import BODY_LIMIT
from webhook_gateway.outbound.http1 import Connection as Kept
from webhook_gateway.outbound.resolvers import DnsResolver, SystemResolver
from webhook_gateway.outbound.sender import Request, Sender
from webhook_gateway.rules.addresses import classify
from webhook_gateway.rules.credentials import TlsSettings
from webhook_gateway.rules.outcome import (
    Accepted,
    Blocked,
    Exchange,
    Outcome,
    Phase,
    Rejected,
    Remedy,
    TimedOut,
    Unreachable,
    Unsendable,
)
from webhook_gateway.rules.targets import Policy, development

DEADLINE = 10.0  # seconds; a busy machine keeps it
SOON = 1.0  # seconds; for who will not answer anyway
PARTNER = "partner.example.com"
STRICT = Policy(allow_http=True, ports=None)


class Connects:
    """Every address that this process calls connect() on, seen by the interpreter itself."""

    def __init__(self) -> None:
        self.watching: list[str] | None = None
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self.watching is not None and arguments[0].type == socket.SOCK_STREAM:
            self.watching.append(str(arguments[1][0]))


CONNECTS = Connects()  # an audit hook can't be taken out again


@pytest.fixture
def connects() -> Iterator[list[str]]:
    seen: list[str] = []
    CONNECTS.watching = seen
    yield seen
    CONNECTS.watching = None


async def to_loopback(host: str) -> Sequence[str]:
    return ["127.0.0.1"]


@asynccontextmanager
async def opened(policy: Policy | None = None, **settings: Any) -> AsyncIterator[Sender]:
    sender = Sender(policy or development(), **{"resolver": to_loopback, **settings})
    try:
        yield sender
    finally:
        await sender.aclose()


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with opened() as sender:
        yield sender


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with dns_server() as server:
        yield server


def request(
    url: str,
    *,
    endpoint_id: UUID | None = None,
    revision: int = 1,
    headers: Mapping[str, str] | None = None,
    body: bytes = b'{"id":"evt_1"}',
    deadline: float = DEADLINE,
    **more: Any,
) -> Request:
    sent = headers if headers is not None else {"webhook-id": "evt_1", "Content-Type": "application/json"}
    return Request(endpoint_id or uuid4(), revision, url, sent, body, deadline, **more)


async def post(sender: Sender, to_send: Request) -> Exchange:
    """Post, and hold the sender to its word: whatever happens ends, and how long it took is told."""
    started = monotonic()
    async with asyncio.timeout(to_send.deadline + PATIENCE):
        exchange = await sender.post(to_send)
    assert exchange.duration <= monotonic() - started
    return exchange


# What is sent


async def test_a_partner_gets_exactly_the_headers_and_bytes_that_were_given(sender: Sender) -> None:
    async with hostile(partners.friendly) as partner:
        headers = {
            "webhook-id": "evt_1",
            "Content-Type": "application/json",
            "User-Agent": "gateway",
            "X-Any": "\u00e4",
        }
        exchange = await post(sender, request(partner.url("/a?b=%20c"), headers=headers, body=b"\x00\xff{}"))
        assert exchange.outcome == Accepted(200)
        assert exchange.phase is Phase.ANSWERED
        assert exchange.response is not None
        assert exchange.response.length == 2
        assert exchange.response.sha256 == hashlib.sha256(b"ok").digest()
        assert exchange.response.excerpt == b""
        (sent,) = partner.received
        assert sent.line == "POST /a?b=%20c HTTP/1.1"
        assert sent.body == b"\x00\xff{}"
        assert sent.headers == {
            "host": f"partner.example.com:{partner.port}",
            "content-length": "4",
            "webhook-id": "evt_1",
            "content-type": "application/json",
            "user-agent": "gateway",
            "x-any": "\u00e4".encode().decode("latin-1"),
        }


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X": "a\nY: b"},
        {"X": "a\x00"},
        {"X": "\ud800"},
        {"X\r\nY": "b"},
        {"X Y": "b"},
        {"": "b"},
        {"Host": "169.254.169.254"},
        {"hOST": "169.254.169.254"},
        {"Transfer-Encoding": "chunked"},
        {"content-length": "1"},
        {"Connection": "close"},
        {"Expect": "100-continue"},
        {"Cookie": "a=b"},
    ],
)
async def test_a_header_that_would_forge_a_request_is_not_sent(sender: Sender, headers: dict[str, str]) -> None:
    async with hostile(partners.friendly) as partner:
        exchange = await post(sender, request(partner.url(), headers=headers))
        assert isinstance(exchange.outcome, Unsendable)
        assert partner.accepted == 0


async def test_proxies_of_the_environment_are_ignored(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hostile(partners.friendly) as partner, hostile(partners.friendly) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with opened() as fresh:
            for one in (sender, fresh):
                assert (await post(one, request(partner.url()))).outcome == Accepted(200)
        assert proxy.accepted == 0


async def test_cookies_are_neither_kept_nor_sent(sender: Sender) -> None:
    async with hostile(partners.answers_status(204, "Set-Cookie: a=b; Path=/")) as partner:
        endpoint_id = uuid4()
        for _ in range(2):
            await post(sender, request(partner.url(), endpoint_id=endpoint_id))
        assert "cookie" not in partner.received[1].headers


# Connections


async def test_connections_are_kept_for_one_revision_of_one_endpoint(sender: Sender) -> None:
    async with hostile(partners.friendly) as partner:
        one, other = uuid4(), uuid4()
        for _ in range(3):
            await post(sender, request(partner.url(), endpoint_id=one))
        assert partner.accepted == 1
        await post(sender, request(partner.url(), endpoint_id=one, revision=2))
        assert partner.accepted == 2
        await post(sender, request(partner.url(), endpoint_id=other))
        assert partner.accepted == 3
        await post(sender, request(partner.url(), endpoint_id=one, revision=2))
        assert partner.accepted == 3


async def test_requests_are_sent_side_by_side_without_a_limit(sender: Sender) -> None:
    everyone = asyncio.Barrier(150)

    async def waits_for_all(connection: Connection) -> None:
        await connection.receive()
        await everyone.wait()
        await connection.send(OK)

    async with hostile(waits_for_all) as partner:
        endpoint_id = uuid4()
        to_send = request(partner.url(), endpoint_id=endpoint_id, deadline=10.0)
        exchanges = await asyncio.gather(*(sender.post(to_send) for _ in range(150)))
        assert {exchange.outcome for exchange in exchanges} == {Accepted(200)}


async def test_requests_that_follow_answers_leave_together_once_all_answers_were_read(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    waiting: list[Connection] = []
    answered: asyncio.Queue[object] = asyncio.Queue()

    async def answers_two_at_once(connection: Connection) -> None:
        while await connection.receive():
            waiting.append(connection)
            if len(waiting) == 2:
                for one in waiting:
                    one.writer.write(OK)
                waiting.clear()

    def follow(_: object) -> None:
        order.append("answered")
        assert sender.begin(to_send, answered.put_nowait) is None

    def note(kept: Kept, *given: Any) -> None:
        order.append("begun")
        begin(kept, *given)

    async with hostile(answers_two_at_once) as partner:
        to_send = request(partner.url(), endpoint_id=uuid4())
        await asyncio.gather(post(sender, to_send), post(sender, to_send))
        begin = Kept.begin
        monkeypatch.setattr(Kept, "begin", note)
        for _ in range(2):
            assert sender.begin(to_send, follow) is None
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                found = await answered.get()
                assert isinstance(found, Exchange)
                assert found.outcome == Accepted(200)
    assert order == ["begun", "begun", "answered", "answered", "begun", "begun"]


async def test_a_cancelled_request_lets_go_of_its_connection(sender: Sender) -> None:
    async with hostile(partners.accepts_and_never_answers) as partner:
        task = asyncio.create_task(sender.post(request(partner.url(), deadline=30.0)))
        await partner.called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# Hostile answers


@pytest.mark.parametrize(
    ("behave", "outcome", "phase"),
    [
        (partners.accepts_and_never_answers, TimedOut(Phase.SENT), Phase.SENT),
        (partners.closes_without_an_answer, Unreachable("connection_closed"), Phase.SENT),
        (partners.closes_within_headers, Unreachable("connection_closed"), Phase.SENT),
        (partners.resets_after_headers, Accepted(200), Phase.ANSWERED),
        (partners.drips_its_body, Accepted(200), Phase.ANSWERED),
        (partners.drips_its_headers, TimedOut(Phase.SENT), Phase.SENT),
        (partners.drips_one_header, TimedOut(Phase.SENT), Phase.SENT),
        (partners.sends_endless_103s, Unreachable("protocol_error"), Phase.SENT),
        (partners.drips_endless_103s, Unreachable("protocol_error"), Phase.SENT),
        (partners.sends_an_infinite_body, Accepted(200), Phase.ANSWERED),
        (partners.sends_200_mb_of_gzipped_zeros, Accepted(200), Phase.ANSWERED),
        (partners.sends_a_5_mb_header, Accepted(200, malformed=True), Phase.ANSWERED),
        (partners.sends_a_5_mb_status_line, Unreachable("response_headers_too_large"), Phase.SENT),
        (partners.sends_10_000_headers, Accepted(200, malformed=True), Phase.ANSWERED),
        (partners.answers(b"SSH-2.0-OpenSSH_9.6\r\n"), Unreachable("protocol_error"), Phase.SENT),
        (partners.answers_status(101, "Upgrade: x", "Connection: upgrade"), Unreachable("protocol_error"), Phase.SENT),
        (partners.answers_status(199), Unreachable("protocol_error"), Phase.SENT),
        (partners.answers_status(999), Rejected(999), Phase.ANSWERED),
        (partners.answers_status(302, "Location: http://169.254.169.254/"), Rejected(302), Phase.ANSWERED),
        (partners.answers_status(307, "Location: http://169.254.169.254/"), Rejected(307), Phase.ANSWERED),
        (partners.answers_status(410), Rejected(410), Phase.ANSWERED),
        (partners.answers_status(429, "Retry-After: 7"), Rejected(429, 7.0), Phase.ANSWERED),
        (partners.answers_status(503, "Retry-After: 1000000000000"), Rejected(503, 86_400.0), Phase.ANSWERED),
        (partners.answers_status(503, "Retry-After: 1e12"), Rejected(503), Phase.ANSWERED),
        (partners.answers_status(503, "Retry-After: -5"), Rejected(503), Phase.ANSWERED),
        (partners.answers_status(503, "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"), Rejected(503), Phase.ANSWERED),
        (partners.answers(b"HTTP/1.1 103 X\r\n\r\n" + OK), Accepted(200), Phase.ANSWERED),
        (partners.answers(b"HTTP/1.1 100 X\r\n\r\n" + OK), Accepted(200), Phase.ANSWERED),
    ],
)
async def test_whatever_a_partner_does_ends_in_time_with_a_named_outcome(
    sender: Sender, connects: list[str], behave: Behaviour, outcome: Outcome, phase: Phase
) -> None:
    before = memory()
    async with hostile(behave) as partner:
        endless = isinstance(outcome, TimedOut) or behave is partners.drips_its_body
        deadline = SOON if endless else DEADLINE
        exchange = await post(sender, request(partner.url(), deadline=deadline))
        assert exchange.outcome == outcome
        assert exchange.phase is phase
        assert exchange.duration >= 0.9 * SOON or not endless
        assert exchange.response is None or exchange.response.length <= BODY_LIMIT
        assert partner.accepted == 1
    assert memory() - before < 50_000_000
    assert set(connects) <= {"127.0.0.1"}


def memory() -> int:
    """Bytes that this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_a_reset_before_the_answer_is_told_apart_from_a_close(sender: Sender) -> None:
    async with hostile(partners.resets_on_accept) as partner:
        exchange = await post(sender, request(partner.url()))
        assert exchange.outcome in (Unreachable("connection_reset"), Unreachable("connection_closed"))


async def test_a_partner_who_never_reads_does_not_hold_the_body_or_the_connection(sender: Sender) -> None:
    async with hostile(partners.never_reads, receive_buffer=4096) as partner:
        exchange = await post(sender, request(partner.url(), body=b"x" * 8_000_000, deadline=SOON))
        assert exchange.outcome == TimedOut(Phase.CONNECTED)
    assert partner.leftovers < 8_000_000  # what the gateway still had to send was thrown away


async def test_an_answer_counts_though_the_body_was_not_read(sender: Sender) -> None:
    async with hostile(partners.answers_before_it_read_the_body, receive_buffer=4096) as partner:
        exchange = await post(sender, request(partner.url(), body=b"x" * 8_000_000))
        assert exchange.outcome == Rejected(413)
    assert partner.leftovers < 8_000_000


@pytest.mark.parametrize(
    "data",
    [
        OK + b"HTTP/1.1 500 Second\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"trailing rubbish",
    ],
    ids=["pipelined", "length and chunked", "trailing"],
)
async def test_an_answer_that_could_be_read_in_two_ways_poisons_no_later_request(sender: Sender, data: bytes) -> None:
    async with hostile(partners.answers(data)) as partner:
        endpoint_id = uuid4()
        first = await post(sender, request(partner.url(), endpoint_id=endpoint_id))
        second = await post(sender, request(partner.url(), endpoint_id=endpoint_id))
        assert first.outcome == second.outcome
        assert first.outcome in (Accepted(200), Accepted(200, malformed=True))
        assert partner.accepted == 2


async def test_a_body_is_kept_as_bytes_and_only_where_asked(sender: Sender) -> None:
    body = b"<script>alert(1)</script>\x1b[31m\x00\xff\xfe"
    data = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with hostile(partners.answers(data)) as partner:
        silent = await post(sender, request(partner.url()))
        asked = await post(sender, request(partner.url(), keep_excerpt=1000))
        cut = await post(sender, request(partner.url(), keep_excerpt=7))
    assert silent.response is not None
    assert asked.response is not None
    assert cut.response is not None
    assert (silent.response.excerpt, asked.response.excerpt, cut.response.excerpt) == (b"", body, b"<script")
    assert asked.response.length == len(body)
    assert asked.response.content_type == "text/html"
    assert not asked.response.truncated


async def test_a_compressed_body_is_never_unpacked(sender: Sender) -> None:
    async with hostile(partners.sends_200_mb_of_gzipped_zeros) as partner:
        exchange = await post(sender, request(partner.url(), deadline=3.0, keep_excerpt=2))
        assert exchange.response is not None
        assert exchange.response.excerpt == b"\x1f\x8b"


async def test_a_long_body_is_read_to_its_limit_and_the_connection_dropped(sender: Sender) -> None:
    body = b"x" * (BODY_LIMIT + 1)
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with hostile(partners.answers(data)) as partner:
        endpoint_id = uuid4()
        for _ in range(2):
            exchange = await post(sender, request(partner.url(), endpoint_id=endpoint_id))
            assert exchange.response is not None
            assert (exchange.response.length, exchange.response.truncated) == (BODY_LIMIT, True)


async def test_a_closed_port_is_refused(sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    exchange = await post(sender, request(f"http://{PARTNER}:{port}/"))
    assert exchange.outcome == Unreachable("connection_refused")
    assert exchange.phase is Phase.RESOLVED


async def test_a_full_backlog_times_out_while_connecting(sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        exchange = await post(sender, request(f"http://{PARTNER}:{address[1]}/", deadline=5.0, connect_deadline=0.3))
        assert exchange.outcome == TimedOut(Phase.RESOLVED)
        assert exchange.duration < 5.0
        for filler in fillers:
            filler.close()


# Addresses


SSRF_CASES = [
    line.encode("ascii", "backslashreplace").decode("unicode_escape")
    for line in (Path(__file__).parents[1] / "data" / "ssrf-cases.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


async def test_no_hostile_url_makes_a_connection_or_asks_dns(dns: DnsServer, connects: list[str]) -> None:
    policy = Policy(allow_http=True, ports=frozenset({80, 443, 8080, 1900}), allow_ip_literals=True)
    async with opened(policy, resolver=dns.resolve) as sender:
        for url in SSRF_CASES:
            exchange = await post(sender, request(url))
            assert isinstance(exchange.outcome, Blocked), url
            assert exchange.phase is Phase.STARTED
    assert connects == []
    assert dns.asked == []


FORBIDDEN_ANSWERS = {
    "mixed": (["198.41.0.4", "127.0.0.1"], "loopback"),
    "mixed families": (["198.41.0.4", "fd00:ec2::254"], "metadata"),
    "nat64 metadata": (["64:ff9b::a9fe:a9fe"], "metadata"),
    "mapped": (["::ffff:10.0.0.1"], "private"),
    "cname to localhost": (["localhost"], "loopback"),
    "metadata": (["169.254.169.254"], "metadata"),
    "unspecified": (["0.0.0.0"], "unspecified"),
    "500 answers, one bad": ([f"198.41.{n // 250}.{n % 250 + 1}" for n in range(500)] + ["10.0.0.1"], "private"),
}


@pytest.mark.parametrize(("records", "reason"), FORBIDDEN_ANSWERS.values(), ids=FORBIDDEN_ANSWERS)
async def test_one_forbidden_answer_refuses_them_all(
    dns: DnsServer, connects: list[str], records: list[str], reason: str
) -> None:
    dns.records[PARTNER] = records
    async with opened(STRICT, resolver=dns.resolve) as sender:
        exchange = await post(sender, request(f"http://{PARTNER}/", deadline=3.0))
    assert exchange.outcome == Blocked(reason)
    assert connects == []


async def test_a_name_that_rebinds_between_two_attempts_is_refused_at_the_second(
    dns: DnsServer, connects: list[str]
) -> None:
    async def closes_after_each(connection: Connection) -> None:
        await connection.receive()
        await connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    dns.records[PARTNER] = ["127.0.0.1"]
    async with hostile(closes_after_each) as partner, opened(resolver=dns.resolve, resolve_cache=0.0) as sender:
        endpoint_id = uuid4()
        assert (await post(sender, request(partner.url(), endpoint_id=endpoint_id))).outcome == Accepted(200)
        dns.records[PARTNER] = ["169.254.169.254"]
        exchange = await post(sender, request(partner.url(), endpoint_id=endpoint_id))
        assert exchange.outcome == Blocked("metadata")
    assert connects == ["127.0.0.1"]


async def test_an_answer_with_ttl_0_is_used_for_a_moment_and_judged_each_time(dns: DnsServer) -> None:
    dns.records[PARTNER] = ["127.0.0.1"]
    async with hostile(partners.friendly) as partner, opened(resolver=dns.resolve) as sender:
        for _ in range(5):
            assert (await post(sender, request(partner.url()))).outcome == Accepted(200)
    assert len(dns.asked) == 2  # A and AAAA, once


@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [
        ("nothing", Unreachable("name_not_found")),
        ("failing", Unreachable("resolver_failed")),
        ("silent", TimedOut(Phase.STARTED)),
        ("empty", Unreachable("name_not_found")),
    ],
)
async def test_dns_trouble_has_a_name_and_an_end(dns: DnsServer, trouble: str, outcome: Outcome) -> None:
    match trouble:
        case "failing":
            dns.failing.add(PARTNER)
        case "silent":
            dns.silent.add(PARTNER)
        case "empty":
            dns.records[PARTNER] = []
        case _:
            assert PARTNER not in dns.records
    async with opened(resolver=dns.resolve, resolve_deadline=0.3) as sender:
        exchange = await post(sender, request(f"http://{PARTNER}/", deadline=3.0))
    assert exchange.outcome == outcome
    assert exchange.phase is Phase.STARTED
    assert exchange.duration < 1.0


async def test_a_name_that_hangs_holds_up_no_other_name(dns: DnsServer) -> None:
    dns.silent.add("slow.example.com")
    dns.records[PARTNER] = ["127.0.0.1"]
    async with hostile(partners.friendly) as partner, opened(resolver=dns.resolve) as sender:
        slow = [asyncio.create_task(sender.post(request("http://slow.example.com/", deadline=SOON))) for _ in range(50)]
        assert (await post(sender, request(partner.url()))).outcome == Accepted(200)
        assert {exchange.outcome for exchange in await asyncio.gather(*slow)} == {TimedOut(Phase.STARTED)}
    assert dns.asked.count("slow.example.com") <= 4  # asked once for all fifty, with a retry of each family


async def test_while_150_names_hang_a_healthy_partner_gets_all_of_its_deliveries(dns: DnsServer) -> None:
    async def closes_after_each(connection: Connection) -> None:
        await connection.receive()
        await connection.send(status(200, "Connection: close"))

    hanging = {f"partner-{number}.example.com" for number in range(150)}
    dns.silent |= hanging
    dns.records[PARTNER] = ["127.0.0.1"]
    patient: dict[str, Any] = {"resolve_deadline": 60.0, "resolve_cache": 0.0}
    async with hostile(closes_after_each) as partner, opened(resolver=dns.resolve, **patient) as sender:
        waiting = [
            asyncio.create_task(sender.post(request(f"http://{name}/", deadline=60.0, connect_deadline=60.0)))
            for name in hanging
        ]
        await dns.until_asked(hanging)
        endpoint_id = uuid4()
        for _ in range(20):
            assert (await post(sender, request(partner.url(), endpoint_id=endpoint_id))).outcome == Accepted(200)
        assert not any(task.done() for task in waiting)
        assert partner.accepted == 20
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("resolved_lately", "silent", "ours"),
    [
        ({"one.example.com": ONE, "two.example.com": TWO}, {"one.example.com", "two.example.com"}, True),
        ({"one.example.com": ONE, "other.example.com": ONE}, {"one.example.com", "other.example.com"}, True),
        ({"one.example.com": ONE, "two.example.com": TWO}, {"one.example.com"}, False),
        (
            {"one.example.com": ONE, "other.example.com": ONE, "two.example.com": TWO},
            {"one.example.com", "other.example.com"},
            False,
        ),
        (
            {"three.example.com": THREE, "2.example.com": TWO, "1.example.com": TWO, "0.example.com": TWO},
            {"one.example.com", "2.example.com", "1.example.com", "0.example.com"},
            False,
        ),
        ({}, {"one.example.com"}, False),
    ],
    ids=["all", "one tenant only", "its own", "all of its own", "another's many names", "never heard"],
)
async def test_silence_is_the_resolvers_only_where_names_that_others_resolved_lately_are_silent_too(
    dns: DnsServer, resolved_lately: dict[str, UUID], silent: set[str], ours: bool
) -> None:
    dns.ttl = 300  # what the resolver knows by heart says nothing of its servers
    async with hostile(partners.friendly) as partner:
        dns.records |= {name: ["127.0.0.1"] for name in resolved_lately}
        short: dict[str, Any] = {"resolve_deadline": 0.3, "resolve_cache": 0.0}
        async with opened(resolver=dns.resolve, **short) as sender:
            for name, tenant_id in resolved_lately.items():
                to_send = request(partner.url(host=name), tenant_id=tenant_id)
                assert (await post(sender, to_send)).outcome == Accepted(200)
            dns.silent |= silent
            silenced = request("http://new.example.com/", tenant_id=ONE)
            dns.silent.add("new.example.com")
            exchange = await post(sender, silenced)
    expected = Unsendable("resolver_silent", Remedy.WAIT) if ours else TimedOut(Phase.STARTED)
    assert exchange.outcome == expected


async def test_no_socket_is_made_for_a_forbidden_address_though_the_resolver_lies(connects: list[str]) -> None:
    """The last gate alone: addresses that nobody judged before."""
    gate = Egress(STRICT, to_loopback)
    for address in ("127.0.0.1", "169.254.169.254", "::1", "10.0.0.1"):
        with pytest.raises(AddressDenied):
            await gate.dial(address, 80)
    assert connects == []


async def test_listening_on_every_address_no_address_of_this_machine_is_a_target() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # sends nothing, but shows which address would
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = asking.getsockname()[0]
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        policy = Policy(
            allow_http=True, ports=None, allow_ip_literals=True, allowed_networks=((ip_network(f"{address}/32"), None),)
        )
        url = f"http://{address}:{port}/"
        own = replace(policy, own_origins=frozenset({("127.0.0.1", port)}))
        async with opened(own) as sender, opened(policy) as other:
            assert (await post(sender, request(url))).outcome == Blocked("own_origin")
            assert (await post(other, request(url, deadline=SOON))).outcome == TimedOut(Phase.SENT)


async def test_an_allowed_private_network_is_reached_only_on_its_port(connects: list[str]) -> None:
    async def to_private(host: str) -> Sequence[str]:
        return ["10.1.2.3"]

    policy = Policy(allow_http=True, allowed_networks=((ip_network("10.1.0.0/16"), 9443),))
    async with opened(policy, resolver=to_private) as sender:
        assert (await post(sender, request(f"https://{PARTNER}/"))).outcome == Blocked("private")
        assert (await post(sender, request(f"http://{PARTNER}:9444/"))).outcome == Blocked("forbidden_port")
    assert connects == []


@pytest.mark.parametrize("resolver", [DnsResolver, SystemResolver])
async def test_both_resolvers_know_the_hosts_file(resolver: type[DnsResolver | SystemResolver]) -> None:
    resolve = resolver()
    try:
        assert {classify(ip_address(address)) for address in await resolve("localhost")} == {"loopback"}
    finally:
        await resolve.close()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def pinned(authority: trustme.CA, client: trustme.LeafCert | None = None) -> TlsSettings:
    ca = authority.cert_pem.bytes().decode()
    if client is None:
        return TlsSettings(ca=ca)
    certificate = b"".join(blob.bytes() for blob in client.cert_chain_pems).decode()
    return TlsSettings(ca=ca, certificate=certificate, key=client.private_key_pem.bytes().decode())


async def test_a_pinned_authority_is_trusted_and_the_tls_version_recorded(
    sender: Sender, authority: trustme.CA
) -> None:
    async with hostile(partners.friendly, tls=server_context(authority.issue_cert(PARTNER))) as partner:
        exchange = await post(sender, request(partner.url(scheme="https"), tls=pinned(authority)))
        assert exchange.outcome == Accepted(200)
        assert exchange.tls_version == "TLSv1.3"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("expired", "tls_certificate_expired"),
        ("not yet valid", "tls_certificate_expired"),
        ("another host", "tls_certificate_name"),
        ("without an intermediate", "tls_chain_incomplete"),
        ("unknown root", "tls_ca_unknown"),
        ("self-signed", "tls_ca_unknown"),
        ("nothing pinned", "tls_chain_incomplete"),
    ],
)
async def test_a_bad_certificate_is_refused_before_anything_is_sent(
    sender: Sender, authority: trustme.CA, fault: str, reason: str
) -> None:
    now = datetime.now(UTC)
    settings: TlsSettings | None = pinned(authority)
    certificate = authority.issue_cert(PARTNER)
    key: trustme.Blob | None = None
    shown: list[trustme.Blob] = []
    match fault:
        case "expired":
            certificate = authority.issue_cert(PARTNER, not_before=now - timedelta(9), not_after=now - timedelta(1))
        case "not yet valid":
            certificate = authority.issue_cert(PARTNER, not_before=now + timedelta(1), not_after=now + timedelta(9))
        case "another host":
            certificate = authority.issue_cert("other.example.com", f"*.{PARTNER}")
        case "without an intermediate":
            certificate = authority.create_child_ca().issue_cert(PARTNER)
            shown = certificate.cert_chain_pems[:1]
        case "unknown root":
            root = trustme.CA()
            certificate = root.issue_cert(PARTNER)
            shown = [*certificate.cert_chain_pems, root.cert_pem]
        case "self-signed":
            key, shown = (root := trustme.CA()).private_key_pem, [root.cert_pem]
        case _:
            settings = None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pems = [key or certificate.private_key_pem, *(shown or certificate.cert_chain_pems)]
    with trustme.Blob(b"".join(pem.bytes() for pem in pems)).tempfile() as file:
        context.load_cert_chain(file)
    async with hostile(partners.friendly, tls=context) as partner:
        exchange = await post(sender, request(partner.url(scheme="https"), tls=settings))
        assert exchange.outcome == Unreachable(reason)
        assert exchange.phase is Phase.CONNECTED
        assert partner.received == []


async def test_tls_1_0_is_refused(sender: Sender, authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert(PARTNER))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1
    async with hostile(partners.refuses_the_handshake(context)) as partner:
        exchange = await post(sender, request(partner.url(scheme="https"), tls=pinned(authority)))
        assert exchange.outcome == Unreachable("tls_failed")
        assert exchange.phase is Phase.CONNECTED


async def test_a_client_certificate_is_shown_where_one_is_set(sender: Sender, authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert(PARTNER))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with hostile(partners.friendly, tls=context) as partner:
        url = partner.url(scheme="https")
        shown = await post(sender, request(url, tls=pinned(authority, authority.issue_cert("gateway.example.com"))))
        missing = await post(sender, request(url, tls=pinned(authority)))
        assert shown.outcome == Accepted(200)
        assert isinstance(missing.outcome, Unreachable)
        assert missing.outcome.reason in ("tls_failed", "connection_reset", "connection_closed")
        assert len(partner.received) == 1


@pytest.mark.parametrize(
    "settings",
    [TlsSettings(ca="rubbish"), TlsSettings(ca=""), TlsSettings(certificate="rubbish", key="rubbish")],
)
async def test_broken_tls_settings_wait_for_whoever_corrects_them(sender: Sender, settings: TlsSettings) -> None:
    exchange = await post(sender, request(f"https://{PARTNER}/", tls=settings))
    assert exchange.outcome == Unsendable("tls_settings_invalid", Remedy.WAIT)


def test_a_private_key_is_never_shown() -> None:
    assert "secret" not in repr(TlsSettings(key="secret"))


async def test_a_handshake_that_hangs_times_out_in_its_own_phase(sender: Sender) -> None:
    async with hostile(partners.never_shakes_hands) as partner:
        exchange = await post(sender, request(partner.url(scheme="https"), deadline=SOON))
        assert exchange.outcome == TimedOut(Phase.CONNECTED)


async def test_plain_http_on_a_tls_port_is_a_tls_failure(sender: Sender) -> None:
    async with hostile(partners.speaks_plain_http_to_tls) as partner:
        exchange = await post(sender, request(partner.url(scheme="https")))
        assert exchange.outcome == Unreachable("tls_failed")


async def test_a_slow_partner_over_tls_is_let_go(sender: Sender, authority: trustme.CA) -> None:
    tls = server_context(authority.issue_cert(PARTNER))
    async with hostile(partners.accepts_and_never_answers, tls=tls) as partner:
        exchange = await post(sender, request(partner.url(scheme="https"), tls=pinned(authority), deadline=SOON))
        assert exchange.outcome == TimedOut(Phase.SENT)
        assert exchange.tls_version == "TLSv1.3"


# An egress proxy


async def test_an_egress_proxy_tunnels_tls_and_resolves_the_name(authority: trustme.CA) -> None:
    async def knows_the_proxy_only(host: str) -> Sequence[str]:
        assert host == "proxy.hospital.local"
        return ["127.0.0.1"]

    tls = server_context(authority.issue_cert(PARTNER))
    async with hostile(partners.friendly, tls=tls) as partner, hostile(partners.tunnels) as proxy:
        through = f"http://proxy.hospital.local:{proxy.port}"
        async with opened(Policy(ports=None), resolver=knows_the_proxy_only, proxy=through) as sender:
            exchange = await post(sender, request(partner.url(scheme="https"), tls=pinned(authority), deadline=3.0))
            assert exchange.outcome == Accepted(200)
            assert exchange.tls_version == "TLSv1.3"
            refused = await post(sender, request("https://169.254.169.254/"))
            assert refused.outcome == Blocked("metadata")
            assert len(proxy.received) == 1
            assert partner.received[0].headers.get("proxy-authorization") is None


@pytest.mark.parametrize("behave", [partners.answers_status(403), partners.answers_status(502)])
async def test_a_proxy_that_refuses_is_told_apart_from_the_partner(behave: Behaviour) -> None:
    async with hostile(behave) as proxy, opened(Policy(ports=None), proxy=f"http://127.0.0.1:{proxy.port}") as sender:
        exchange = await post(sender, request(f"https://{PARTNER}/"))
        assert isinstance(exchange.outcome, Unreachable)
        assert exchange.phase is Phase.RESOLVED


# Event loops


def test_phases_are_the_same_under_uvloop(authority: trustme.CA) -> None:
    async def scenario() -> None:
        tls = server_context(authority.issue_cert(PARTNER))
        async with opened() as sender:
            async with hostile(partners.friendly, tls=tls) as partner:
                url, settings = partner.url(scheme="https"), pinned(authority)
                exchange = await post(sender, request(url, tls=settings))
                assert (exchange.outcome, exchange.tls_version) == (Accepted(200), "TLSv1.3")
                exchange = await post(sender, request(url))
                assert exchange.outcome == Unreachable("tls_chain_incomplete")
            async with hostile(partners.never_shakes_hands) as partner:
                exchange = await post(sender, request(partner.url(scheme="https"), deadline=SOON))
                assert exchange.outcome == TimedOut(Phase.CONNECTED)
            async with hostile(partners.never_reads, receive_buffer=4096) as partner:
                exchange = await post(sender, request(partner.url(), body=b"x" * 8_000_000, deadline=SOON))
                assert exchange.outcome == TimedOut(Phase.CONNECTED)

    uvloop.run(scenario())
