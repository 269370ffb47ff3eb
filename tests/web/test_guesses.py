"""What needs no key reaches the database only within bounds, so that it can't hold up what does."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice

import asyncpg
import httpx
import pytest

from tests.web.serving import Api, running
from tests.web.test_problems import check_problem
from webhook_gateway.rules import api_keys
from webhook_gateway.store.database import DatabaseUnavailable
from webhook_gateway.web.errors import Problem
from webhook_gateway.web.guesses import AT_ONCE, MOST_GUESSES, MOST_REMEMBERED, MOST_WAITING, WINDOW, Guesses

WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass"


def guess() -> str:
    """A key as anybody could make it up: its form and its checksum are right."""
    return api_keys.new_key(os.urandom(api_keys.ENTROPY_BYTES))


@asynccontextmanager
async def locked(database_url: str, table: str) -> AsyncIterator[asyncpg.Connection]:
    """Whoever reads the table waits."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield connection
    finally:
        await connection.close()


async def until_asked(connection: asyncpg.Connection, table: str, times: int) -> None:
    while await connection.fetchval(WAITS, table) < times:
        pass


async def test_guessed_keys_take_few_connections_and_are_told_to_wait(database_url: str) -> None:
    unbounded = httpx.Limits(max_connections=None)
    async with (
        running(database_url) as api,
        httpx.AsyncClient(base_url=api.url, trust_env=False, limits=unbounded) as client,
    ):

        async def ask(key: str) -> httpx.Response:
            return await client.get("/v1/subscribers", headers={"Authorization": f"Bearer {key}"}, timeout=30)

        guesses = [guess() for _ in range(MOST_GUESSES + 20)]
        async with locked(database_url, "api_keys") as connection:
            asked = [asyncio.create_task(ask(key)) for key in guesses]
            for first in islice(asyncio.as_completed(asked), 20):
                answer = await first
                check_problem(answer, 429, "too-many-requests")
                assert int(answer.headers["retry-after"]) >= WINDOW
            await until_asked(connection, "api_keys", AT_ONCE)
            assert await connection.fetchval(WAITS, "api_keys") == AT_ONCE
        answers = await asyncio.gather(*asked)
        assert sorted(answer.status_code for answer in answers) == [401] * MOST_GUESSES + [429] * 20


async def test_however_many_ask_whether_it_is_ready_the_database_is_asked_once(api: Api, database_url: str) -> None:
    async with locked(database_url, "configuration") as connection:
        port = int(api.url.rpartition(":")[2])
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for _, writer in opened:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\nGET /readyz HTTP/1.1\r\nHost: gateway\r\n\r\n")
        for reader, _ in opened:  # once the first is answered, the second has begun
            await reader.readuntil(b'"ok"}')
        await until_asked(connection, "configuration", 1)
        assert await connection.fetchval(WAITS, "configuration") <= 2  # the process asks for itself, too
    for reader, writer in opened:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.transport.abort()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def missed(guesses: Guesses, digest: bytes, source: str) -> None:
    async with guesses.look_up(digest, source):
        guesses.learn(digest, is_live=False)


async def test_a_key_that_is_none_is_not_looked_up_again_for_a_while() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    assert not guesses.is_none(b"key")
    await missed(guesses, b"key", "10.0.0.1")
    assert guesses.is_none(b"key")
    clock.now += WINDOW
    assert not guesses.is_none(b"key")


@pytest.mark.parametrize(
    ("guesser", "other", "is_refused"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
async def test_one_address_may_guess_so_often(guesser: str, other: str, is_refused: bool) -> None:
    clock = Clock()
    guesses = Guesses(clock)
    async with guesses.look_up(b"live", guesser):
        guesses.learn(b"live", is_live=True)
    for number in range(MOST_GUESSES):
        await missed(guesses, b"%d" % number, guesser)
    if is_refused:
        with pytest.raises(Problem, match="429"):
            await missed(guesses, b"another", other)
    else:
        await missed(guesses, b"another", other)
    async with guesses.look_up(b"live", guesser):  # a key that was live is always looked up
        pass
    clock.now += WINDOW
    await missed(guesses, b"one more", guesser)


async def test_what_the_database_did_not_answer_was_no_guess() -> None:
    guesses = Guesses(Clock())
    for number in range(2 * MOST_GUESSES):
        with pytest.raises(DatabaseUnavailable):
            async with guesses.look_up(b"%d" % number, "10.0.0.1"):
                raise DatabaseUnavailable


async def test_only_so_many_keys_wait_to_be_looked_up() -> None:
    guesses, go_on = Guesses(Clock()), asyncio.Event()

    async def hang(number: int) -> None:
        async with guesses.look_up(b"%d" % number, f"10.0.{number}.1"):
            await go_on.wait()

    waiting = [asyncio.create_task(hang(number)) for number in range(MOST_WAITING)]
    last = asyncio.create_task(hang(MOST_WAITING))
    with pytest.raises(DatabaseUnavailable):
        await last
    go_on.set()
    await asyncio.gather(*waiting)
    await hang(0)


async def test_what_is_remembered_of_guesses_is_bounded() -> None:
    guesses = Guesses(Clock())
    for number in range(2 * MOST_REMEMBERED):
        await missed(guesses, b"%d" % number, f"10.{number >> 8}.{number & 255}.1")
    assert not guesses.is_none(b"0")
    assert guesses.is_none(b"%d" % (2 * MOST_REMEMBERED - 1))
