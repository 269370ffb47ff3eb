"""What would be sent again is what is sent again, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from tests.support.hospital import LAB_RESULT, PAYMENT, Hospital
from webhook_gateway.operations import deliveries, replays
from webhook_gateway.operations.change import Actor, changing, local_actor
from webhook_gateway.operations.refusals import Conflict, Invalid, NotFound, Refusal
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import gateway_status, stats
from webhook_gateway.store import replays as stored

BEGAN = datetime.now(UTC)
FINISHED = """
INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, attempt, state,
                                 state_reason, reason, replayed_as, created_at)
VALUES ($1, $2, $3, $4, $5, 1, $6, 1, $7, $8, $9, $10, now())
"""
ATTEMPT = """
INSERT INTO attempts (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, status, detail)
VALUES ($1, $2, $3, 1, now(), 0.1, 'answered', $4, $5, $6)
"""
EVENT = "INSERT INTO events (id, tenant_id, type, occurred_at, size, body) VALUES ($1, $2, $3, now(), 1, '')"


@dataclass(frozen=True)
class Past:
    """A delivery that has ended, to one of some endpoints, and what is there of it."""

    endpoint: int
    state: str
    type: str = LAB_RESULT
    ordering_key: int | None = None
    state_reason: str | None = None
    reason: str | None = None
    is_replayed: bool = False
    is_kept: bool = True
    later: str | None = None
    """How another delivery of the same event to the same endpoint ended."""


ENDPOINTS: Sequence[dict[str, Any]] = (
    {"rate": 2.0},
    {},
    {"state": "paused"},
    {"state": "disabled"},
    {"deleted_at": BEGAN},
    {"event_types": ["lab_result.*"]},
    {"host_changed_at": BEGAN - timedelta(hours=1)},
    {"host_changed_at": BEGAN + timedelta(days=1)},
)
states = st.sampled_from(["dead", "dead", "dead", "delivered", "cancelled"])
pasts = st.lists(
    st.builds(
        Past,
        st.integers(0, len(ENDPOINTS) - 1),
        states,
        st.sampled_from([LAB_RESULT, LAB_RESULT, PAYMENT, "gateway.breaker_opened"]),
        st.sampled_from([None, 1, 2]),
        st.sampled_from([None, None, "not_wanted"]),
        st.sampled_from([None, None, None, "replay", "test"]),
        *(st.booleans(), st.booleans()),
        st.sampled_from([None, None, "dead", "delivered"]),
    ),
    max_size=25,
)
asked = st.fixed_dictionaries(
    {"state": states},
    optional={
        "endpoint_id": st.sampled_from([0, 1, 2, 5]),
        "type": st.sampled_from([LAB_RESULT, PAYMENT]),
        "since": st.just(BEGAN - timedelta(days=1)),
        "until": st.just(BEGAN + timedelta(days=1)),
    },
)


async def past(hospital: Hospital, *told: Past, endpoints: Sequence[UUID]) -> list[UUID]:
    """Stores them; their ids."""
    made = []
    async with hospital.database.connection() as connection:
        for one in told:
            event_id, own = uuid7(), (hospital.tenant_id, endpoints[one.endpoint])
            if one.is_kept:
                await connection.execute(EVENT, event_id, hospital.tenant_id, one.type)
            about = (*own, event_id, one.type, one.ordering_key)
            replayed_as = uuid7() if one.is_replayed else None
            made.append(uuid7())
            await connection.execute(FINISHED, made[-1], *about, one.state, one.state_reason, one.reason, replayed_as)
            if one.later is not None:
                await connection.execute(FINISHED, uuid7(), *about, one.later, None, "replay", None)
    return made


async def ask(hospital: Hospital, actor: Actor, given: dict[str, Any]) -> tuple[Any, Any]:
    """What would be sent, and the job."""
    async with hospital.database.reading() as connection:
        found = await replays.preview(connection, actor, given)
    async with changing(hospital.database, actor) as change:
        return found, await replays.create(change, given)


async def carry_out(hospital: Hospital, limit: int = 3) -> dict[str, Any]:
    """The newest job when all are done."""
    async with hospital.database.connection() as connection:
        while await stored.run_some(connection, limit) is not None:
            pass
    return dict((await hospital.rows("SELECT * FROM jobs ORDER BY id DESC LIMIT 1"))[0])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=pasts, which=asked, may_read=st.booleans(), is_bound=st.booleans())
async def test_what_would_be_sent_again_is_what_the_job_counts_and_what_it_sends(
    hospital: Hospital, told: list[Past], which: dict[str, Any], may_read: bool, is_bound: bool
) -> None:
    for table in ("finished_deliveries", "events", "outbox", "jobs", "endpoint_secrets", "endpoints"):
        await hospital.change(f"DELETE FROM {table}")
    endpoints = [await hospital.endpoint(**columns) for columns in ENDPOINTS]
    await past(hospital, *told, endpoints=endpoints)
    actor = replace(local_actor(hospital.tenant_id), subscriber_id=hospital.subscriber_id if is_bound else None)
    if not may_read:
        actor = replace(actor, scopes=frozenset({Scope.DELIVERIES_WRITE}))
    wanted = {"all": True, **which}
    if "endpoint_id" in wanted:
        wanted["endpoint_id"] = endpoints[wanted["endpoint_id"]]
    found, job = await ask(hospital, actor, wanted)
    ended = await carry_out(hospital)
    queued = await hospital.rows("SELECT * FROM outbox")
    assert found["count"] == job["total"] == ended["done"] == len(queued)
    assert (found["missing"], found["more"], ended["state"]) == (ended["missing"], False, "done")
    assert found["second_deliveries"] <= found["count"]
    again, _ = await ask(hospital, actor, wanted)
    assert (await carry_out(hospital))["done"] == again["count"] == 0, "and nothing twice"
    assert again["missing"] == found["missing"]


async def test_a_job_sends_again_what_the_last_attempt_met_and_nothing_else(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    met = (("rejected", 503, None), ("rejected", 500, None), ("timed_out", None, "connected"), ("rejected", 503, None))
    dead = await past(hospital, *(Past(0, "dead") for _ in met), endpoints=[endpoint_id])
    for delivery_id, last in zip(dead, met, strict=True):
        for attempt in (("rejected", 503, None), last):
            await hospital.change(ATTEMPT, delivery_id, uuid7(), hospital.tenant_id, *attempt)
    actor, by = local_actor(hospital.tenant_id), {"state": "dead", "endpoint_id": endpoint_id}
    timed_out = {"outcome": "timed_out", "detail": "connected"}
    for which, expected in (({"outcome": "rejected", "status": 503}, 2), (timed_out, 1), ({"outcome": "rejected"}, 1)):
        found, job = await ask(hospital, actor, by | which)
        assert found["count"] == job["total"] == (await carry_out(hospital))["done"] == expected, which
    assert len(await hospital.rows("SELECT FROM finished_deliveries WHERE replayed_as IS NOT NULL")) == len(met)


async def test_a_preview_tells_of_second_deliveries_keys_times_and_minutes(hospital: Hospital) -> None:
    endpoints = [await hospital.endpoint(rate=0.1), await hospital.endpoint(rate=10.0)]
    await past(
        hospital,
        *(Past(0, "delivered", ordering_key=key) for key in (1, 1, None)),
        *(Past(1, "delivered", ordering_key=1), Past(1, "delivered", is_kept=False), Past(0, "dead")),
        endpoints=endpoints,
    )
    found, _ = await ask(hospital, local_actor(hospital.tenant_id), {"state": "delivered", "all": True})
    kept = await hospital.rows("SELECT accepted_at FROM events ORDER BY id")
    assert (found["count"], found["missing"], found["second_deliveries"], found["ordering_keys"]) == (4, 1, 4, 2)
    assert (found["oldest"], found["newest"]) == (kept[0][0], kept[3][0])
    assert found["minutes"] == 0.5
    assert len(found["notes"]) == 2


async def test_a_preview_counts_what_is_wider_than_what_was_sent(hospital: Hospital) -> None:
    async def content(of: str, level: str) -> None:
        given = {"level": level, "subject": True}
        await hospital.change(f"UPDATE {of} SET content = $1", json.dumps(given))

    endpoints = [await hospital.endpoint()]
    everything = {"state": "dead", "all": True}
    for table, level, wider in (
        ("endpoints", "full", 0),
        ("endpoints", "thin", 0),
        ("endpoints", "full", 1),
        ("subscribers", "thin", 0),
        ("subscribers", "full", 2),
    ):
        await content(table, level)
        found, _ = await ask(hospital, local_actor(hospital.tenant_id), everything)
        assert (table, level, found["wider"]) == (table, level, wider)
        await past(hospital, Past(0, "dead"), endpoints=endpoints)


async def test_beyond_ten_thousand_a_preview_counts_no_further(hospital: Hospital) -> None:
    await past(hospital, Past(0, "dead"), endpoints=[await hospital.endpoint()])
    await hospital.change(
        "WITH e AS (INSERT INTO events (id, tenant_id, type, occurred_at, size, body) SELECT gen_random_uuid(),"
        " tenant_id, type, now(), 1, '' FROM finished_deliveries, generate_series(1, 9999) RETURNING id) INSERT INTO"
        " finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, created_at)"
        " SELECT gen_random_uuid(), tenant_id, endpoint_id, e.id, type, 1, 1, state, now() FROM finished_deliveries, e"
    )
    everything = {"state": "dead", "all": True}
    found, _ = await ask(hospital, local_actor(hospital.tenant_id), everything)
    assert (found["count"], found["more"]) == (10_000, False)
    await past(hospital, Past(0, "dead"), endpoints=[(await hospital.rows("SELECT id FROM endpoints"))[0][0]])
    found, job = await ask(hospital, local_actor(hospital.tenant_id), everything)
    assert (found["count"], found["more"], job["total"]) == (10_000, True, 10_001)


async def test_a_delivery_names_its_replay_is_sent_again_once_and_is_no_trouble_any_more(hospital: Hospital) -> None:
    actor = local_actor(hospital.tenant_id)
    (dead,) = await past(hospital, Past(0, "dead"), endpoints=[await hospital.endpoint()])

    async def troubles() -> set[int]:
        since = datetime.now(UTC) - timedelta(days=1)
        async with hospital.database.begin() as connection:
            of_tenant = await stats.died_since(connection, hospital.tenant_id, None, since)
        async with hospital.database.connection() as driver:
            return {of_tenant, (await gateway_status.ended_badly(driver, since))["dead"]}

    assert await troubles() == {1}
    async with changing(hospital.database, actor) as change:
        new = await deliveries.replay(change, dead)
    assert not isinstance(new, Refusal)
    async with hospital.database.begin() as connection:
        shown = await deliveries.find(connection, actor, dead)
    assert not isinstance(shown, NotFound)
    assert shown["replayed_as"] == new["id"]
    assert await troubles() == {0}
    async with changing(hospital.database, actor) as change:
        assert await deliveries.replay(change, dead) is Conflict.REPLAYED


async def test_a_replay_that_dies_is_the_one_that_is_replayed(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    await past(hospital, Past(0, "dead"), endpoints=[endpoint_id])
    everything, actor = {"state": "dead", "all": True}, local_actor(hospital.tenant_id)
    for _ in range(3):
        found, _ = await ask(hospital, actor, everything)
        assert found["count"] == 1
        assert (await carry_out(hospital))["done"] == 1
        await hospital.fan_out()
        assert await hospital.finish(*await hospital.claim(endpoint_id), state="dead") == 1
    assert await hospital.count("finished_deliveries WHERE replayed_as IS NULL") == 1


async def test_what_is_meant_has_to_be_said(hospital: Hospital) -> None:
    actor = local_actor(hospital.tenant_id)
    await hospital.endpoint()
    for given_ in ({"state": "dead"}, {"state": "dead", "all": False}):
        found, job = await ask(hospital, actor, given_)
        assert isinstance(found, Invalid)
        assert found == job
    for subscriber_id, other in ((hospital.subscriber_id, None), (uuid7(), NotFound.SUBSCRIBER)):
        found, _ = await ask(hospital, actor, {"state": "dead", "subscriber_id": subscriber_id})
        assert (found if other else found["count"]) == (other or 0)
        found, _ = await ask(
            hospital, replace(actor, subscriber_id=uuid7()), {"state": "dead", "subscriber_id": subscriber_id}
        )
        assert found is NotFound.SUBSCRIBER


async def test_a_hospitals_job_for_a_partner_is_not_the_partners(hospital: Hospital) -> None:
    await hospital.endpoint()
    which = {"state": "dead", "subscriber_id": hospital.subscriber_id}
    _, job = await ask(hospital, local_actor(hospital.tenant_id), which)
    partner = replace(local_actor(hospital.tenant_id), subscriber_id=hospital.subscriber_id)
    async with changing(hospital.database, partner) as change:
        assert await replays.cancel(change, job["id"]) is NotFound.REPLAY
    _, own = await ask(hospital, partner, which)
    async with changing(hospital.database, partner) as change:
        assert not isinstance(await replays.cancel(change, own["id"]), Refusal)


async def test_of_two_who_ask_at_once_one_sends_it_again(hospital: Hospital) -> None:
    (dead,) = await past(hospital, Past(0, "dead"), endpoints=[await hospital.endpoint()])
    async with hospital.database.connection() as other, hospital.database.connection() as connection:
        async with connection.transaction():
            assert len(await stored.replay(connection, [dead])) == 1
            asking = asyncio.create_task(stored.replay(other, [dead]))
            await hospital.until("SELECT FROM pg_locks WHERE NOT granted")
        assert await asking == []
    assert await hospital.count("outbox") == 1
