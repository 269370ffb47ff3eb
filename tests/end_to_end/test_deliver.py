"""What partners get, and what is kept of their answers, with a worker and real sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.hospital import Hospital
from tests.support.partner import Received, partner
from webhook_gateway import __version__

PATIENCE_OF_ALL = 30.0


async def test_every_request_says_who_sends_it(hospital: Hospital) -> None:
    async with partner() as there:
        await hospital.endpoint(url=there.url())
        await hospital.accept()
        async with hospital.worker():
            (got,) = await there.got(1)
        assert got.headers["user-agent"] == f"webhook-gateway/{__version__}"


def echo(got: Received) -> tuple[int, bytes]:
    return 200, got.body


async def test_answers_are_kept_sealed_and_only_as_far_as_the_setting_says(hospital: Hospital) -> None:
    async with partner(otherwise=echo) as there:
        await hospital.endpoint(url=there.url())
        await hospital.accept()
        async with hospital.worker(keep_responses=100):
            (got,) = await there.got(1)
        (row,) = await hospital.rows("SELECT * FROM attempts")
        assert row["response_length"] == len(got.body)
        assert got.body[:100] not in row["response_excerpt"]
        opened = hospital.vault.open(hospital.tenant_id, "attempts", row["id"], row["response_excerpt"])
        assert opened == got.body[:100]


async def test_by_default_nothing_of_an_answer_is_kept_but_its_measure(hospital: Hospital) -> None:
    async with partner(otherwise=echo) as there:
        await hospital.endpoint(url=there.url())
        await hospital.accept()
        async with hospital.worker():
            (got,) = await there.got(1)
        (row,) = await hospital.rows("SELECT * FROM attempts")
        assert row["response_excerpt"] is None
        assert row["response_length"] == len(got.body)
        assert len(row["response_digest"]) == 32


async def test_an_event_that_arrives_just_as_a_commit_ends_is_committed_at_once(hospital: Hospital) -> None:
    async with asyncio.timeout(PATIENCE_OF_ALL):
        for number in range(50):
            await hospital.accept(payment_id=f"pay_{number}")


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
async def test_of_a_content_type_only_the_media_type_is_kept(hospital: Hospital, given: str, kept: str | None) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: {given}\r\nContent-Length: 0\r\n\r\n".encode()
    async with partner(otherwise=lambda _: answer) as there:
        await hospital.endpoint(url=there.url())
        await hospital.accept()
        async with hospital.worker():
            await there.got(1)
        (row,) = await hospital.rows("SELECT response_type FROM attempts")
        assert row["response_type"] == kept
