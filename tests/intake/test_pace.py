"""The more events a commit has, the longer until workers are told of the next: no clock is asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from webhook_gateway.intake.commits import LONGEST_GAP, PACE
from webhook_gateway.intake.company import FEW
from webhook_gateway.store import notifications
from webhook_gateway.store.notifications import GAP

from .taking_in import taking_in


async def test_the_more_come_at_once_the_rarer_are_workers_told(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: asyncio.Queue[float] = asyncio.Queue()
    monkeypatch.setattr(notifications, "asyncio", SimpleNamespace(Event=asyncio.Event, sleep=waits.put))
    async with taking_in(database_url, "default") as intake:
        telling = asyncio.create_task(intake.ingest.run())
        for count, gap in ((FEW + 1, GAP + PACE), (FEW + 2, GAP + PACE * 2), (200, LONGEST_GAP)):
            await asyncio.gather(*(intake.post(intake.tenants[0]) for _ in range(count)))
            async with asyncio.timeout(60):
                assert await waits.get() == gap
        telling.cancel()
