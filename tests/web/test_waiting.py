"""What a delivery is said to wait for is what a worker does then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from tests.support.partner import Received, Reply, partner
from tests.support.rows import store_event, store_open, store_worker
from tests.web.serving import Api
from webhook_gateway.rules import ids
from webhook_gateway.store import lists, reports
from webhook_gateway.store.driver import driver_of

TABLES = (
    "deliveries",
    "finished_deliveries",
    "attempts",
    "held_keys",
    "endpoint_health",
    "endpoint_secrets",
    "endpoints",
    "workers",
    "outbox",
)
PAST, SOON, LATE = -30, 600, 1_200
"""Seconds from now: neither the API nor the worker gets there while a test looks."""


@dataclass(frozen=True, slots=True)
class Key:
    """An ordering key: how its head stands, and how many follow it."""

    head: str
    following: int


@dataclass(frozen=True, slots=True)
class To:
    """An endpoint, and what is on its way to it. Times are seconds from now."""

    state: str = "enabled"
    open_until: int | None = None
    held_until: int | None = None
    maintenance: tuple[int, int] | None = None
    slots: int = 3
    rate: float | None = None
    apart: tuple[str, ...] = ()
    """What has no ordering key."""
    keys: tuple[Key, ...] = ()


LEASED = """
SELECT WHERE $2 = (SELECT count(*) FROM deliveries WHERE id = ANY($1) AND lease_id IS NOT NULL AND due_at > now())
"""

apart = st.sampled_from(["due", "abandoned", "later", "key_missing", "sending"])
somewhere = st.builds(
    To,
    state=st.sampled_from(["enabled", "enabled", "enabled", "paused", "disabled"]),
    open_until=st.sampled_from([None, None, PAST, SOON, LATE]),
    held_until=st.sampled_from([None, None, PAST, SOON, LATE]),
    maintenance=st.sampled_from([None, None, (2 * PAST, PAST), (PAST, SOON), (SOON, LATE)]),
    slots=st.integers(1, 3),
    rate=st.sampled_from([None, None, 2.0]),
    apart=st.lists(apart, max_size=4).map(tuple),
    keys=st.lists(st.builds(Key, apart | st.just("held"), st.integers(1, 2)), max_size=2).map(tuple),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(everywhere=st.lists(somewhere, min_size=1, max_size=12))
async def test_over_the_api_a_delivery_is_due_exactly_where_a_worker_then_claims_it(
    api: Api, admin: httpx.AsyncClient, hospital: Hospital, everywhere: list[To]
) -> None:
    await wipe(hospital)
    over = asyncio.Event()

    async def hang(_: Received) -> Reply:
        await over.wait()
        return 500, b""

    async with partner(otherwise=hang) as there:
        url = there.url()
        places = {await place(api, hospital, url, to): to for to in everywhere}
        places[await place(api, hospital, url, To(apart=("due",)))] = To()
        leases = await open_leases(hospital)
        workerless = await told_by(admin)
        assert workerless.keys() == leases.keys()
        assert {item["waiting_for"] for item in workerless.values() if item["due_before"] is not None} == {"no_worker"}
        told = await told_with_a_worker(api, admin)
        assert all(item == workerless[delivery_id] for delivery_id, item in told.items() if item["due_before"] is None)

        certain = [
            delivery_id
            for delivery_id, item in told.items()
            if item["waiting_for"] == "slots" and item["due_before"] < places[item["endpoint_id"]].slots
        ]
        async with hospital.worker():
            await hospital.until(LEASED, certain, len(certain))
            now = await open_leases(hospital)
            claimed = {delivery_id for delivery_id, lease in now.items() if lease != leases[delivery_id]}
            over.set()
    assert claimed >= set(certain)
    for delivery_id in claimed - set(certain):
        assert told[delivery_id]["waiting_for"] == "rate"


async def test_each_reason_is_told_by_the_list_the_delivery_and_its_event(
    api: Api, admin: httpx.AsyncClient, hospital: Hospital
) -> None:
    expected: list[tuple[To, dict[str, int | None]]] = [
        (To(state="paused", apart=("due",)), {"paused": None}),
        (To(state="disabled", apart=("due",)), {"disabled": None}),
        (To(open_until=SOON, apart=("due",)), {"breaker": SOON}),
        (To(open_until=PAST, apart=("due", "due")), {"slots": PAST, "breaker": None}),
        (To(held_until=SOON, apart=("due",)), {"retry_after": SOON}),
        (To(maintenance=(PAST, SOON), apart=("due",)), {"maintenance": SOON}),
        (To(apart=("later",)), {"retry": SOON}),
        (To(apart=("key_missing",)), {"key_missing": SOON}),
        (To(keys=(Key("sending", 1),)), {"sending": None, "ordering_key": None}),
        (To(keys=(Key("held", 1),)), {"held_key": None}),
        (To(apart=("due",)), {"slots": PAST}),
        (To(apart=("due",), rate=2.0), {"rate": PAST}),
    ]
    now = datetime.now(UTC)
    places = {await place(api, hospital, "http://127.0.0.1:1", to): reasons for to, reasons in expected}
    async with api.database.connection() as connection:
        await store_worker(connection)
    for delivery_id, item in (await told_by(admin)).items():
        after = places[item["endpoint_id"]].pop(item["waiting_for"])
        if after is None:
            assert item["next_attempt_at"] is None
        else:
            assert abs((datetime.fromisoformat(item["next_attempt_at"]) - now).total_seconds() - after) < 0.3 * SOON
        one = (await admin.get(f"/v1/deliveries/{ids.render(ids.DELIVERY, delivery_id)}")).json()
        del one["attempts"], one["explanation"]
        (of_event,) = (await admin.get(f"/v1/events/{item['event_id']}")).json()["deliveries"]
        assert one == of_event == item
    assert not any(places.values())


async def test_a_page_takes_as_many_statements_as_one_delivery(api: Api, hospital: Hospital) -> None:
    for number in range(1, 4):
        await place(api, hospital, "http://127.0.0.1:1", To(apart=("due", "later"), keys=(Key("held", number),)))

    async def page(limit: int) -> tuple[int, int]:
        """How many deliveries, and in how many statements."""
        made: list[str] = []
        async with api.database.begin() as connection:
            driver = await driver_of(connection)
            with driver.query_logger(lambda record: made.append(record.query)):
                found, _ = await lists.deliveries_page(
                    connection, reports.Filter(api.tenant_id), before=None, limit=limit
                )
        return len(found), len(made)

    await page(1)  # the driver asks for the types once
    (one, few), (all_of_them, many) = await page(1), await page(100)
    assert (one, all_of_them) == (1, 12)
    assert few == many


async def place(api: Api, hospital: Hospital, url: str, to: To) -> str:
    """Writes an endpoint and its deliveries as workers would have left them."""
    now = datetime.now(UTC)

    def at(seconds: int | None) -> datetime | None:
        return None if seconds is None else now + timedelta(seconds=seconds)

    window = to.maintenance or (None, None)
    endpoint_id = await hospital.endpoint(
        url=url,
        state=to.state,
        ordering="strict",
        slots=to.slots,
        rate=to.rate,
        maintenance_from=at(window[0]),
        maintenance_until=at(window[1]),
    )
    await hospital.rows(
        "INSERT INTO endpoint_health (endpoint_id, tenant_id, failures_in_a_row, open_until, held_until, openings)"
        " VALUES ($1, $2, 10, $3, $4, 1)",
        endpoint_id,
        api.tenant_id,
        at(to.open_until),
        at(to.held_until),
    )
    for kind in to.apart:
        await store(api, endpoint_id, kind, at)
    for number, key in enumerate(to.keys):
        if key.head == "held":
            await hospital.rows(
                "INSERT INTO held_keys (endpoint_id, ordering_key, tenant_id, delivery_id, event_id)"
                " VALUES ($1, $2, $3, $4, $4)",
                endpoint_id,
                number,
                api.tenant_id,
                uuid7(),
            )
        else:
            await store(api, endpoint_id, key.head, at, number)
        for sequence in range(key.following):
            await store(api, endpoint_id, "behind", at, number, sequence + 2)
    return ids.render(ids.ENDPOINT, endpoint_id)


async def store(
    api: Api,
    endpoint_id: UUID,
    kind: str,
    at: Callable[[int | None], datetime | None],
    ordering_key: int | None = None,
    sequence: int = 1,
) -> None:
    due_at = at({"due": PAST, "abandoned": PAST, "behind": None}.get(kind, SOON))
    lease_id = uuid7() if kind in {"abandoned", "sending"} else None
    async with api.database.connection() as connection:
        event_id = await store_event(api, connection, api.tenant_id)
        delivery_id = await store_open(
            connection,
            api.tenant_id,
            endpoint_id,
            event_id,
            due_at=due_at,
            lease_id=lease_id,
            ordering_key=ordering_key,
            sequence=sequence,
        )
        if kind == "key_missing":
            await connection.execute(
                "INSERT INTO attempts"
                " (delivery_id, id, tenant_id, attempt, started_at, duration, phase, outcome, detail)"
                " VALUES ($1, $2, $3, 1, now(), 0, 'started', 'unsendable', 'key_missing')",
                delivery_id,
                uuid7(),
                api.tenant_id,
            )


async def told_by(admin: httpx.AsyncClient) -> dict[UUID, dict[str, Any]]:
    items = (await admin.get("/v1/deliveries?limit=200")).json()["items"]
    return {ids.parse(ids.DELIVERY, item["id"]): item for item in items}


async def told_with_a_worker(api: Api, admin: httpx.AsyncClient) -> dict[UUID, dict[str, Any]]:
    async with api.database.connection() as connection:
        await store_worker(connection)
        told = await told_by(admin)
        await connection.execute("DELETE FROM workers")
    return told


async def open_leases(hospital: Hospital) -> dict[UUID, UUID | None]:
    return {row["id"]: row["lease_id"] for row in await hospital.rows("SELECT id, lease_id FROM deliveries")}


async def wipe(hospital: Hospital) -> None:
    for table in TABLES:
        await hospital.rows(f"DELETE FROM {table}")
