"""What was accepted before an endpoint was made, or widened, comes to it once, in the order of its keys."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.support.hospital import LAB_RESULT, PAYMENT, Hospital
from tests.support.partner import Partner, status
from tests.support.rows import SUBSCRIBER
from webhook_gateway.operations import backfills, replays
from webhook_gateway.operations.change import Actor, changing, local_actor
from webhook_gateway.operations.refusals import Conflict, Invalid, NotFound, NotHeld, Refusal
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import backfills as stored
from webhook_gateway.store import outbox
from webhook_gateway.store.configuration import seal_column

Open = Callable[..., Awaitable[Partner]]
BEGAN = datetime.now(UTC) - timedelta(hours=1)
QUEUED = "SELECT event_id, ordering_key FROM outbox WHERE reason = 'backfill' ORDER BY sequence"


async def ask(hospital: Hospital, endpoint_id: UUID, actor: Actor | None = None, **given: Any) -> Any:
    """What would be sent."""
    actor = actor or local_actor(hospital.tenant_id)
    return await backfills.preview(hospital.database, hospital.vault, actor, endpoint_id, {"since": BEGAN, **given})


async def begin(hospital: Hospital, endpoint_id: UUID, actor: Actor | None = None, **given: Any) -> Any:
    """A job, where it isn't refused."""
    counted = await ask(hospital, endpoint_id, actor, **given)
    async with changing(hospital.database, actor or local_actor(hospital.tenant_id)) as change:
        return await backfills.create(change, endpoint_id, {"since": BEGAN, **given}, counted)


async def carry_out(hospital: Hospital) -> int:
    """Queues all that open jobs have, whenever their turns are."""
    queued = 0
    async with hospital.database.connection() as connection:
        while (some := await backfills.run_some(connection, hospital.vault)) is not None:
            queued += some
            await connection.execute("UPDATE jobs SET due_at = now() WHERE state = 'running'")
    return queued


async def fill(hospital: Hospital, endpoint_id: UUID, **given: Any) -> list[UUID]:
    """Carries a job out; what it has queued, in that order."""
    job = await begin(hospital, endpoint_id, **given)
    assert not isinstance(job, Refusal), job
    assert await carry_out(hospital) == job["total"]
    return [row["event_id"] for row in await hospital.rows(QUEUED)]


async def test_an_endpoint_made_later_gets_what_came_before_once_beside_what_comes_then(
    hospital: Hospital, open_partner: Open
) -> None:
    earlier = await hospital.post("a", "b", None, times=4)
    await hospital.fan_out()
    partner = await open_partner()
    waiting = await hospital.post("a")  # for fan-out when the endpoint is made
    endpoint_id = await hospital.endpoint(url=partner.url())
    for _ in range(2):
        await begin(hospital, endpoint_id)
    assert await carry_out(hospital) == 2 * 13
    live = await hospital.post("b")
    async with hospital.worker():
        await partner.got(14)
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 14")
        assert await begin(hospital, endpoint_id)
        await hospital.until("SELECT FROM jobs HAVING bool_and(state = 'done' AND (done = 0 OR done = 13))")
    got = [received.id for received in partner.received]
    assert len(got) == len(set(got)) == len([*earlier, *waiting, *live])
    rows = await hospital.rows("SELECT event_id, reason FROM finished_deliveries")
    assert {row["event_id"] for row in rows if row["reason"] == "backfill"} == set(earlier)


async def test_a_backfill_is_in_order_key_by_key_whatever_fails_meanwhile(
    hospital: Hospital, open_partner: Open
) -> None:
    posted = await hospital.post("a", "b", "c", times=6)
    await hospital.fan_out()
    partner = await open_partner(status(500), status(500), status(500))
    endpoint_id = await hospital.endpoint(url=partner.url(), schedule=[0.05] * 9)
    assert await fill(hospital, endpoint_id) == posted
    async with hospital.worker():
        await hospital.until("SELECT FROM finished_deliveries WHERE state = 'delivered' HAVING count(*) = 18")
    ended = await hospital.rows("SELECT event_id FROM finished_deliveries ORDER BY finished_at, sequence")
    order = [row["event_id"] for row in ended]
    for key in range(3):
        assert [event_id for event_id in order if event_id in posted[key::3]] == posted[key::3]


async def test_what_is_live_waits_for_no_backfill_of_its_key_and_is_not_superseded_by_it(hospital: Hospital) -> None:
    older = await hospital.post("a", "a")
    await hospital.fan_out()
    endpoint_id = await hospital.endpoint(ordering="latest")
    await hospital.post("a")
    await hospital.fan_out()
    assert await fill(hospital, endpoint_id) == older
    await hospital.fan_out()
    live, newest_of_before = await hospital.rows("SELECT event_id, due_at FROM deliveries ORDER BY sequence")
    assert newest_of_before["event_id"] == older[-1]
    assert live["due_at"] is not None
    assert newest_of_before["due_at"] is not None


