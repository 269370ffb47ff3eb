"""The exchange itself, against real sockets: what is an answer, where it ends, and which connections are used again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from uuid import uuid4

import pytest
import trustme

from tests.end_to_end import hostile as partners
from tests.end_to_end.hostile import hostile
from tests.end_to_end.test_sender import PARTNER, opened, pinned, post, request, server_context
from tests.support.partner import OK, Behaviour, Connection, listening_socket
from webhook_gateway import telemetry
from webhook_gateway.outbound import http1, pool, sender
from webhook_gateway.rules.outcome import Accepted, Outcome, Phase, Rejected, Remedy, TimedOut, Unreachable, Unsendable
from webhook_gateway.rules.targets import Policy

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


# What is an answer


ODD = [
    b"\nContent-Length: 2\n\nok",
    b"\r\nX: y\nContent-Length: 2\r\n\r\nok",
    b"\r\nX: y\r\n folded\r\nContent-Length: 2\r\n\r\nok",
    b"\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\nok",
    b"\r\nContent-Length: 2, 2\r\n\r\nok",
    b"\r\nContent-Length: +2\r\n\r\nok",
    b"\r\nContent-Length: -2\r\n\r\nok",
    b"\r\nContent-Length: 99999999999999999999999\r\n\r\nok",
    b"\r\nContent-Length : 2\r\n\r\nok",
    b"\r\nContent-Length: 2\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
    b"\r\n" + CHUNKED + b"Content-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"\r\n" + CHUNKED + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
    b"\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
    b"\r\nX y: b\r\nContent-Length: 0\r\n\r\n",
]
"""What another reader could read differently, after the reason phrase."""
LARGE = [
    b"\r\nX: " + 9_000 * b"y" + b"\r\nContent-Length: 0\r\n\r\n",
    b"\r\n" + 150 * b"X: y\r\n" + b"Content-Length: 0\r\n\r\n",
]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        *[(b"HTTP/1.1 503 Later" + rest, "protocol_error") for rest in ODD],
        *[(b"HTTP/1.1 503 Later" + rest, "response_headers_too_large") for rest in LARGE],
        (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "protocol_error"),
        (b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 1000 High\r\nContent-Length: 0\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 2000 High\r\nContent-Length: 0\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 20\r\nContent-Length: 0\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1  200 OK\nContent-Length: 0\r\n\r\n", "protocol_error"),
        (b"\x00HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 101 Switching\r\n\r\n" + OK, "protocol_error"),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nok" + OK, "protocol_error"),
    ],
)
async def test_what_another_reader_could_read_differently_is_no_answer(data: bytes, why: str) -> None:
    async with hostile(partners.answers(data)) as partner, opened() as sender:
        endpoint_id = uuid4()
        for _ in range(2):
            exchange = await post(sender, request(partner.url(), endpoint_id=endpoint_id))
            assert exchange.outcome == Unreachable(why)
            assert exchange.phase is Phase.SENT
        assert partner.accepted == 2


@pytest.mark.parametrize("rest", ODD + LARGE)
@pytest.mark.parametrize(("line", "status"), [(b"HTTP/1.1 200 OK", 200), (b"HTTP/1.0 202", 202)])
async def test_an_odd_2xx_is_accepted_and_its_connection_not_used_again(line: bytes, status: int, rest: bytes) -> None:
    async with hostile(partners.answers(line + rest)) as partner, opened() as sender:
        endpoint_id = uuid4()
        for _ in range(2):
            exchange = await post(sender, request(partner.url(), endpoint_id=endpoint_id))
            assert (exchange.outcome, exchange.phase) == (Accepted(status, malformed=True), Phase.ANSWERED)
            assert exchange.response is not None
            assert (exchange.response.length, exchange.response.truncated) == (0, True)
        assert partner.accepted == 2


async def test_an_odd_2xx_may_come_byte_by_byte() -> None:
    async def dawdles(connection: Connection) -> None:
        await connection.receive()
        for number in range(len(answer)):
            await connection.send(answer[number : number + 1])
            await asyncio.sleep(0)

    answer = b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"
    async with hostile(dawdles) as partner, opened() as sender:
        assert (await post(sender, request(partner.url()))).outcome == Accepted(200, malformed=True)


@pytest.mark.parametrize(
    ("data", "outcome", "length", "connections"),
    [
        (HEAD + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", Accepted(200), 2, 1),
        (HEAD + CHUNKED + b"\r\n2;a=b\r\nok\r\n0\r\nX-Trailer: y\r\n\r\n", Accepted(200), 2, 1),
        (HEAD + b"Content-Length: 0\r\n\r\n", Accepted(200), 0, 1),
        (b"HTTP/1.1 204 None\r\n\r\n", Accepted(204), 0, 1),
        (b"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n", Accepted(204), 0, 2),
        (b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", Rejected(304), 0, 2),
        (HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", Accepted(200), 2, 2),
        (HEAD + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\nok", Accepted(200), 2, 2),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Accepted(200), 2, 2),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", Accepted(200), 2, 2),
        (HEAD + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nok", Accepted(200), 2, 1),
        (HEAD + b"Content-Length: 2\r\n\r\nokHTTP/1.1 500 X\r\n", Accepted(200), 2, 2),
        (HEAD + b"Content-Length: 2\r\n\r\nok\x00", Accepted(200), 2, 2),
        (HEAD + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\nmore", Accepted(200), 2, 2),
    ],
)
async def test_a_connection_is_used_again_only_after_a_whole_answer_and_nothing_more(
    data: bytes, outcome: Outcome, length: int, connections: int
) -> None:
    async with hostile(partners.answers(data)) as partner, opened() as sender:
        endpoint_id = uuid4()
        for _ in range(2):
            exchange = await post(sender, request(partner.url(), endpoint_id=endpoint_id))
            assert exchange.outcome == outcome
            assert exchange.response is not None
            assert (exchange.response.length, exchange.response.truncated) == (length, False)
        assert partner.accepted == connections


@pytest.mark.parametrize(
    ("data", "truncated"),
    [
        (HEAD + b"\r\nok", False),
        (b"HTTP/1.0 200 OK\r\n\r\nok", False),
        (HEAD + b"Content-Length: 3\r\n\r\nok", True),
        (HEAD + CHUNKED + b"\r\n2\r\nok\r\n", True),
    ],
)
async def test_a_body_ends_with_the_connection_only_where_nothing_else_says_its_end(
    data: bytes, truncated: bool
) -> None:
    async def hangs_up(connection: Connection) -> None:
        await connection.receive()
        await connection.send(data)

    async with hostile(hangs_up) as partner, opened() as sender:
        exchange = await post(sender, request(partner.url()))
        assert exchange.outcome == Accepted(200)
        assert exchange.response is not None
        assert (exchange.response.length, exchange.response.truncated) == (2, truncated)


@pytest.mark.parametrize("drop", [b"2;" + b"x" * 60_000, b"0\r\n" + b"X: y\r\n" * 10_000, b"0\r\nX: " + b"y" * 60_000])
async def test_a_body_has_no_endless_extensions_or_trailers(drop: bytes) -> None:
    async def never_ends(connection: Connection) -> None:
        await connection.receive()
        await connection.send(HEAD + CHUNKED + b"\r\n" + drop)
        while True:
            await connection.send(b"x" * 60_000)

    async with hostile(never_ends) as partner, opened() as sender:
        exchange = await post(sender, request(partner.url(), deadline=10.0))
        assert exchange.outcome == Accepted(200)
        assert exchange.response is not None
        assert exchange.response.truncated
        assert exchange.duration < 5


async def test_an_answer_may_come_byte_by_byte() -> None:
    data = b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n" + HEAD + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n"

    async def spells(connection: Connection) -> None:
        connection.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while await connection.receive():
            for byte in data:
                await connection.send(bytes([byte]))
                await asyncio.sleep(0)

    async with hostile(spells) as partner, opened() as sender:
        endpoint_id = uuid4()
        for _ in range(2):
            exchange = await post(sender, request(partner.url(), endpoint_id=endpoint_id, keep_excerpt=9))
            assert exchange.outcome == Accepted(200)
            assert exchange.response is not None
            assert exchange.response.excerpt == b"ok"
        assert partner.accepted == 1


# Which connections are used again


async def test_an_answer_that_nobody_asked_for_is_never_the_answer_to_the_next_request() -> None:
    dropped = asyncio.Event()

    async def answers_twice(connection: Connection) -> None:
        await connection.receive()
        if connection.partner.accepted > 1:
            await connection.send(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
            return
        await connection.send(OK)
        await answered.wait()
        await connection.send(OK)
        await connection.wait_for_the_end()
        dropped.set()

    async with hostile(answers_twice) as partner, opened() as sender:
        answered, endpoint_id = asyncio.Event(), uuid4()
        assert (await post(sender, request(partner.url(), endpoint_id=endpoint_id))).outcome == Accepted(200)
        answered.set()
        await dropped.wait()
        assert (await post(sender, request(partner.url(), endpoint_id=endpoint_id))).outcome == Rejected(410)


async def test_a_partner_who_answers_before_the_request_gets_none() -> None:
    dropped = asyncio.Event()

    async def answers_first(connection: Connection) -> None:
        await connection.send(OK)
        await connection.wait_for_the_end()
        dropped.set()

    async with hostile(answers_first) as partner:
        _, connection = await asyncio.get_running_loop().create_connection(http1.Connection, "127.0.0.1", partner.port)
        await dropped.wait()
        with pytest.raises(http1.NoAnswer, match="protocol_error"):
            await connection.exchange(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 1.0)
        assert partner.received == []


async def test_the_connection_used_last_is_used_first() -> None:
    both, late = asyncio.Barrier(2), asyncio.Event()
    used: list[int] = []

    async def answers_one_late(connection: Connection) -> None:
        number = connection.partner.accepted
        await connection.receive()
        await both.wait()
        if number == 1:
            await late.wait()
        await connection.send(OK)
        while await connection.receive():
            used.append(number)
            await connection.send(OK)

    async with hostile(answers_one_late) as partner, opened() as sender:
        to_send = request(partner.url(), endpoint_id=uuid4(), deadline=5.0)
        pair = [asyncio.create_task(sender.post(to_send)) for _ in range(2)]
        await asyncio.wait(pair, return_when=asyncio.FIRST_COMPLETED)
        late.set()
        await asyncio.gather(*pair)
        for _ in range(3):
            assert (await post(sender, to_send)).outcome == Accepted(200)
        assert used == [1, 1, 1]
        assert partner.accepted == 2


async def test_an_answer_that_comes_again_counts_as_before_and_whatever_differs_is_read_anew() -> None:
    other = HEAD + b"Content-Length: 3\r\n\r\nnow"
    later = b"HTTP/1.1 503 Later\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    coming = [OK, OK, other, later, later, OK, OK, OK + b"more", OK, OK]

    async def in_turn(connection: Connection) -> None:
        while coming and await connection.receive():
            await connection.send(coming.pop(0))

    async with hostile(in_turn) as partner, opened() as sender:
        endpoint_id, met = uuid4(), []
        for connections in [1] * 8 + [2] * 2:
            exchange = await post(sender, request(partner.url(), endpoint_id=endpoint_id))
            assert exchange.response is not None
            met.append((exchange.outcome, exchange.response.length))
            assert partner.accepted == connections
        ok = (Accepted(200), len(OK.partition(b"\r\n\r\n")[2]))
        assert met == [ok, ok, (Accepted(200), 3), *[(Rejected(503, 7.0), 0)] * 2, *[ok] * 5]


async def test_a_connection_that_the_partner_closed_is_not_used_again() -> None:
    dropped = asyncio.Event()

    async def says_farewell(connection: Connection) -> None:
        await connection.receive()
        await connection.send(OK)
        connection.writer.write_eof()
        await connection.wait_for_the_end()
        dropped.set()

    async with hostile(says_farewell) as partner, opened() as sender:
        endpoint_id = uuid4()
        for _ in range(3):
            assert (await post(sender, request(partner.url(), endpoint_id=endpoint_id))).outcome == Accepted(200)
            await dropped.wait()
            dropped.clear()
        assert partner.accepted == 3


@pytest.mark.parametrize("reset", [False, True])
async def test_a_request_that_met_a_closing_connection_is_sent_again_once_and_after_two_each_gets_a_new_one(
    reset: bool,
) -> None:
    async with hostile(partners.closes_at_the_second_request(reset=reset)) as partner, opened() as sender:
        endpoint_id = uuid4()
        sends = []
        for number in range(5):
            body = b"%d" % number
            exchange = await post(sender, request(partner.url(), endpoint_id=endpoint_id, body=body))
            assert (exchange.outcome, exchange.phase) == (Accepted(200), Phase.ANSWERED)
            sends.append(exchange.sends)
        assert sends == [1, 2, 2, 1, 1]
        assert [received.body for received in partner.received] == [b"0", b"1", b"1", b"2", b"2", b"3", b"4"]
        first, second = partner.received[1:3]
        assert (first.line, first.headers) == (second.line, second.headers)


async def test_a_kept_connection_that_works_forgives_the_one_that_was_closed() -> None:
    async def answers_twice(connection: Connection) -> None:
        for _ in range(2):
            await connection.receive()
            await connection.send(OK)
        await connection.receive()

    async with hostile(answers_twice) as partner, opened() as sender:
        endpoint_id = uuid4()
        sends = [(await post(sender, request(partner.url(), endpoint_id=endpoint_id))).sends for _ in range(9)]
        assert sends == [1, 1, 2, 1, 2, 1, 2, 1, 2]


async def test_a_partner_who_closes_after_each_answer_without_saying_so_gets_all_at_the_first_attempt() -> None:
    async def answers_once(connection: Connection) -> None:
        await connection.receive()
        await connection.send(OK)

    async with hostile(answers_once) as partner, opened() as sender:
        endpoint_id, outcomes = uuid4(), []

        async def one_after_the_other() -> None:
            for _ in range(50):
                outcomes.append((await post(sender, request(partner.url(), endpoint_id=endpoint_id))).outcome)

        await asyncio.gather(*(one_after_the_other() for _ in range(8)))
        assert outcomes == [Accepted(200)] * 400


async def begins_an_answer(connection: Connection) -> None:
    await connection.send(b"H")


async def times_out(connection: Connection) -> None:
    await connection.wait_for_the_end()


@pytest.mark.parametrize(
    ("then", "outcome"),
    [(begins_an_answer, Unreachable("connection_closed")), (times_out, TimedOut(Phase.SENT))],
)
async def test_a_request_is_not_sent_again_once_an_answer_began_or_its_time_is_over(
    then: Behaviour, outcome: Outcome
) -> None:
    async def answers_once(connection: Connection) -> None:
        await connection.receive()
        await connection.send(OK)
        await connection.receive()
        await then(connection)

    async with hostile(answers_once) as partner, opened() as sender:
        endpoint_id = uuid4()
        assert (await post(sender, request(partner.url(), endpoint_id=endpoint_id))).outcome == Accepted(200)
        second = await post(sender, request(partner.url(), endpoint_id=endpoint_id, deadline=0.5))
        assert (second.outcome, second.phase, second.sends) == (outcome, Phase.SENT, 1)
        assert partner.accepted == 1


async def test_a_request_over_a_new_connection_is_sent_once() -> None:
    async with hostile(partners.closes_without_an_answer) as partner, opened() as sender:
        exchange = await post(sender, request(partner.url()))
        assert (exchange.outcome, exchange.sends) == (Unreachable("connection_closed"), 1)
        assert len(partner.received) == 1


async def test_sending_again_ends_with_the_same_deadline() -> None:
    async def keeps_silent_on_the_second(connection: Connection) -> None:
        if connection.partner.accepted == 1:
            await connection.receive()
            await connection.send(OK)
            await connection.receive()
        else:
            await connection.wait_for_the_end()

    async with hostile(keeps_silent_on_the_second) as partner, opened() as sender:
        endpoint_id = uuid4()
        assert (await post(sender, request(partner.url(), endpoint_id=endpoint_id))).outcome == Accepted(200)
        second = await post(sender, request(partner.url(), endpoint_id=endpoint_id, deadline=1.0))
        assert (second.outcome, second.sends) == (TimedOut(Phase.SENT), 2)


async def test_where_nobody_listens_any_more_the_partner_may_still_have_what_was_sent_first() -> None:
    async def goes_away(connection: Connection) -> None:
        await connection.receive()
        await connection.send(OK)
        await connection.receive()
        connection.partner.stop_listening()

    async with hostile(goes_away) as partner, opened() as sender:
        endpoint_id = uuid4()
        assert (await post(sender, request(partner.url(), endpoint_id=endpoint_id))).outcome == Accepted(200)
        second = await post(sender, request(partner.url(), endpoint_id=endpoint_id))
        assert (second.outcome, second.phase) == (Unreachable("connection_refused"), Phase.SENT)
        assert second.sends == 1


async def test_a_connection_is_used_for_a_minute_so_that_a_change_in_dns_is_followed() -> None:
    async with hostile(partners.friendly) as partner, opened() as sender:
        to_send = request(partner.url(), endpoint_id=uuid4())
        for _ in range(2):
            assert (await post(sender, to_send)).outcome == Accepted(200)
        assert partner.accepted == 1
        (connection,) = sender._connections
        connection.opened_at -= pool.LIFETIME
        assert (await post(sender, to_send)).outcome == Accepted(200)
        assert partner.accepted == 2


async def test_an_idle_connection_is_closed_though_nobody_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "KEEPALIVE", 0.05)
    monkeypatch.setattr(sender, "SWEEP", 0.02)
    dropped = asyncio.Event()

    async def waits(connection: Connection) -> None:
        await connection.receive()
        await connection.send(OK)
        await connection.wait_for_the_end()
        dropped.set()

    async with hostile(waits) as partner, opened() as one:
        assert (await post(one, request(partner.url()))).outcome == Accepted(200)
        await asyncio.wait_for(dropped.wait(), 5)


async def test_closing_the_sender_ends_what_is_under_way() -> None:
    received = asyncio.Event()

    async def says_nothing(connection: Connection) -> None:
        await connection.receive()
        received.set()
        await connection.wait_for_the_end()

    async with hostile(says_nothing) as partner, opened() as sender:
        under_way = asyncio.create_task(sender.post(request(partner.url(), deadline=30.0)))
        await received.wait()
        await sender.aclose()
        assert (await under_way).outcome == Unreachable("connection_closed")


async def test_a_shorter_deadline_counts_on_a_kept_connection() -> None:
    async def answers_once(connection: Connection) -> None:
        await connection.receive()
        await connection.send(OK)
        await connection.wait_for_the_end()

    async with hostile(answers_once) as partner, opened() as sender:
        endpoint_id = uuid4()
        await post(sender, request(partner.url(), endpoint_id=endpoint_id, deadline=30.0))
        exchange = await post(sender, request(partner.url(), endpoint_id=endpoint_id, deadline=0.2))
        assert exchange.duration == pytest.approx(0.2, abs=0.15)
        assert partner.accepted == 1


# Several addresses


async def test_a_dead_address_holds_nobody_up() -> None:
    async def three(host: str) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.3", "127.0.0.1"]  # silent, closed, and the partner

    async with hostile(partners.friendly) as partner, opened(resolver=three) as sender:
        with socket.create_server(("127.0.0.2", partner.port), backlog=0) as silent:
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(silent.getsockname())
            exchange = await post(sender, request(partner.url(), deadline=5.0))
            assert exchange.outcome == Accepted(200)
            for filler in fillers:
                filler.close()


async def test_where_tls_fails_at_one_address_the_next_is_tried() -> None:
    async def two(host: str) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    authority = trustme.CA()
    async with hostile(partners.friendly, tls=server_context(authority.issue_cert(PARTNER))) as partner:
        broken = await asyncio.start_server(hangs_up, "127.0.0.2", partner.port)
        async with broken, opened(resolver=two) as sender:
            exchange = await post(sender, request(partner.url(scheme="https"), tls=pinned(authority), deadline=5.0))
            assert exchange.outcome == Accepted(200)


async def test_all_addresses_dead_is_one_refusal() -> None:
    async def two(host: str) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.3"]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with opened(resolver=two) as sender:
            exchange = await post(sender, request(f"http://{PARTNER}:{port}/"))
    assert exchange.outcome == Unreachable("connection_refused")
    assert exchange.phase is Phase.RESOLVED


# An egress proxy


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://partner.example.com/a?b", "http://partner.example.com/a?b", "partner.example.com"),
        ("http://partner.example.com:8080", "http://partner.example.com:8080/", "partner.example.com:8080"),
        ("http://[2606:4700::1]:8080/x", "http://[2606:4700::1]:8080/x", "[2606:4700::1]:8080"),
        ("http://b\u00fccher.example/x", "http://xn--bcher-kva.example/x", "xn--bcher-kva.example"),
    ],
)
async def test_a_proxy_is_told_the_whole_url_where_there_is_no_tls(url: str, line: str, host: str) -> None:
    policy = Policy(allow_http=True, ports=None, allow_ip_literals=True)
    async with hostile(partners.friendly) as proxy, opened(policy, proxy=f"http://a:%3A@127.0.0.1:{proxy.port}") as one:
        assert (await post(one, request(url))).outcome == Accepted(200)
    (sent,) = proxy.received
    assert (sent.line, sent.headers["host"]) == (f"POST {line} HTTP/1.1", host)
    assert sent.headers["proxy-authorization"] == "Basic YTo6"


@pytest.mark.parametrize(
    "behave",
    [
        partners.answers(b"HTTP/1.1 200 OK\r\n\r\nand more"),
        partners.answers(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n"),
        partners.answers(b"SSH-2.0-OpenSSH_9.6\r\n"),
        partners.resets_on_accept,
        partners.closes_without_an_answer,
    ],
)
async def test_a_proxy_that_is_not_fit_for_work_is_no_partners_failure(behave: Behaviour) -> None:
    async with hostile(behave) as proxy, opened(Policy(ports=None), proxy=f"http://127.0.0.1:{proxy.port}") as one:
        exchange = await post(one, request(f"https://{PARTNER}/"))
        assert exchange.outcome == Unsendable("proxy_unavailable", Remedy.WAIT)


@pytest.mark.parametrize("host", ["127.0.0.1", "proxy.invalid"])
async def test_nor_is_one_that_cannot_be_reached_and_the_operator_is_told_once(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[None] = []
    monkeypatch.setattr(telemetry, "egress_proxy_unavailable", lambda: told.append(None))
    with listening_socket() as closed:
        port = closed.getsockname()[1]
    async with opened(Policy(ports=None), proxy=f"http://{host}:{port}") as one:
        for _ in range(3):
            exchange = await post(one, request(f"https://{PARTNER}/"))
            assert exchange.outcome == Unsendable("proxy_unavailable", Remedy.WAIT)
    assert told == [None]


async def test_nor_is_one_that_is_silent_before_its_own_tls() -> None:
    async with (
        hostile(partners.never_shakes_hands) as proxy,
        opened(Policy(ports=None), proxy=f"https://127.0.0.1:{proxy.port}") as one,
    ):
        exchange = await post(one, request(f"https://{PARTNER}/", deadline=0.3))
        assert exchange.outcome == Unsendable("proxy_unavailable", Remedy.WAIT)


@pytest.mark.parametrize(
    "behave",
    [
        partners.answers(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
        partners.answers(b"HTTP/1.1 504 Silent\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_a_proxy_that_says_it_has_no_tunnel_to_a_partner_tells_of_that_partner(behave: Behaviour) -> None:
    async with hostile(behave) as proxy, opened(Policy(ports=None), proxy=f"http://127.0.0.1:{proxy.port}") as one:
        exchange = await post(one, request(f"https://{PARTNER}/"))
        assert exchange.outcome == Unreachable("proxy_failed")
        assert exchange.phase is Phase.RESOLVED


async def test_a_tunnel_is_kept_and_only_the_proxy_gets_its_password() -> None:
    authority = trustme.CA()
    tls = server_context(authority.issue_cert(PARTNER))
    async with hostile(partners.friendly, tls=tls) as partner, hostile(partners.tunnels) as proxy:
        async with opened(Policy(ports=None), proxy=f"http://user:word@127.0.0.1:{proxy.port}") as one:
            url, settings = partner.url(scheme="https"), pinned(authority)
            to_send = request(url, tls=settings, deadline=5.0, endpoint_id=uuid4())
            for _ in range(2):
                exchange = await post(one, to_send)
                assert (exchange.outcome, exchange.tls_version) == (Accepted(200), "TLSv1.3")
        assert [sent.headers["proxy-authorization"] for sent in proxy.received] == ["Basic dXNlcjp3b3Jk"]
        assert [sent.headers.get("proxy-authorization") for sent in partner.received] == [None, None]
