"""An endpoint with a filter gets what it wants of its types, and nothing else, also where the filter has to wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.hospital import NOWHERE, Hospital
from tests.support.partner import Partner, status
from webhook_gateway.delivery import bodies, dispatch
from webhook_gateway.host import loop
from webhook_gateway.rules import ids
from webhook_gateway.rules.filters import read_data
from webhook_gateway.store import deliveries, endpoints, finished, ordering, retention
from webhook_gateway.store.configuration import seal_column
from webhook_gateway.store.database import Connection
from webhook_gateway.store.partitions import lowest_id

Open = Callable[..., Awaitable[Partner]]
CLAIM = "insurance_claim.submitted"
SENT = "SELECT event_id FROM finished_deliveries WHERE state = 'delivered'"


async def filtered(hospital: Hospital, partner: Partner | None, given: dict[str, Any], **columns: Any) -> UUID:
    endpoint_id = uuid4()
    url = NOWHERE if partner is None else partner.url()
    sealed = seal_column(hospital.vault, hospital.tenant_id, endpoint_id, "filter", given)
    return await hospital.endpoint("insurance_claim.*", url=url, id=endpoint_id, filter=sealed, **columns)


def payers(partner: Partner) -> list[str]:
    return [json.loads(received.body)["data"]["payer_id"] for received in partner.received]


async def test_two_insurers_get_each_its_own_claims(hospital: Hospital, open_partner: Open) -> None:
    first, second = await open_partner(), await open_partner()
    await filtered(hospital, first, {"payer_id": ["p_1"]})
    await filtered(hospital, second, {"payer_id": [{"prefix": "p_2"}]})
    for number in range(30):
        await hospital.accept(CLAIM, payer_id=f"p_{number % 3}")
    async with hospital.worker():
        await first.got(10)
        await second.got(10)
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 20")
    assert (set(payers(first)), set(payers(second))) == ({"p_1"}, {"p_2"})
    assert await hospital.count("deliveries") == 0
    assert await hospital.count("finished_deliveries") == 20, "of what is not wanted nothing is made"


async def test_a_body_that_a_filter_has_read_is_not_fetched_again(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    await filtered(hospital, partner, {"payer_id": ["p_1"]})
    await hospital.accept(CLAIM, payer_id="p_1")
    async with hospital.worker() as worker:
        await partner.got(1)
        fetched = worker._sending.bodies
        assert list(fetched._open), "kept for the sender"
    assert worker._fan_out.bodies is fetched


async def test_what_is_too_much_to_open_at_fan_out_is_asked_before_its_first_attempt(
    hospital: Hospital, open_partner: Open, monkeypatch: Any
) -> None:
    monkeypatch.setattr(bodies, "AT_ONCE", 1)
    partner = await open_partner()
    endpoint_id = await filtered(hospital, partner, {"payer_id": ["p_1"]})
    wanted = await hospital.accept(CLAIM, payer_id="p_1")
    await hospital.accept(CLAIM, payer_id="p_2")
    assert await hospital.fan_out() == 2
    assert await hospital.rows("SELECT FROM deliveries WHERE endpoint_id = $1 AND unfiltered", endpoint_id)
    async with hospital.worker():
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 2")
    assert payers(partner) == ["p_1"]
    ended = await hospital.rows("SELECT event_id, state, state_reason FROM finished_deliveries ORDER BY state")
    assert [(row["state"], row["state_reason"]) for row in ended] == [("cancelled", "not_wanted"), ("delivered", None)]
    assert ended[1]["event_id"] == wanted


async def test_others_have_their_turn_while_filters_are_judged(
    hospital: Hospital, open_partner: Open, monkeypatch: Any
) -> None:
    await filtered(hospital, await open_partner(), {"payer_id": ["p_1"]})
    for _ in range(3):
        await hospital.accept(CLAIM, payer_id="p_1")
    turns, seen = count(), []

    async def others() -> None:
        while True:
            next(turns)
            await asyncio.sleep(0)

    def read(body: bytes) -> Any:
        seen.append(next(turns))
        return read_data(body)

    monkeypatch.setattr(loop, "TURN", 0)
    monkeypatch.setattr(dispatch, "read_data", read)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(others())
        await hospital.fan_out()
        running.cancel()
    assert len(seen) == 3
    assert all(later - earlier > 1 for earlier, later in pairwise(seen)), seen


async def test_a_changed_filter_touches_no_open_delivery(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    endpoint_id = await filtered(hospital, partner, {"payer_id": ["p_1"]})
    await hospital.accept(CLAIM, payer_id="p_1")
    await hospital.fan_out()
    other = seal_column(hospital.vault, hospital.tenant_id, endpoint_id, "filter", {"payer_id": ["p_2"]})
    await hospital.change("UPDATE endpoints SET filter = $1", other)
    await hospital.accept(CLAIM, payer_id="p_1")
    await hospital.accept(CLAIM, payer_id="p_2")
    async with hospital.worker():
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 2")
    assert sorted(payers(partner)) == ["p_1", "p_2"]


async def test_a_filter_that_can_not_be_opened_holds_back_everything(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    endpoint_id = await filtered(hospital, partner, {"payer_id": ["p_1"]})
    await hospital.change("UPDATE endpoints SET filter = '\\x00'::bytea")
    await hospital.accept(CLAIM, payer_id="p_2")
    async with hospital.worker():
        await hospital.until("SELECT FROM deliveries WHERE unfiltered")
        await hospital.until("SELECT FROM attempts WHERE detail = 'key_missing'")
    assert partner.received == []
    sealed = seal_column(hospital.vault, hospital.tenant_id, endpoint_id, "filter", {"payer_id": ["p_1"]})
    await hospital.change("UPDATE endpoints SET filter = $1", sealed)
    await hospital.change("UPDATE deliveries SET due_at = now()")
    async with hospital.worker():
        await hospital.until("SELECT FROM finished_deliveries WHERE state_reason = 'not_wanted'")
    assert partner.received == []


@pytest.mark.parametrize(
    ("wants", "addressed", "told"),
    [
        (["p_1"], True, 1),
        (["p_1", "p_2"], True, 1),
        (["p_1", "p_3"], True, 0),
        (["p_1"], False, 0),
    ],
)
async def test_an_addressee_is_told_of_whose_filters_refuse_an_event_only_before_its_first_request(
    hospital: Hospital, open_partner: Open, monkeypatch: Any, wants: list[str], addressed: bool, told: int
) -> None:
    monkeypatch.setattr(bodies, "AT_ONCE", 1)
    partner = await open_partner()
    for payer in wants:
        await filtered(hospital, partner, {"payer_id": [payer]})
    event_id = await hospital.accept(CLAIM, payer_id="p_3")
    if addressed:
        for table in ("outbox", "events"):
            await hospital.rows(f"UPDATE {table} SET addressees = $1", [hospital.subscriber_id])
    await hospital.fan_out()
    assert await hospital.count("deliveries WHERE unfiltered") == len(wants)
    assert await hospital.count("events") == 1, "nobody is told yet"
    async with hospital.worker():
        await hospital.until(f"SELECT FROM finished_deliveries HAVING count(*) = {len(wants)}")
    undelivered = await hospital.rows("SELECT * FROM events WHERE type = 'gateway.event_undelivered'")
    assert len(undelivered) == told
    for row in undelivered:
        body = hospital.vault.open(hospital.tenant_id, "events", row["id"], row["body"])
        assert json.loads(body)["data"] == {
            "event_id": ids.render(ids.EVENT, event_id),
            "event_type": CLAIM,
            "subscriber_ids": [ids.render(ids.SUBSCRIBER, hospital.subscriber_id)],
        }


async def test_of_two_workers_that_end_an_addressees_last_deliveries_at_once_one_tells(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner()
    for _ in range(2):
        await filtered(hospital, partner, {"payer_id": ["p_1"]})
    event_id = await hospital.accept(CLAIM, payer_id="p_1")
    await hospital.fan_out()
    await hospital.rows("UPDATE events SET addressees = $1", [hospital.subscriber_id])
    one, other = [row["id"] for row in await hospital.rows("UPDATE deliveries SET unfiltered = true RETURNING id")]
    pair = (event_id, hospital.subscriber_id)

    async def end(connection: Connection, delivery_id: UUID) -> list[tuple[UUID, UUID]]:
        await deliveries.cancel(
            connection, tenant_id=hospital.tenant_id, ids=[delivery_id], endpoint_id=None, reason="not_wanted"
        )
        return await finished.unreached(connection, [pair])

    async def settle_the_other() -> list[tuple[UUID, UUID]]:
        async with hospital.database.connection() as connection, connection.transaction():
            return await end(connection, other)

    async with hospital.database.connection() as connection, connection.transaction():
        assert await end(connection, one) == []
        settling = asyncio.create_task(settle_the_other())
        await hospital.until("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    assert await settling == [pair]


async def test_a_test_is_sent_whatever_the_filter_wants(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    endpoint_id = await filtered(hospital, partner, {"payer_id": ["p_1"]})
    async with hospital.worker():
        await hospital.test(endpoint_id, CLAIM)
        await partner.got(1)


async def test_however_it_ends_what_was_never_judged_is_not_wanted(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    endpoint_id = await filtered(hospital, partner, {"payer_id": ["p_1"]})
    by_hand, bodiless, stale, newest, old = [await hospital.accept(CLAIM, payer_id="p_1") for _ in range(5)]
    await hospital.fan_out()
    await hospital.rows("UPDATE deliveries SET unfiltered = true WHERE event_id <> $1", newest)
    await hospital.rows("UPDATE deliveries SET ordering_key = 7 WHERE event_id = ANY($1)", [stale, newest])
    await hospital.rows("DELETE FROM events WHERE id = $1", bodiless)
    await hospital.rows("UPDATE deliveries SET attempt = 1000 WHERE event_id = $1", bodiless)
    await hospital.rows(
        "UPDATE deliveries SET id = $2, created_at = now() - interval '91 days' WHERE event_id = $1",
        *(old, lowest_id(datetime.now(UTC).date() - timedelta(days=91))),
    )
    (named,) = await hospital.rows("SELECT id FROM deliveries WHERE event_id = $1", by_hand)
    async with hospital.database.connection() as connection, connection.transaction():
        await deliveries.cancel(
            connection, tenant_id=hospital.tenant_id, ids=[named["id"]], endpoint_id=None, reason="by_hand"
        )
        await ordering.supersede(connection, [(endpoint_id, 7)])
        assert len(await retention.end_open(connection, 90)) == 1
    async with hospital.worker():
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 5")
    ended = await hospital.rows("SELECT event_id, state, state_reason FROM finished_deliveries")
    assert {row["event_id"]: (row["state"], row["state_reason"]) for row in ended} == {
        by_hand: ("cancelled", "not_wanted"),
        bodiless: ("dead", "not_wanted"),
        stale: ("cancelled", "not_wanted"),
        newest: ("delivered", None),
        old: ("dead", "not_wanted"),
    }


async def test_what_the_filter_has_let_through_is_judged_once_and_ends_as_anything_else(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner(status(503))
    await filtered(hospital, partner, {"payer_id": ["p_1"]})
    await hospital.accept(CLAIM, payer_id="p_1")
    await hospital.fan_out()
    await hospital.rows("UPDATE deliveries SET unfiltered = true")
    async with hospital.worker():
        await hospital.until("SELECT FROM deliveries WHERE attempt = 1 AND lease_id IS NULL AND unfiltered IS NULL")
    await hospital.rows("UPDATE deliveries SET unfiltered = true, attempt = 1000, due_at = now()")
    async with hospital.worker():
        (dead,) = await hospital.until("SELECT state, state_reason FROM finished_deliveries")
    assert (dead["state"], dead["state_reason"] == "not_wanted") == ("dead", False)


@pytest.mark.parametrize("judged", [False, True])
async def test_no_partner_learns_the_id_of_what_it_may_not_have_wanted(hospital: Hospital, judged: bool) -> None:
    relaxed, strict, old = [
        await filtered(hospital, None, {"payer_id": ["p_1"]}, ordering=ordering)
        for ordering in ("relaxed", "strict", "relaxed")
    ]
    dead, _ = [await hospital.accept(CLAIM, payer_id="p_1") for _ in range(2)]
    await hospital.fan_out()
    await hospital.rows("UPDATE deliveries SET ordering_key = 7, due_at = CASE event_id WHEN $1 THEN now() END", dead)
    await hospital.rows("UPDATE deliveries SET unfiltered = $1 WHERE event_id = $2", None if judged else True, dead)
    reason = None if judged else "not_wanted"
    await hospital.finish(*await hospital.claim(relaxed), state="dead", reason=reason)
    await hospital.finish(*await hospital.claim(strict), state="dead", reason=reason, hold=True)
    async with hospital.database.begin() as connection:
        for of_all, told in ((True, dead), (False, dead if judged else None)):
            (held,) = await endpoints.held_page(connection, strict, after=None, limit=1, unfiltered=of_all)
            assert held["event_id"] == told
            assert (held["delivery_id"] is None) is (told is None)
    await hospital.rows(
        "UPDATE deliveries SET id = $3, created_at = now() - interval '91 days'"
        " WHERE endpoint_id = $1 AND event_id = $2",
        *(old, dead, lowest_id(datetime.now(UTC).date() - timedelta(days=91))),
    )
    async with hospital.database.connection() as driver, driver.transaction():
        await ordering.unhold(driver, tenant_id=hospital.tenant_id, endpoint_id=strict, ordering_key=7)
        await retention.end_open(driver, 90)
    left = await hospital.rows("SELECT endpoint_id, skipped_event_id FROM deliveries WHERE due_at IS NOT NULL")
    assert {tuple(row) for row in left} == {(one, dead if judged else None) for one in (relaxed, strict, old)}