async def test_it_gets_only_what_it_would_have_had(hospital: Hospital) -> None:
    other = UUID(int=5)
    await hospital.change(SUBSCRIBER, other, hospital.tenant_id, "Payer")
    (result,) = await hospital.post()
    payment = await hospital.accept(PAYMENT)
    addressed, not_to_it = await hospital.post(None, None)
    await hospital.change("UPDATE outbox SET addressees = $2 WHERE event_id = $1", addressed, [hospital.subscriber_id])
    for event_id, to in ((addressed, hospital.subscriber_id), (not_to_it, other)):
        await hospital.change("UPDATE events SET addressees = $2 WHERE id = $1", event_id, [to])
    await hospital.fan_out()
    some = await hospital.endpoint("lab_result.*", state="paused")
    await hospital.test(some)
    await hospital.fan_out()
    everything = await hospital.endpoint()
    assert await fill(hospital, some) == [result, addressed]
    await hospital.fan_out()
    assert set(await fill(hospital, everything)) == {result, payment, addressed}, "nor is a test anybody else's"
    await hospital.fan_out()
    await hospital.change("UPDATE subscribers SET event_types = '{payment.*}'")
    late = await hospital.endpoint()
    assert await fill(hospital, late) == [payment]
    assert isinstance(await ask(hospital, late, type=LAB_RESULT), Invalid)


async def test_one_event_is_sent_and_not_its_neighbours(hospital: Hospital) -> None:
    posted = await hospital.post(times=3)
    await hospital.fan_out()
    endpoint_id = await hospital.endpoint()
    for event_id in posted[1:]:
        assert (await ask(hospital, endpoint_id, event_id=event_id))["count"] == 1
    assert await fill(hospital, endpoint_id, event_id=posted[1]) == [posted[1]]
    await hospital.fan_out()
    assert (await ask(hospital, endpoint_id, event_id=posted[1]))["count"] == 0, "it has it"


async def test_a_filter_that_was_widened_is_asked_again(hospital: Hospital) -> None:
    endpoint_id = UUID(int=9)

    def sealed(*payers: str) -> bytes:
        return seal_column(hospital.vault, hospital.tenant_id, endpoint_id, "filter", {"payer_id": list(payers)})

    await hospital.endpoint("insurance_claim.*", id=endpoint_id, filter=sealed("p_1"))
    claims = [await hospital.accept("insurance_claim.submitted", payer_id=f"p_{n % 3}") for n in range(6)]
    await hospital.fan_out()
    await hospital.change("UPDATE endpoints SET filter = $1", sealed("p_1", "p_2"))
    await hospital.change(  # one that was judged before an attempt leaves this
        "INSERT INTO finished_deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state,"
        " state_reason, created_at) SELECT gen_random_uuid(), tenant_id, $2, id, type, 1, 0, 'cancelled', 'not_wanted',"
        " now() FROM events WHERE id = $1",
        *(claims[2], endpoint_id),
    )
    found = await ask(hospital, endpoint_id)
    assert (found["count"], found["more"]) == (2, False)
    assert await fill(hospital, endpoint_id) == [claims[2], claims[5]]
    await hospital.fan_out()
    assert (await ask(hospital, endpoint_id))["count"] == 0


