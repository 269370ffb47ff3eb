"""What comes next after a commit: when workers are told of it, and when callers are. No clock is asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from webhook_gateway.intake import commits
from webhook_gateway.intake.commits import LONGEST_GAP, PACE, Outcome
from webhook_gateway.intake.company import FEW
from webhook_gateway.store import notifications
from webhook_gateway.store.notifications import GAP

from .taking_in import EVENT, taking_in


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


async def test_what_came_meanwhile_is_on_its_way_before_the_answers_of_a_commit_are_made(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    real = commits.append
    under_way, is_over = asyncio.Event(), asyncio.Event()

    async def append(*given: Any, **how: Any) -> Any:
        happened.append("begun")
        under_way.set()
        return await real(*given, **how)

    def tell(outcome: Outcome) -> None:
        happened.append("told")
        if happened.count("told") == 2:
            is_over.set()

    async with taking_in(database_url, "default") as intake:
        await intake.post(intake.tenants[0])
        monkeypatch.setattr(commits, "append", append)
        for _ in range(2):
            assert intake.ingest.put(intake.tenants[0], EVENT, intake.until, tell)
            await under_way.wait()
        async with asyncio.timeout(60):
            await is_over.wait()
    assert happened == ["begun", "begun", "told", "told"]
