"""PostgreSQL is killed before it has written down what fan-out made, where it need not wait for that: then that is made
again, and nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic, time

import asyncpg
import pytest
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from tests.store.test_told import heard, round_of_told, told
from tests.support.hospital import PATIENCE, Hospital, hospital_on
from tests.support.partner import OK, Partner, Received
from tests.support.postgres import FAST, MortalPostgres
from webhook_gateway.rules.model import DeliveryState
from webhook_gateway.store import deliveries, migrate, outbox
from webhook_gateway.store.attempts import Alike, Attempt
from webhook_gateway.store.database import DatabaseUnavailable
from webhook_gateway.store.deliveries import Finished

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
    async with _hospital(mortal, "off") as found:
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
        alike = Alike(hospital.tenant_id, 1, 1, "answered", "accepted", 200, None, None, 1, None, None, None, None, 32)
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


@pytest.mark.parametrize("waits", ["", "on", "whatever else"])
async def test_fan_out_waits_for_the_disk_unless_it_was_told_not_to(mortal: MortalPostgres, waits: str) -> None:
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
