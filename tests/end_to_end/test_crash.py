"""PostgreSQL is killed before it has written down what fan-out made, which need not wait for that: then that is made
again, nothing is lost, and whatever may have been sent is on the ledger."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic, time
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from tests.end_to_end.test_ledger import worker
from tests.store.test_recovered import Changed, by, deleted, told_of
from tests.store.test_told import heard, round_of_told, told
from tests.support.hospital import PATIENCE, Hospital, hospital_on
from tests.support.partner import OK, Partner, Received
from tests.support.postgres import FAST, MortalPostgres
from tests.support.standby import standby_of
from webhook_gateway.rules.model import DeliveryState
from webhook_gateway.store import deliveries, migrate, outbox
from webhook_gateway.store.attempts import Alike, Attempt
from webhook_gateway.store.database import Database, DatabaseUnavailable
from webhook_gateway.store.deliveries import Finished
from webhook_gateway.store.outbox import OutboxEvent

# What nobody waits for is not written before the kill.
LATE = {**FAST, "wal_writer_delay": "10s", "autovacuum": "off"}
MADE_AGAIN = "SELECT id, event_id, attempt, due_at, lease_id FROM deliveries ORDER BY sequence"


@pytest.fixture(scope="module")
def mortal() -> Iterator[MortalPostgres]:
    directory = Path(tempfile.mkdtemp(prefix="webhook-gateway-mortal-"))
    directory.chmod(0o755)
    try:
        with MortalPostgres.start(directory / "postgres", settings=LATE, die_with_parent=True) as server:
            yield server
    finally:
        shutil.rmtree(directory)


@pytest.fixture
async def hospital(mortal: MortalPostgres) -> AsyncIterator[Hospital]:
    async with _hospital(mortal, "") as found:
        yield found


@asynccontextmanager
async def _hospital(mortal: MortalPostgres, waits: str) -> AsyncIterator[Hospital]:
    name = f"crash_{uuid7().hex}"
    async with _connected(mortal) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
        if waits:
            said = f"webhook_gateway.fan_out_synchronous_commit = '{waits}'"
            await connection.execute(f"ALTER DATABASE {name} SET {said}")
    url = mortal.url.removesuffix("/postgres") + f"/{name}"
    await asyncio.to_thread(migrate.upgrade, url)
    async with hospital_on(url) as found:
        yield found


@asynccontextmanager
async def _connected(mortal: MortalPostgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(mortal.url)
    try:
        yield connection
    finally:
        await connection.close()


async def crash(mortal: MortalPostgres, hospital: Hospital) -> None:
    """By this thread, since the server ends with the one that has started it. Returns when it answers again."""
    mortal.kill()
    mortal.restart()
    await answers(hospital)


async def answers(hospital: Hospital) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(DatabaseUnavailable):
                await hospital.count("outbox")
                return


async def test_what_a_crash_takes_of_a_fan_out_is_made_again_before_what_came_later_and_under_the_same_id(
    mortal: MortalPostgres, hospital: Hospital
) -> None:
    await hospital.endpoint()
    async with told(hospital) as fan_out:
        (first,) = await hospital.post("a", told=True)
        (sent,) = [one.delivery for one in (await round_of_told(fan_out)).leased]
        mark = fan_out.dispatch.low_water_mark  # as it is a second later
        (row,) = await hospital.rows("SELECT last_value FROM outbox_sequence_seq")
        mark.latest, mark.latest_at = row["last_value"], monotonic()
        fan_out.told.clear()
        await crash(mortal, hospital)
        await heard(fan_out)  # listens again
        assert [row["event_id"] for row in await hospital.rows("SELECT event_id FROM outbox")] == [first]

        # Who has sent it meanwhile writes that down.
        attempt = Attempt(sent.id, deliveries.new_id(), time(), 0.1, bytes(32))
        alike = Alike(hospital.tenant_id, 1, 1, "answered", "accepted", 200, None, None, 1, None, None, None, None)
        async with hospital.database.connection() as connection:
            ended = [Finished(sent, DeliveryState.DELIVERED)]
            assert not (await deliveries.settle(connection, [(alike, [attempt])], ended, [])).ours

        (second,) = await hospital.post("a", told=True)
        assert (await fan_out.round()).dequeued == 2
        again, later = await hospital.rows(MADE_AGAIN)
        assert (again["event_id"], again["id"], again["attempt"]) == (first, sent.id, 1)
        assert again["lease_id"] != sent.lease_id
        assert (later["event_id"], later["due_at"]) == (second, None)
        assert await hospital.count(f"attempts WHERE delivery_id = '{again['id']}'") == 1


async def test_a_round_that_a_crash_takes_is_made_again_under_the_same_ids(
    mortal: MortalPostgres, hospital: Hospital
) -> None:
    await hospital.endpoint()
    await hospital.endpoint()
    await hospital.post("a", "b")
    assert await hospital.fan_out() == 2
    made = {row["id"] for row in await hospital.rows(MADE_AGAIN)}
    await crash(mortal, hospital)
    assert await hospital.count("deliveries") == 0
    assert await hospital.fan_out() == 2
    assert {row["id"] for row in await hospital.rows(MADE_AGAIN)} == made
    assert len(made) == 4


@pytest.mark.parametrize("waits", ["on", "whatever else"])
async def test_fan_out_waits_for_the_disk_where_it_was_told_to(mortal: MortalPostgres, waits: str) -> None:
    async with _hospital(mortal, waits) as hospital:
        await hospital.endpoint()
        async with told(hospital) as fan_out:
            await hospital.post("a", told=True)
            assert len((await round_of_told(fan_out)).leased) == 1
            fan_out.told.clear()
            await crash(mortal, hospital)
            assert await hospital.count("deliveries") == 1
            assert await hospital.count("outbox") == 0
        await hospital.post("b")
        assert await hospital.fan_out() == 1
        await crash(mortal, hospital)
        assert await hospital.count("deliveries") == 2


async def test_a_round_that_tells_of_an_addressee_who_gets_nothing_is_written_before_anybody_hears_of_it(
    mortal: MortalPostgres, hospital: Hospital
) -> None:
    addressed = replace(hospital.prepared(None), addressees=f"{{{uuid7()}}}")
    async with hospital.database.connection() as connection:
        await outbox.append(connection, [addressed])
    assert (await hospital.dispatch.fan_out()).dequeued == 1
    (told_of,) = await hospital.rows("SELECT event_id, type FROM outbox")
    await crash(mortal, hospital)
    assert await hospital.rows("SELECT event_id, type FROM outbox") == [told_of]
    assert told_of["type"] == "gateway.event_undelivered"


async def test_a_worker_that_outlives_a_crash_has_written_down_all_that_the_partner_got(
    mortal: MortalPostgres, hospital: Hospital, open_partner: Callable[..., Awaitable[Partner]]
) -> None:
    may_answer = asyncio.Event()

    async def waits(_: Received) -> bytes:
        await may_answer.wait()
        return OK

    partner = await open_partner(waits)
    await hospital.endpoint(url=partner.url())
    async with hospital.worker(lease_margin=2):
        await hospital.post("a", "b", told=True)
        await partner.got(2)
        await crash(mortal, hospital)
        may_answer.set()
        await hospital.until("SELECT FROM finished_deliveries WHERE state = 'delivered' OFFSET 1")
    ended = await hospital.rows("SELECT id, event_id FROM finished_deliveries")
    tried = await hospital.rows("SELECT delivery_id FROM attempts")
    assert len({received.id for received in partner.received}) == len(ended) == 2
    assert len(tried) == len(partner.received)
    assert {row["delivery_id"] for row in tried} == {row["id"] for row in ended}


async def lost(mortal: MortalPostgres, hospital: Hospital, partner: Partner) -> UUID:
    """An event that the partner has got, and of which nobody else knows any more: a worker and PostgreSQL were killed.

    Once more where something else was committed in between, which has written down its fan-out, too.
    """
    for n in range(1, 11):
        async with worker(hospital) as doomed:
            await hospital.until("SELECT FROM workers HAVING count(*) = $1", n)
            (event_id,) = await hospital.post(told=True)
            await partner.got(n)
            mortal.kill()
            doomed.kill()
        mortal.restart()
        await answers(hospital)
        if await hospital.count("outbox"):
            assert await hospital.count("deliveries") == n - 1
            return event_id
    pytest.fail("each fan-out was written down")


async def _never(_: Received) -> bytes:
    return await asyncio.Future()


@pytest.mark.slow
@pytest.mark.parametrize("changed", [deleted, by("UPDATE endpoints SET url = 'http://127.0.0.1:1/', state = 'paused'")])
async def test_what_left_before_the_power_failed_is_on_the_ledger_whatever_becomes_of_its_endpoint(
    mortal: MortalPostgres,
    hospital: Hospital,
    open_partner: Callable[..., Awaitable[Partner]],
    changed: Changed,
) -> None:
    partner = await open_partner(otherwise=_never)
    endpoint_id = await hospital.endpoint(url=partner.url())
    event_id = await lost(mortal, hospital, partner)
    await changed(hospital, endpoint_id)
    async with hospital.worker():
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM outbox)")
    assert ("possible", "Laboratory", f"127.0.0.1:{partner.port}", 2) in await told_of(hospital, event_id)


async def test_a_restart_in_order_loses_nothing_and_one_process_that_is_killed_is_a_crash(
    mortal: MortalPostgres, hospital: Hospital
) -> None:
    await hospital.post()
    mortal.restart()
    await answers(hospital)
    assert [event.is_recovered for event in await dequeued(hospital.database)] == [False]
    await hospital.post()
    async with _connected(mortal) as victim, _connected(mortal) as other, asyncio.timeout(PATIENCE):
        recovers = asyncio.Event()
        other.add_termination_listener(lambda *_: recovers.set())
        os.kill(victim.get_server_pid(), signal.SIGKILL)
        await recovers.wait()
        while not await _is_recovered(mortal):  # noqa: ASYNC110 - a session of the pool may live on
            await asyncio.sleep(0.05)
    await answers(hospital)
    assert [event.is_recovered for event in await dequeued(hospital.database)] == [True]


async def test_a_standby_that_takes_over_may_have_missed_a_fan_out(
    mortal: MortalPostgres, hospital: Hospital, place: Path
) -> None:
    await hospital.post()
    with standby_of(mortal, place / "standby") as standby:
        async with _connected(standby) as connection:
            assert await connection.fetchval("SELECT pg_promote()")
        url = str(hospital.settings.database_url).replace(f":{mortal.port}/", f":{standby.port}/")
        database = Database(url)
        try:
            assert [event.is_recovered for event in await dequeued(database)] == [True]
        finally:
            await database.close()


async def _is_recovered(mortal: MortalPostgres) -> bool:
    """New sessions are refused from when the server has noticed until it has recovered."""
    with suppress(OSError, asyncpg.PostgresError):
        async with _connected(mortal):
            return True
    return False


async def dequeued(database: Database) -> list[OutboxEvent]:
    async with database.connection() as connection:
        return (await outbox.dequeue(connection, 0, 500)).events
