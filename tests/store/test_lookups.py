"""Events by what they came with: one row for each key, by day, and however long ago in steps of 60 days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from tests.support.rows import prune_aged
from webhook_gateway.delivery.registry import Registry
from webhook_gateway.delivery.upkeep import Upkeep
from webhook_gateway.intake.catalogue import EventType
from webhook_gateway.intake.events import NewEvent, prepare
from webhook_gateway.intake.lookups import MOST_PATIENTS, Kind, digest, key_of, patients_of
from webhook_gateway.store import lookups, outbox, partitions
from webhook_gateway.store.configuration import Snapshot
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.partitions import LOOKUPS, lowest_id

TODAY = datetime.now(UTC).date()
KNOWN = EventType("visit.ended", "", {}, {}, "visit:{visit}", "tenant", patient=("/patient_id", "/others/*/id"))


async def stored(hospital: Hospital, data: dict[str, Any], days_ago: int = 0, **given: Any) -> UUID:
    event_id = uuid7() if not days_ago else UUID(int=lowest_id(TODAY - timedelta(days_ago)).int + uuid7().int % 2**64)
    event = NewEvent("visit.ended", msgspec.json.encode(data), data, **given)
    async with hospital.database.connection() as connection:
        await outbox.append(connection, [prepare(hospital.vault, event_id, hospital.tenant_id, event, KNOWN)])
    return event_id


def key(hospital: Hospital, kind: Kind, text: str) -> UUID:
    return key_of(digest(hospital.vault.hashes(hospital.tenant_id), kind, text))


async def test_an_event_is_found_by_all_that_came_with_it_and_two_keys_that_are_the_same_are_one_row(
    hospital: Hospital,
) -> None:
    data: dict[str, Any] = {"patient_id": "p1", "others": [{"id": 7}, {"id": "p1"}, {}], "visit": "v1"}
    event_id = await stored(hospital, data, subject="p1", patient="p9")
    rows = await hospital.rows("SELECT key, event_id FROM lookups")
    wanted = {
        *(key(hospital, Kind.PATIENT, patient) for patient in ("p1", "7", "p9")),
        key(hospital, Kind.ORDERING_KEY, "visit:v1"),
    }
    assert {row["key"] for row in rows} == wanted
    assert len(rows) == len(wanted)
    assert {row["event_id"] for row in rows} == {event_id}
    found, reached = await lookups.events_of(hospital.database, list(wanted), limit=10)
    assert ([(one, set(its)) for one, its in found], reached) == ([(event_id, wanted)], None)


async def test_an_event_that_was_there_before_leaves_no_second_row(hospital: Hospital) -> None:
    for _ in range(2):
        await stored(hospital, {"patient_id": "p1"}, idempotency_key="ik")
    assert await hospital.count("lookups") == 1


async def aged(hospital: Hospital, hours: int) -> int:
    async with hospital.database.connection() as connection:
        return await prune_aged(connection, hours)


async def test_an_idempotency_key_that_is_no_longer_remembered_is_what_its_event_is_found_by(
    hospital: Hospital,
) -> None:
    event_id = await stored(hospital, {}, idempotency_key="ik")
    assert (await aged(hospital, 71), await hospital.count("idempotency_keys"), await hospital.count("lookups")) == (
        0,
        1,
        0,
    )
    assert (await aged(hospital, 2), await hospital.count("idempotency_keys")) == (1, 0)
    wanted = [key(hospital, Kind.IDEMPOTENCY_KEY, "ik")]
    assert await lookups.events_of(hospital.database, wanted, limit=10) == ([(event_id, wanted)], None)
    assert await aged(hospital, 100) == 0


async def test_a_key_whose_events_day_has_gone_from_the_lookups_leaves_nothing_there(hospital: Hospital) -> None:
    await stored(hospital, {}, days_ago=4, idempotency_key="before any day that there is")
    assert (await aged(hospital, 96), await hospital.count("idempotency_keys"), await hospital.count("lookups")) == (
        1,
        0,
        0,
    )


async def test_what_an_older_version_wrote_down_twice_is_found_once(hospital: Hospital) -> None:
    event_id, wanted = await stored(hospital, {}, idempotency_key="ik"), key(hospital, Kind.IDEMPOTENCY_KEY, "ik")
    async with hospital.database.connection() as connection:
        await connection.execute("INSERT INTO lookups (key, event_id) VALUES ($1, $2)", wanted, event_id)
    await aged(hospital, 73)
    assert await hospital.count("lookups") == 2
    assert (await lookups.events_of(hospital.database, [wanted], limit=10))[0] == [(event_id, [wanted])]


def test_an_events_patients_are_bounded() -> None:
    everybody = {"others": [{"id": number} for number in range(2 * MOST_PATIENTS)]}
    assert len(patients_of(KNOWN.patient, everybody, None)) == MOST_PATIENTS
    assert patients_of(KNOWN.patient, {"patient_id": {}, "others": "p"}, None) == []


async def test_however_long_ago_no_transaction_locks_more_than_60_days(hospital: Hospital) -> None:
    async with hospital.database.connection() as connection:
        await partitions.make_ahead(connection, LOOKUPS, TODAY - timedelta(days=200), 199)
    days = [0, 1, 58, 59, 60, 61, 119, 120, 200]
    events = [await stored(hospital, {"patient_id": "p1"}, days_ago) for days_ago in days]
    keys, seen, before = [key(hospital, Kind.PATIENT, "p1")], [], None
    while True:
        found, before = await lookups.events_of(hospital.database, keys, before=before, limit=2)
        seen += [event_id for event_id, _ in found]
        if before is None or not found:
            break
        before = found[-1][0]
    assert seen == events
    assert (await lookups.events_of(hospital.database, keys, limit=100))[0] == [(one, keys) for one in events]
    since = datetime.now(UTC) - timedelta(days=60)
    assert len((await lookups.events_of(hospital.database, keys, since=since, limit=100))[0]) == 4
    async with hospital.database.reading() as connection:
        driver = await driver_of(connection)
        low, high = lowest_id(TODAY - timedelta(lookups.DAYS - 1)), lowest_id(TODAY + timedelta(1))
        await driver.fetch(lookups.BY_KEY, keys, low, high, 100)
        names = await driver.fetch(
            "SELECT c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " WHERE l.pid = pg_backend_pid() AND c.relkind = 'r' AND c.relname LIKE 'lookups%'"
        )
    assert len(names) == lookups.DAYS


async def test_days_are_made_ahead_and_dropped_with_what_is_kept_longest(hospital: Hospital) -> None:
    async with hospital.database.connection() as connection:
        for days_ago in (5, 7):
            await partitions.make_ahead(connection, LOOKUPS, TODAY - timedelta(days_ago), 0)
    kept, _ = [await stored(hospital, {"patient_id": "p1"}, days_ago) for days_ago in (5, 7)]
    registry = Registry()
    registry.learn(Snapshot(1, {}, frozenset(), None))
    settings = hospital.settings.model_copy(update={"retain_metadata_days": 6})
    await Upkeep(settings, hospital.database, hospital.vault, registry).poll()
    assert [row["event_id"] for row in await hospital.rows("SELECT event_id FROM lookups")] == [kept]
    async with hospital.database.connection() as connection:
        names = {row["relname"] for row in await connection.fetch(partitions.EXISTING, "lookups")}
        assert await partitions.first_day(connection, LOOKUPS) == TODAY - timedelta(5)
    assert {LOOKUPS.name(TODAY + timedelta(ahead)) for ahead in range(8)} <= names
