"""What partners get, and what is kept of their answers, with a worker and real sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests.end_to_end.inside import Got, inside, partner
from webhook_gateway import __version__

PATIENCE_OF_ALL = 30.0


async def test_every_request_says_who_sends_it(database_url: str) -> None:
    async with inside(database_url) as gateway, partner() as there:
        await gateway.add_endpoint(there.url())
        await gateway.accept()
        async with gateway.working():
            (got,) = await there.wait_for(1)
        assert got.headers["user-agent"] == f"webhook-gateway/{__version__}"


def echo(got: Got) -> tuple[int, bytes]:
    return 200, got.body


async def test_answers_are_kept_sealed_and_only_as_far_as_the_setting_says(database_url: str) -> None:
    async with inside(database_url, keep_responses=100) as gateway, partner(echo) as there:
        await gateway.add_endpoint(there.url())
        await gateway.accept()
        async with gateway.working():
            (got,) = await there.wait_for(1)
        (row,) = await gateway.rows("SELECT * FROM attempts")
        assert row["response_length"] == len(got.body)
        assert got.body[:100] not in row["response_excerpt"]
        opened = gateway.vault.open(gateway.tenant_id, "attempts", row["id"], row["response_excerpt"])
        assert opened == got.body[:100]


async def test_by_default_nothing_of_an_answer_is_kept_but_its_measure(database_url: str) -> None:
    async with inside(database_url) as gateway, partner(echo) as there:
        await gateway.add_endpoint(there.url())
        await gateway.accept()
        async with gateway.working():
            (got,) = await there.wait_for(1)
        (row,) = await gateway.rows("SELECT * FROM attempts")
        assert row["response_excerpt"] is None
        assert row["response_length"] == len(got.body)
        assert len(row["response_sha256"]) == 32


async def test_an_event_that_arrives_just_as_a_commit_ends_is_committed_at_once(database_url: str) -> None:
    async with inside(database_url) as gateway, asyncio.timeout(PATIENCE_OF_ALL):
        for number in range(50):
            await gateway.accept(payment_id=f"pay_{number}")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("application/json; charset=utf-8", "application/json"),
        ("Text/HTML", "text/html"),
        ("text/plain; patient=Jane", "text/plain"),
        ("Jane Doe, born 1961-02-03", None),
        ("a/" + "b" * 200, None),
        ("a/\x00b", None),
    ],
)
async def test_of_a_content_type_only_the_media_type_is_kept(database_url: str, given: str, kept: str | None) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: {given}\r\nContent-Length: 0\r\n\r\n".encode()
    async with inside(database_url) as gateway, partner(lambda _: answer) as there:
        await gateway.add_endpoint(there.url())
        await gateway.accept()
        async with gateway.working():
            await there.wait_for(1)
        (row,) = await gateway.rows("SELECT response_type FROM attempts")
        assert row["response_type"] == kept