async def test_a_preview_says_what_and_that_something_may_overtake(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = await hospital.post("a", "b", None, times=10)
    await hospital.fan_out()
    endpoint_id = await hospital.endpoint(rate=0.5)
    found = await ask(hospital, endpoint_id)
    times = await hospital.rows("SELECT min(accepted_at), max(accepted_at) FROM events")
    assert (found["oldest"], found["newest"]) == tuple(times[0])
    assert (found["count"], found["ordering_keys"], found["minutes"], found["missing"]) == (30, 2, 1.0, 0)
    assert "overtake" in found["notes"][0]
    monkeypatch.setattr(stored, "EARLIER", stored.EARLIER.replace(f"LIMIT {stored.WALKED}", "LIMIT 7"))
    assert await ask(hospital, endpoint_id) == found, "whatever the slices"
    assert await fill(hospital, endpoint_id) == posted
    monkeypatch.setattr(backfills, "MOST_SLICES", 2)
    assert (found := await ask(hospital, endpoint_id))["more"]
    assert found["count"] == 14


async def test_it_goes_at_the_endpoints_rate_and_ends_where_the_endpoint_does(hospital: Hospital) -> None:
    await hospital.post(None, times=30)
    await hospital.fan_out()
    endpoint_id = await hospital.endpoint(rate=2.0)
    await begin(hospital, endpoint_id)
    async with hospital.database.connection() as connection:
        assert await backfills.run_some(connection, hospital.vault) == 10
        assert await backfills.run_some(connection, hospital.vault) is None, "five seconds' worth are queued"
        (job,) = await hospital.rows("SELECT due_at - now() BETWEEN '4s' AND '5s' AS waits, done FROM jobs")
        assert (job["waits"], job["done"]) == (True, 10)
        await hospital.change("UPDATE jobs SET due_at = now()")
        await hospital.change("UPDATE endpoints SET host_changed_at = now()")
        assert await backfills.run_some(connection, hospital.vault) == 0
    (job,) = await hospital.rows("SELECT state, done FROM jobs")
    assert tuple(job) == ("cancelled", 10)


async def test_what_is_queued_is_not_sent_to_a_host_of_afterwards(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    await hospital.post()
    await hospital.fan_out()
    endpoint_id = await hospital.endpoint(url=partner.url())
    await fill(hospital, endpoint_id)
    await hospital.change("UPDATE endpoints SET host_changed_at = now() + interval '1 second'")
    async with hospital.worker():
        await hospital.until("SELECT FROM finished_deliveries WHERE state = 'cancelled'")
    assert partner.received == []


async def test_what_is_gone_is_counted_for_the_hospital(hospital: Hospital) -> None:
    await hospital.endpoint("lab_result.*")
    await hospital.post(None, None)
    await hospital.fan_out()
    await hospital.finish(*await hospital.claim((await hospital.rows("SELECT id FROM endpoints"))[0][0]))
    await hospital.change("DELETE FROM events")
    await hospital.post()
    await hospital.fan_out()
    endpoint_id = await hospital.endpoint("lab_result.*")
    found = await ask(hospital, endpoint_id)
    assert (found["count"], found["missing"]) == (1, 2)
    assert "Bodies are kept since" in found["notes"][-1]
    own = replace(local_actor(hospital.tenant_id), subscriber_id=hospital.subscriber_id)
    assert (await ask(hospital, endpoint_id, own))["missing"] == 0, "what others had is not theirs to know"


async def test_nobody_fills_what_they_may_not_have(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint("lab_result.*", "gateway.*")
    whole = local_actor(hospital.tenant_id)
    without = replace(whole, scopes=frozenset(Scope) - {Scope.PAYLOAD_READ})
    assert isinstance(await ask(hospital, endpoint_id, without), NotHeld)
    assert await ask(hospital, endpoint_id, replace(whole, subscriber_id=UUID(int=7))) is NotFound.ENDPOINT
    own = replace(whole, subscriber_id=hospital.subscriber_id)
    assert await ask(hospital, endpoint_id, own) == NotHeld(("gateway.*",))
    held = replace(whole, event_types=("payment.*",))
    assert await ask(hospital, endpoint_id, held, type=LAB_RESULT) == NotHeld((LAB_RESULT,))
    assert (await ask(hospital, endpoint_id, own, type=LAB_RESULT))["count"] == 0
    await hospital.change("UPDATE endpoints SET state = 'disabled'")
    assert await ask(hospital, endpoint_id) is Conflict.ENDPOINT_DISABLED


async def test_a_backfill_is_seen_and_cancelled_as_a_replay_is(hospital: Hospital) -> None:
    await hospital.post(None, times=3)
    await hospital.fan_out()
    own = replace(local_actor(hospital.tenant_id), subscriber_id=hospital.subscriber_id)
    job = await begin(hospital, await hospital.endpoint(), own)
    assert (job["kind"], job["total"], json.dumps(job["filter"]).count("subscriber_id")) == ("backfill", 3, 1)
    async with changing(hospital.database, own) as change:
        assert (await replays.cancel(change, job["id"]))["state"] == "cancelled"  # type: ignore[index]
    assert await carry_out(hospital) == 0


async def test_what_fan_out_has_yet_to_find_below_its_mark_is_left_to_it(hospital: Hospital) -> None:
    late, other = await hospital.post(None, None)
    endpoint_id = await hospital.endpoint()
    await fill(hospital, endpoint_id)
    async with hospital.database.connection() as connection, connection.transaction():
        lowest = await connection.fetchval("SELECT sequence FROM outbox WHERE event_id = $1 AND reason IS NULL", other)
        found = await outbox.dequeue(connection, lowest - 1, 10)
        left = await outbox.without_known(connection, found)
    assert [(event.event_id, event.reason) for event in left] == [(other, None)], "each once, by fan-out itself"
    assert [event.event_id for event in found.events] == [other, late, other]
