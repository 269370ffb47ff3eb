"""What was in the outbox when PostgreSQL recovered from a crash may have been sent, to whoever it was for until now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from tests.end_to_end.test_ledger import ledger
from tests.support.hospital import Hospital
from tests.support.rows import SUBSCRIBER
from webhook_gateway.operations import deliveries, endpoints, subscribers
from webhook_gateway.operations.change import changing, local_actor
from webhook_gateway.rules import ids
from webhook_gateway.store import outbox
from webhook_gateway.store.configuration import seal_column

Changed = Callable[[Hospital, UUID], Awaitable[Any]]
RECOVERY = "DELETE FROM recovered"
"""What a recovery does to an unlogged table."""
POSSIBLE = ("possible", "Laboratory", "partner.example", 2)


async def deleted(hospital: Hospital, endpoint_id: UUID) -> None:
    async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
        assert await endpoints.delete(change, hospital.vault, endpoint_id) is None


async def subscriber_deleted(hospital: Hospital, _: UUID) -> None:
    async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
        assert await subscribers.delete(change, hospital.vault, hospital.subscriber_id, force=True) is None


async def filtered(hospital: Hospital, endpoint_id: UUID) -> None:
    sealed = seal_column(hospital.vault, hospital.tenant_id, endpoint_id, "filter", {"n": [999]})
    await hospital.change("UPDATE endpoints SET filter = $1, filter_digest = '\\x01'", sealed)


def by(statement: str) -> Changed:
    return lambda hospital, _: hospital.change(statement)


async def moved_by_hand(hospital: Hospital, _: UUID) -> None:
    await hospital.rows("UPDATE endpoints SET url = 'https://elsewhere.example/'")


async def told_of(hospital: Hospital, event_id: UUID) -> list[tuple[object, ...]]:
    """What the ledger says of an event."""
    name = ids.render(ids.EVENT, event_id)
    return [
        tuple(one[of] for of in ("reached", "subscriber", "host", "times"))
        for one in await ledger(hospital)
        if one["event_id"] == name
    ]


@pytest.mark.parametrize(
    ("changed", "ended"),
    [
        (deleted, "endpoint_deleted"),
        (subscriber_deleted, "endpoint_deleted"),
        (filtered, "not_wanted"),
        (by("UPDATE endpoints SET event_types = '{payment.*}'"), "not_permitted"),
        (by("UPDATE subscribers SET event_types = '{payment.*}'"), "not_permitted"),
        (by("UPDATE endpoints SET url = 'https://elsewhere.example/'"), None),
        (by("UPDATE subscribers SET name = 'Another'"), None),
        (moved_by_hand, None),
        (by("UPDATE endpoints SET state = 'paused'"), None),
    ],
)
async def test_whatever_becomes_of_an_endpoint_what_it_may_have_got_before_a_crash_is_on_the_ledger(
    hospital: Hospital, changed: Changed, ended: str | None
) -> None:
    endpoint_id = await hospital.endpoint()
    (event_id,) = await hospital.post("a")
    await hospital.rows(RECOVERY)
    await changed(hospital, endpoint_id)
    assert await hospital.fan_out()
    assert POSSIBLE in await told_of(hospital, event_id)
    if ended is None:
        (row,) = await hospital.rows("SELECT id FROM deliveries WHERE event_id = $1", event_id)
        async with changing(hospital.database, local_actor(hospital.tenant_id)) as change:
            await deliveries.cancel(change, row["id"])  # before anything is sent of it again
    (row,) = await hospital.rows("SELECT * FROM finished_deliveries WHERE event_id = $1", event_id)
    assert (row["state"], row["state_reason"]) == ("cancelled", ended or deliveries.BY_HAND)
    assert POSSIBLE in await told_of(hospital, event_id)


async def test_what_was_accepted_since_or_taken_before_or_has_waited_without_a_crash_is_not(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    before = await hospital.post()
    await hospital.fan_out()
    await hospital.rows(RECOVERY)
    recovered = await hospital.post()
    await hospital.fan_out()
    since = await hospital.post()
    await hospital.fan_out()
    waiting = await hospital.post()
    await deleted(hospital, endpoint_id)
    await hospital.fan_out()
    assert [await told_of(hospital, one) for (one,) in (before, recovered, since, waiting)] == [[], [POSSIBLE], [], []]


async def test_only_who_was_meant_until_the_event_was_accepted_may_have_got_it(hospital: Hospital) -> None:
    another, long_gone = uuid7(), await hospital.endpoint()
    await hospital.change(SUBSCRIBER, another, hospital.tenant_id, "Another")
    await hospital.change("UPDATE endpoints SET deleted_at = now() - interval '1 hour' WHERE id = $1", long_gone)
    theirs, narrow, meant = (
        await hospital.endpoint(subscriber_id=another),
        await hospital.endpoint("payment.*"),
        await hospital.endpoint(),
    )
    addressed = replace(hospital.prepared(None), addressees=f"{{{hospital.subscriber_id}}}")
    async with hospital.database.connection() as connection:
        await outbox.append(connection, [addressed])
    await hospital.rows(RECOVERY)
    for endpoint_id in (theirs, narrow, meant):
        await deleted(hospital, endpoint_id)
    await hospital.fan_out()
    rows = await hospital.rows("SELECT endpoint_id FROM finished_deliveries WHERE event_id = $1", addressed.id)
    assert [row["endpoint_id"] for row in rows] == [meant]


async def test_a_test_that_may_have_been_sent_before_its_endpoint_was_deleted_is_on_the_ledger(
    hospital: Hospital,
) -> None:
    endpoint_id = await hospital.endpoint()
    promised = await hospital.test(endpoint_id)
    await hospital.rows(RECOVERY)
    await deleted(hospital, endpoint_id)
    await hospital.fan_out()
    (row,) = await hospital.rows("SELECT event_id, reason, lapsed FROM finished_deliveries WHERE id = $1", promised)
    assert (row["reason"], row["lapsed"]) == ("test", 1)
    assert await told_of(hospital, row["event_id"]) == [POSSIBLE]


async def test_a_clock_that_is_behind_after_the_crash_hides_nothing(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    ahead = replace(hospital.prepared(None), id=UUID(int=uuid7().int + (3_600_000 << 80)))
    async with hospital.database.connection() as connection:
        await outbox.append(connection, [ahead])
    await hospital.rows(RECOVERY)
    await deleted(hospital, endpoint_id)
    await hospital.fan_out()
    assert await told_of(hospital, ahead.id) == [POSSIBLE]


async def test_what_is_replaced_as_it_is_made_again_may_have_been_sent_while_its_endpoint_had_another_order(
    hospital: Hospital,
) -> None:
    await hospital.endpoint(ordering="latest")
    events = await hospital.post("a", "a")
    await hospital.rows(RECOVERY)
    await hospital.fan_out()
    assert await hospital.count("finished_deliveries WHERE state_reason = 'superseded'") == 1
    assert [await told_of(hospital, event_id) for event_id in events] == [[POSSIBLE], [POSSIBLE]]
