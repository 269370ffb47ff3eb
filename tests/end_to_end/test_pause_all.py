"""While all sending is paused nothing new goes out, to anybody; what is under way ends, and later all of it goes on."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.hospital import Hospital
from tests.support.partner import OK, Received, partner
from webhook_gateway import telemetry
from webhook_gateway.operations import pause
from webhook_gateway.store.waiting import open_by_reason


async def test_what_is_under_way_ends_and_nothing_follows_until_it_is_resumed(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, arrived, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(telemetry, "sending_paused", paused.set)

    async def answer(_: Received) -> bytes:
        arrived.set()
        await answered.wait()
        return OK

    async with partner(otherwise=answer) as there:
        await hospital.endpoint(url=there.url())
        await hospital.post("a", "a", "a")  # of one ordering key: each goes when the one before it has ended
        async with hospital.worker():
            await arrived.wait()
            assert await pause.pause_all(hospital.database, "a drill") is True
            async with asyncio.timeout(20):
                await paused.wait()
            answered.set()
            await hospital.until("SELECT FROM finished_deliveries")
            await hospital.post("b")
            async with hospital.database.connection() as connection:
                by_reason, _ = await open_by_reason(connection)
            assert by_reason == {"sending_paused": 1, "ordering_key": 1}
            test = await hospital.test((await hospital.rows("SELECT id FROM endpoints"))[0]["id"])
            assert len(there.received) == 1
            assert await pause.resume_all(hospital.database) is True
            await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 5")
        assert len(there.received) == 5
        assert await hospital.rows("SELECT FROM finished_deliveries WHERE id = $1", test)
        assert await pause.resume_all(hospital.database) is False
