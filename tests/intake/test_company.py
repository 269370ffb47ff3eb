"""Events that come often share a commit, and one that comes alone waits for none. Without end here, so that no clock
helps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from webhook_gateway import counters, telemetry
from webhook_gateway.intake import commits as module
from webhook_gateway.intake import company
from webhook_gateway.intake.company import FEW, MANY, OFTEN, VERY_OFTEN, Company
from webhook_gateway.store.database import Connection

from .taking_in import taking_in

Post = Callable[[int], "list[asyncio.Task[None]]"]


@pytest.fixture
async def post(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Post]:
    monkeypatch.setattr(company, "COMPANY", 3_600.0)
    monkeypatch.setattr(module, "LONG_COMPANY", 3_600.0)
    monkeypatch.setattr(company, "RECENTLY", 3_600.0)
    async with taking_in(database_url, "default") as intake:
        yield lambda count: [asyncio.create_task(intake.post(intake.tenants[0])) for _ in range(count)]


def sizes() -> tuple[float, float]:
    """Commits so far, and events in them."""
    counters.count()
    [metric] = telemetry.append_events.collect()
    found = {sample.name.rpartition("_")[2]: sample.value for sample in metric.samples}
    return found["count"], found["sum"]


async def test_those_that_come_often_share_a_commit_as_soon_as_they_are_enough(post: Post) -> None:
    await asyncio.gather(*post(OFTEN + 1))
    commits, events = sizes()
    few = post(1)
    for _ in range(FEW - 2):
        await asyncio.sleep(0)
        few += post(1)
    done, _ = await asyncio.wait(few, timeout=0.2)
    assert not done
    await asyncio.gather(*few, *post(1))
    assert sizes() == (commits + 1, events + FEW)


async def test_one_that_comes_alone_is_committed_at_once(post: Post) -> None:
    commits, events = sizes()
    for alone in range(1, OFTEN + 1):
        await asyncio.gather(*post(1))
        assert sizes() == (commits + alone, events + alone)


async def test_many_wait_for_none(post: Post) -> None:
    await asyncio.gather(*post(OFTEN + 1))
    commits, events = sizes()
    await asyncio.gather(*post(FEW + 1))
    assert sizes() == (commits + 1, events + FEW + 1)


async def test_where_they_come_very_often_many_share_a_commit(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET", 3_600.0)
    await asyncio.gather(*post(VERY_OFTEN + 1))
    commits, events = sizes()
    many = post(FEW + 1)
    await asyncio.sleep(0)
    many += post(MANY - FEW - 2)
    done, _ = await asyncio.wait(many, timeout=0.2)
    assert not done
    await asyncio.gather(*many, *post(1))
    assert sizes() == (commits + 1, events + MANY)


async def test_nobody_waits_for_more_than_come(post: Post) -> None:
    await asyncio.gather(*post(VERY_OFTEN + 1))
    async with asyncio.timeout(60):
        await asyncio.gather(*post(FEW - 1))
        await asyncio.gather(*post(MANY - 1))


async def test_few_who_post_one_after_the_other_are_enough(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.gather(*post(VERY_OFTEN + 1))
    await asyncio.gather(*post(FEW - 1))
    monkeypatch.setattr(module, "QUIET", 3_600.0)
    async with asyncio.timeout(60):
        await asyncio.gather(*post(FEW))


async def test_as_soon_as_it_is_free_they_are_committed_by_the_connection_that_is_preferred(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[object] = []
    append = module.append

    def note(connection: Connection, *events: Any, **more: Any) -> Any:
        used.append(connection)
        return append(connection, *events, **more)

    monkeypatch.setattr(module, "append", note)
    async with taking_in(database_url, "default") as intake:
        (tenant,) = intake.tenants
        async with intake.database.connection() as preferred:
            intake.database.prefer(preferred)
            await intake.post(tenant)
        await intake.post(tenant)
        await intake.post(tenant)
        assert [one is preferred for one in used] == [False, True, True]


def test_a_commit_that_took_longer_than_usual_is_company_enough() -> None:
    rule = Company()
    for _ in range(100):
        rule.begin(FEW, rule.began + 0.005)
        rule.end(0.002)
    assert rule.wait_of_few() == pytest.approx(company.COMPANY, abs=1e-5)
    rule.begin(1, rule.began + 0.005)
    rule.end(0.003)
    assert rule.wait_of_few() == pytest.approx(company.COMPANY - 0.001, abs=1e-4)
    rule.begin(1, rule.began + 0.005)
    rule.end(0.05)
    assert rule.wait_of_few() < 0


def test_how_long_a_commit_of_many_takes_is_not_what_one_usually_does() -> None:
    rule = Company()
    for events, seconds in [(1, 0.002)] * 100 + [(FEW + 1, 0.05)] * 100 + [(1, 0.003)]:
        rule.begin(events, rule.began + 0.001)
        rule.end(seconds)
    assert rule.wait_of_few() == pytest.approx(company.COMPANY - 0.001, abs=1e-4)
