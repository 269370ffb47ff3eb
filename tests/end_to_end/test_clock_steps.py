"""The database's clock steps: nobody waits for the hour that it showed, and nothing goes before its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta

import pytest

from tests.support.hospital import Hospital, hospital_on
from tests.support.partner import Partner, Received, status
from tests.support.postgres import Server
from tests.support.stepping_clock import Stepping, needs_compiler, stepping_postgres
from webhook_gateway import telemetry
from webhook_gateway.delivery.registry import Registry
from webhook_gateway.delivery.upkeep import Upkeep
from webhook_gateway.rules import ids
from webhook_gateway.store import clock, migrate, partitions
from webhook_gateway.store.configuration import Snapshot

pytestmark = needs_compiler

Open = Callable[..., Awaitable[Partner]]
DAY = 86_400
PATIENCE = 30.0


@pytest.fixture(scope="module")
def stepping() -> Iterator[Stepping]:
    with stepping_postgres() as server:
        yield server


@pytest.fixture
async def hospital(stepping: Stepping) -> AsyncIterator[Hospital]:
    stepping.step(0)
    async with Server(stepping.url).copy("template0") as url:
        await asyncio.to_thread(migrate.upgrade, url)
        async with hospital_on(url) as found:
            yield found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, asyncio.Event]:
    """What is logged of clocks."""
    events = {name: asyncio.Event() for name in ("clock_stepped", "clock_settled", "clocks_differ")}
    for name, event in events.items():
        monkeypatch.setattr(telemetry, name, lambda _seconds, event=event: event.set())
    return events


async def hear(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()


@pytest.mark.parametrize("seconds", [DAY, -DAY])
async def test_a_step_for_a_moment_moves_no_retry_and_begins_nothing(
    hospital: Hospital, stepping: Stepping, told: dict[str, asyncio.Event], open_partner: Open, seconds: int
) -> None:
    let_go = asyncio.Event()

    async def fail_late(_: Received) -> bytes:
        await let_go.wait()
        return status(500)

    late, waiting = await open_partner(fail_late), await open_partner(status(500))
    await hospital.endpoint("lab_result.*", url=late.url(), schedule=[0.1] * 9)
    await hospital.endpoint("lab_result.*", url=waiting.url(), schedule=[3_600.0] * 9)
    async with hospital.worker():
        await hospital.post()
        await late.got(1)
        await hospital.until("SELECT FROM attempts")
        stepping.step(seconds)
        await hear(told["clock_stepped"])
        let_go.set()
        await hospital.until("SELECT FROM attempts OFFSET 1")
        (again,) = await hospital.post()
        stepping.step(0)
        await hear(told["clock_settled"])
        await late.got(3)
        await waiting.got(2)
        await hospital.until("SELECT FROM finished_deliveries OFFSET 2")
        assert sorted(received.id for received in waiting.received)[-1] == ids.render(ids.EVENT, again)
        assert len(waiting.received) == 2, "a retry came before its time"
        assert await hospital.count("attempts WHERE started_at NOT BETWEEN now() - INTERVAL '1 h' AND now()") == 0


async def test_what_was_written_in_a_wrong_hour_heals_when_that_is_put_right(
    hospital: Hospital,
    stepping: Stepping,
    told: dict[str, asyncio.Event],
    open_partner: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "LASTS", 1.0)
    partner = await open_partner(*[status(500)] * 10)
    await hospital.endpoint(url=partner.url(), schedule=[0.01] * 9 + [1.0])
    stepping.step(DAY)
    async with hospital.worker():
        await hospital.post()
        await hospital.until("SELECT FROM endpoint_health WHERE open_until > now()")
        stepping.step(0)
        await hear(told["clock_settled"])
        await hospital.until("SELECT FROM finished_deliveries WHERE state = 'delivered'")
        assert await hospital.count("workers WHERE seen_at > now() + INTERVAL '1 h'") == 0


async def test_ids_of_events_are_of_the_databases_time(hospital: Hospital, stepping: Stepping) -> None:
    stepping.step(-40 * DAY)
    async with hospital.elsewhere() as api:
        await api.ingest.refresh()  # as an API does before it knows any key
        event_id = await api.accept()
    (row,) = await hospital.rows("SELECT clock_timestamp() AS now, occurred_at FROM events WHERE id = $1", event_id)
    assert abs(ids.moment_of(event_id) - row["now"]) < timedelta(minutes=1)
    assert row["occurred_at"] == ids.moment_of(event_id)


async def test_nothing_is_dropped_while_the_clocks_say_different_days(
    hospital: Hospital, stepping: Stepping, told: dict[str, asyncio.Event]
) -> None:
    async with hospital.database.connection() as connection:
        old = await partitions.today(connection) - timedelta(days=20)
        (name,) = await partitions.make_ahead(connection, partitions.EVENTS, old, 0)
    there = f"pg_class WHERE relname = '{name}'"
    for step, left in ((40 * DAY, 1), (0, 1)):
        stepping.step(step)
        async with hospital.elsewhere() as elsewhere:
            await Upkeep(elsewhere.settings, elsewhere.database, elsewhere.vault, configured()).poll()
        assert await hospital.count(there) == left
    assert told["clocks_differ"].is_set()
    changed = hospital.settings.model_copy(update={"retain_bodies_days": 10})
    async with hospital.elsewhere() as elsewhere:
        await Upkeep(changed, elsewhere.database, elsewhere.vault, configured()).poll()
    assert await hospital.count(there) == 0


def configured() -> Registry:
    """A worker's, that knows its configuration."""
    registry = Registry()
    registry.learn(Snapshot(1, {}, frozenset(), None))
    return registry
