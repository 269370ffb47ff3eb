"""The way from the outbox to the partner, with a real worker and real partners."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from prometheus_client import REGISTRY
from standardwebhooks import Webhook

from tests.end_to_end.hostile import closes_at_the_second_request, hostile
from tests.support.hospital import Hospital, new_master_key
from tests.support.partner import OK, Connection, Partner, Received, status
from tests.web.serving import serve
from webhook_gateway.delivery import claiming
from webhook_gateway.host.addresses import of_this_machine
from webhook_gateway.host.loop import EVEN, POLL, SELDOM
from webhook_gateway.intake.catalogue import shipped
from webhook_gateway.rules import ids, signing
from webhook_gateway.store.database import Database

Open = Callable[..., Awaitable[Partner]]
SECRET = signing.encode_secret(b"a secret of thirty-two bytes....")
FAST = [0.01] * 9

FINISHED = "SELECT * FROM finished_deliveries WHERE state = $1"


def waits() -> tuple[asyncio.Event, Callable[[Received], Awaitable[bytes]]]:
    """An answer that comes once the event is set."""
    let_go = asyncio.Event()

    async def answer(_: Received) -> bytes:
        await let_go.wait()
        return OK

    return let_go, answer


async def test_a_partner_gets_the_event_signed_so_that_the_independent_library_agrees(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url(), secret=SECRET)
    async with hospital.worker():
        (event_id,) = await hospital.post()
        (received,) = await partner.got(1)
        await hospital.until(FINISHED, "delivered")
    Webhook(SECRET).verify(received.body, received.headers)
    assert received.id == ids.render(ids.EVENT, event_id)
    assert json.loads(received.body)["data"] == {"n": 0}
    assert received.headers["user-agent"].startswith("webhook-gateway/")
    assert received.headers["accept"] == "*/*"


async def test_how_much_a_partner_gets_is_taken_anew_at_each_attempt(hospital: Hospital, open_partner: Open) -> None:
    answers = iter([status(500), OK])
    partner = await open_partner(lambda _: next(answers))
    endpoint_id = await hospital.endpoint(url=partner.url(), secret=SECRET, schedule=[600.0])
    content = "UPDATE endpoints SET content = $1 WHERE id = $2"
    await hospital.change(content, '{"level": "fields", "pointers": ["/amount"], "subject": false}', endpoint_id)
    async with hospital.worker():
        event_id = await hospital.accept("payment.processed")
        (first,) = await partner.got(1)
        await hospital.until("SELECT * FROM attempts WHERE status = 500")
        await hospital.change(content, '{"level": "thin", "subject": false}', endpoint_id)
        await hospital.change("UPDATE deliveries SET due_at = now()")
        _, second = await partner.got(2)
        await hospital.until(FINISHED, "delivered")
    known = next(known for known in shipped() if known.name == "payment.processed")
    assert json.loads(first.body)["data"] == {"amount": known.example["amount"]}
    assert json.loads(second.body)["data"] == {name[1:]: known.example[name[1:]] for name in known.thin}
    assert first.id == second.id == ids.render(ids.EVENT, event_id)
    Webhook(SECRET).verify(second.body, second.headers)


async def test_an_own_type_says_what_a_thin_body_has_and_without_a_word_it_has_nothing(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url(), content='{"level": "thin", "subject": false}')
    await hospital.change(
        "INSERT INTO event_types (tenant_id, name, description, schema, example, thin)"
        " VALUES ($1, 'a.said', '', '{}', '{}', '{/n}'), ($1, 'a.unsaid', '', '{}', '{}', '{}')",
        hospital.tenant_id,
    )
    async with hospital.worker():
        await hospital.post(type="a.said")
        await hospital.post(type="a.unsaid")
        received = await partner.got(2)
    data = {json.loads(one.body)["type"]: json.loads(one.body)["data"] for one in received}
    assert data == {"a.said": {"n": 0}, "a.unsaid": {}}


async def test_retries_carry_the_same_id_and_bytes_and_a_fresh_timestamp_until_the_partner_has_it(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner(status(503), status(500))
    await hospital.endpoint(url=partner.url(), secret=SECRET, schedule=FAST)
    async with hospital.worker():
        await hospital.post()
        received = await partner.got(3)
        await hospital.until(FINISHED, "delivered")
    assert len({(r.id, r.body) for r in received}) == 1
    attempts = await hospital.rows("SELECT attempt, outcome, status, phase FROM attempts ORDER BY id")
    assert [tuple(a) for a in attempts] == [
        (1, "rejected", 503, "answered"),
        (2, "rejected", 500, "answered"),
        (3, "accepted", 200, "answered"),
    ]


async def test_a_result_that_cannot_be_written_for_a_lock_holds_up_no_other(
    hospital: Hospital, open_partner: Open
) -> None:
    let_go, answer = waits()
    partner = await open_partner(otherwise=answer)
    await hospital.endpoint(url=partner.url(), secret=SECRET)
    impatient = Database(str(hospital.settings.database_url), patience=1.0)
    async with replace(hospital, database=impatient).worker():
        await hospital.post(times=8)
        await partner.got(8)
        stranger = await asyncpg.connect(str(hospital.settings.database_url))
        await stranger.execute("BEGIN; SELECT FROM deliveries ORDER BY id LIMIT 1 FOR UPDATE")
        let_go.set()
        await hospital.until(f"{FINISHED} OFFSET 6", "delivered")
        assert await hospital.count("deliveries") == 1
        await stranger.close()
        await hospital.until(f"{FINISHED} OFFSET 7", "delivered")
    await impatient.close()


async def test_a_partner_who_closes_kept_connections_has_each_event_at_the_first_attempt_and_sends_are_counted(
    hospital: Hospital,
) -> None:
    async with hostile(closes_at_the_second_request()) as partner:
        await hospital.endpoint(url=partner.url(host="127.0.0.1"), schedule=FAST)
        async with hospital.worker():
            for number in range(4):
                await hospital.post()
                await hospital.until(f"{FINISHED} OFFSET {number}", "delivered")
    attempts = await hospital.rows("SELECT attempt, outcome, sends FROM attempts ORDER BY id")
    assert [tuple(a) for a in attempts] == [(1, "accepted", sends) for sends in (1, 2, 2, 1)]
    first, again = partner.received[1:3]
    assert (first.headers, first.body) == (again.headers, again.body)


@pytest.mark.parametrize("pause", [0.0, 0.001, 0.01])
async def test_of_deliveries_to_a_partner_who_closes_after_each_answer_99_of_100_are_done_at_the_first_attempt(
    hospital: Hospital, pause: float
) -> None:
    """Without saying so, at once or while the next request may be on its way."""

    async def closes_after_each_answer(connection: Connection) -> None:
        await connection.receive()
        await connection.send(OK)
        await asyncio.sleep(pause)

    async with hostile(closes_after_each_answer) as partner:
        await hospital.endpoint(url=partner.url(host="127.0.0.1"), schedule=FAST)
        async with hospital.worker():
            for number in range(1, 6):
                await hospital.post(times=100)
                await hospital.until(f"SELECT count(*) FROM finished_deliveries HAVING count(*) = {100 * number}")
    (done,) = await hospital.rows(
        "SELECT count(*) FILTER (WHERE attempt = 1 AND outcome = 'accepted') AS at_first, count(*) AS all FROM attempts"
    )
    assert done["at_first"] >= 0.99 * 500, dict(done)
    assert await hospital.count("finished_deliveries WHERE state = 'delivered'") == 500


async def test_an_odd_2xx_ends_the_delivery_and_the_attempt_says_so(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner(OK.replace(b"\r\n", b"\n"))
    await hospital.endpoint(url=partner.url(), schedule=FAST)
    async with hospital.worker():
        await hospital.post()
        await hospital.until(FINISHED, "delivered")
    attempts = await hospital.rows("SELECT attempt, outcome, status, detail FROM attempts")
    assert [tuple(a) for a in attempts] == [(1, "accepted", 200, "answer_malformed")]


async def test_while_a_secret_is_rotated_both_sign(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    endpoint_id = await hospital.endpoint(url=partner.url(), secret=SECRET)
    newer = signing.encode_secret(b"another secret of 32 bytes......")
    await hospital.secret(endpoint_id, newer)
    async with hospital.worker():
        await hospital.post()
        (received,) = await partner.got(1)
        await hospital.until(FINISHED, "delivered")
    for secret in (SECRET, newer):
        Webhook(secret).verify(received.body, received.headers)


async def test_a_redirect_is_a_failure_and_never_followed(hospital: Hospital, open_partner: Open) -> None:
    trap = await open_partner()
    partner = await open_partner(status(302, f"location: {trap.url()}"), status(307, f"location: {trap.url()}"))
    await hospital.endpoint(url=partner.url(), schedule=FAST)
    async with hospital.worker():
        await hospital.post()
        await partner.got(3)
        await hospital.until(FINISHED, "delivered")
    assert trap.received == []


async def test_every_attempt_failed_ends_as_dead_where_an_operator_sees_it(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner(otherwise=status(500))
    operator = await open_partner()
    await hospital.endpoint("lab_result.*", url=partner.url(), schedule=[0.01, 0.01])
    await hospital.endpoint("gateway.delivery_dead", url=operator.url())
    async with hospital.worker():
        await hospital.post()
        (dead,) = await hospital.until(FINISHED, "dead")
        (told,) = await operator.got(1)
    assert (dead["attempt"], dead["state_reason"]) == (3, "attempts_exhausted")
    assert json.loads(told.body)["data"]["delivery_id"] == ids.render(ids.DELIVERY, dead["id"])


async def test_410_disables_the_endpoint_keeps_its_deliveries_and_tells_operators(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner(status(410))
    operator = await open_partner()
    endpoint_id = await hospital.endpoint("lab_result.*", url=partner.url(), schedule=FAST)
    await hospital.endpoint("gateway.*", url=operator.url())
    async with hospital.worker():
        await hospital.post("one after the other", times=3)
        (told,) = await operator.got(1)
        assert json.loads(told.body)["type"] == "gateway.endpoint_disabled"
        assert len(await hospital.rows("SELECT FROM deliveries WHERE endpoint_id = $1", endpoint_id)) == 3
        assert len(partner.received) == 1
        await hospital.change("UPDATE endpoints SET state = 'enabled' WHERE id = $1", endpoint_id)
        received = await partner.got(4)
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM deliveries)")
    assert [json.loads(r.body)["data"]["n"] for r in received] == [0, 0, 1, 2]


async def test_retry_after_holds_the_whole_endpoint(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner(status(429, "retry-after: 1"))
    await hospital.endpoint(url=partner.url(), schedule=FAST, slots=1)
    async with hospital.worker():
        await hospital.post(times=3)
        received = await partner.got(4)
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM deliveries)")
    assert received[1].at - received[0].at >= 0.9


@pytest.mark.parametrize("state", ["paused", "disabled"])
async def test_deliveries_of_a_paused_or_disabled_endpoint_wait_and_burn_no_attempt(
    hospital: Hospital, open_partner: Open, state: str
) -> None:
    partner, other = await open_partner(), await open_partner()
    endpoint_id = await hospital.endpoint(url=partner.url(), state=state)
    await hospital.endpoint(url=other.url())
    async with hospital.worker():
        await hospital.post("in order", times=5)
        await other.got(5)
        assert partner.received == []
        assert (
            len(await hospital.rows("SELECT FROM deliveries WHERE endpoint_id = $1 AND attempt = 0", endpoint_id)) == 5
        )
        await hospital.change("UPDATE endpoints SET state = 'enabled' WHERE id = $1", endpoint_id)
        received = await partner.got(5)
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM deliveries)")
    assert [json.loads(r.body)["data"]["n"] for r in received] == [0, 1, 2, 3, 4]


async def test_a_worker_looks_every_other_second_until_something_is_open(hospital: Hospital) -> None:
    await hospital.endpoint(url="https://partner.example/hook", state="paused")
    async with hospital.worker() as worker:
        look, scan = (stage._poll for stage in worker._stages if stage.stage in ("configuration", "scan"))
        assert [await scan(), await look()] == [SELDOM, EVEN]
        await hospital.post()
        await hospital.until("SELECT FROM deliveries")
        assert [await scan(), await look()] == [POLL, POLL]


async def test_what_nobody_told_of_is_found_by_a_look_while_nothing_else_is_open(
    hospital: Hospital, open_partner: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "SELDOM", 3_600.0)
    partner = await open_partner()
    await hospital.endpoint(url=partner.url())
    await hospital.post()
    await hospital.fan_out()
    await hospital.change("UPDATE deliveries SET due_at = NULL")
    async with hospital.worker() as worker:
        scan = next(stage._poll for stage in worker._stages if stage.stage == "scan")
        await hospital.post()
        await partner.got(1)
        await hospital.until("SELECT FROM finished_deliveries")
        assert await scan() == 3_600.0
        await hospital.change("UPDATE deliveries SET due_at = now()")
        await partner.got(2)


async def test_nothing_begins_within_a_maintenance_window(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    now = datetime.now(UTC)
    await hospital.endpoint(
        url=partner.url(), maintenance_from=now - timedelta(hours=1), maintenance_until=now + timedelta(seconds=1.5)
    )
    async with hospital.worker():
        await hospital.post()
        (received,) = await partner.got(1)
        await hospital.until(FINISHED, "delivered")
    assert int(received.headers["webhook-timestamp"]) >= int((now + timedelta(seconds=1)).timestamp())


async def test_a_message_that_cannot_be_signed_dies_alone(hospital: Hospital, open_partner: Open) -> None:
    partner, other = await open_partner(), await open_partner()
    await hospital.endpoint(url=partner.url(), secret="whsec_no_secret_at_all", schedule=[0.01])
    await hospital.endpoint(url=other.url())
    async with hospital.worker():
        await hospital.post(times=3)
        await other.got(3)
        await hospital.until("SELECT WHERE (SELECT count(*) FROM finished_deliveries WHERE state = 'dead') = 3")
        await hospital.post()
        await other.got(4)
    assert partner.received == []


async def test_a_poisonous_answer_changes_nothing_but_its_own_attempt(hospital: Hospital, open_partner: Open) -> None:
    poison = b"HTTP/1.1 200 OK\r\ncontent-type: text/\xff\x01\r\ncontent-length: 7\r\n\r\n\x00\xff<script"
    partner = await open_partner(otherwise=poison[:-1])
    await hospital.endpoint(url=partner.url(), schedule=[0.01])
    async with hospital.worker(keep_responses=1024):
        await hospital.post(times=5)
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM deliveries) AND EXISTS (SELECT FROM attempts)")
    assert {row["outcome"] for row in await hospital.rows("SELECT outcome FROM attempts")} <= {
        "accepted",
        "unreachable",
    }


async def test_an_orderly_stop_finishes_what_is_under_way_and_makes_no_duplicate(
    hospital: Hospital, open_partner: Open
) -> None:
    release, slowly = waits()
    partner = await open_partner(otherwise=slowly)
    await hospital.endpoint(url=partner.url(), slots=4)
    async with hospital.worker():
        await hospital.post(times=20)
        await partner.got(4)
        asyncio.get_running_loop().call_later(0.2, release.set)
    first = len(partner.received)
    assert len(await hospital.rows(FINISHED, "delivered")) == first
    async with hospital.worker():
        await partner.got(20)
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM deliveries)")
    assert set(Counter(r.id for r in partner.received).values()) == {1}


async def test_an_orderly_stop_hands_back_what_goes_on_of_its_ordering_keys(
    hospital: Hospital, open_partner: Open
) -> None:
    release, slowly = waits()
    partner = await open_partner(otherwise=slowly)
    await hospital.endpoint(url=partner.url(), slots=4)
    async with hospital.worker():
        for key in "abcd":
            await hospital.post(key, times=3)
        await partner.got(4)
        # The answers come when the worker stops already, and each lets another of its key go on.
        asyncio.get_running_loop().call_later(0.2, release.set)
    assert len(partner.received) == len(await hospital.rows(FINISHED, "delivered")) == 4
    assert not await hospital.rows("SELECT FROM deliveries WHERE lease_id IS NOT NULL OR attempt > 0")
    async with hospital.worker():
        await partner.got(12)


async def test_two_workers_together_keep_an_endpoints_slots(hospital: Hospital, open_partner: Open) -> None:
    async def briefly(_: Received) -> bytes:
        await asyncio.sleep(0.02)
        return OK

    partner = await open_partner(otherwise=briefly)
    await hospital.endpoint(url=partner.url(), slots=3)
    async with hospital.worker(), hospital.worker():
        # Both have given a sign of life since both are there, and so have seen each other.
        await hospital.until("SELECT FROM workers HAVING count(*) = 2 AND min(seen_at) > max(started_at)")
        await hospital.post(times=60)
        await partner.got(60)
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM deliveries)")
    assert partner.busiest <= 3


async def test_an_endpoints_rate_is_kept_from_the_first_second_on(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url(), rate=20.0)
    async with hospital.worker():
        await hospital.post(times=50)
        received = await partner.got(50)
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM deliveries)")
    assert received[-1].at - received[0].at >= (50 - 1) / 20 * 0.8, "the first second has no more than any other"


async def test_a_hanging_neighbour_delays_nobody(hospital: Hospital, open_partner: Open) -> None:
    let_go, hang = waits()
    hanging = [await open_partner(otherwise=hang) for _ in range(40)]
    healthy = await open_partner()
    for partner in hanging:
        await hospital.endpoint(url=partner.url(), deadline=60.0)
    async with hospital.worker(concurrency=64):
        await hospital.post(times=20)
        await asyncio.gather(*(partner.got(1) for partner in hanging[:5]))
        await hospital.endpoint("payment.*", url=healthy.url())
        await hospital.post(times=100, type="payment.processed")
        await healthy.got(100)
        assert all(partner.busy for partner in hanging[:5]), "they still hang"
        await hospital.change("UPDATE endpoints SET state = 'paused' WHERE url <> $1", healthy.url())
        let_go.set()


async def test_a_worker_sends_to_no_machine_that_serves_the_api_whose_address_only_the_database_tells(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner()
    async with serve(str(hospital.settings.database_url), host="0.0.0.0", port=partner.port):
        if not any(":" not in address for address in of_this_machine()):
            pytest.skip("this machine has no address but loopback")
        (row, *_) = await hospital.until("SELECT host(address) AS address FROM listeners WHERE family(address) = 4")
    elsewhere = partner.port + 1 if partner.port < 65_535 else 1_024
    for port in (partner.port, elsewhere):
        await hospital.endpoint(url=f"http://{row['address']}:{port}/hook", schedule=[0.01])
    async with hospital.worker(allow_networks=(f"{row['address']}/32",)):
        await hospital.post()
        await hospital.until("SELECT FROM finished_deliveries HAVING count(*) = 2")
    attempts = await hospital.rows(
        "SELECT DISTINCT e.url, a.detail FROM attempts a"
        " JOIN finished_deliveries d ON d.id = a.delivery_id JOIN endpoints e ON e.id = d.endpoint_id"
    )
    assert {a["url"].split(":")[2]: a["detail"] == "own_origin" for a in attempts} == {
        f"{partner.port}/hook": True,
        f"{elsewhere}/hook": False,
    }
    assert partner.received == []


async def test_deliveries_wait_while_a_key_is_missing_and_none_dies(hospital: Hospital, open_partner: Open) -> None:
    partner = await open_partner()
    await hospital.endpoint(url=partner.url(), schedule=[0.01])
    await hospital.post(times=3)
    async with hospital.elsewhere(new_master_key("another")) as keyless, keyless.worker():
        await hospital.until("SELECT WHERE (SELECT count(*) FROM attempts WHERE detail = 'key_missing') >= 3")
    assert partner.received == []
    assert len(await hospital.rows("SELECT FROM deliveries WHERE attempt = 0")) == 3
    async with hospital.worker():
        await hospital.change("UPDATE deliveries SET due_at = now()")
        await partner.got(3)
        await hospital.until("SELECT WHERE NOT EXISTS (SELECT FROM deliveries)")


async def test_what_was_fanned_out_to_an_endpoint_just_deleted_ends_as_cancelled(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner()
    endpoint_id = await hospital.endpoint(url=partner.url(), state="paused")
    async with hospital.worker():
        await hospital.post("in order", times=3)
        await hospital.until("SELECT FROM deliveries HAVING count(*) = 3")
        await hospital.change("UPDATE endpoints SET deleted_at = now() WHERE id = $1", endpoint_id)
        await hospital.until("SELECT FROM finished_deliveries WHERE state = 'cancelled' HAVING count(*) = 3")
    assert await hospital.rows("SELECT FROM deliveries") == []
    assert partner.received == []


async def test_a_tenant_takes_only_its_own_slots(hospital: Hospital, open_partner: Open) -> None:
    let_go, hang = waits()
    partners = [await open_partner(otherwise=hang) for _ in range(4)]
    for partner in partners:
        await hospital.endpoint(url=partner.url(), deadline=60.0)
    async with hospital.worker(tenant_slots=6) as worker:
        await hospital.post(times=20)
        await hospital.until("SELECT FROM deliveries WHERE lease_id IS NOT NULL HAVING count(*) = 6")
        assert worker._slots.in_flight == 6
        assert sum(partner.busiest for partner in partners) <= 6
        await hospital.change("UPDATE endpoints SET state = 'paused'")
        let_go.set()


OPEN_BREAKER = """
INSERT INTO endpoint_health (endpoint_id, tenant_id, failures_in_a_row, failing_since, open_until, openings)
VALUES ($1, $2, 10, now() - interval '1 minute', now() + interval '1 hour', 4)
"""


async def test_a_test_says_that_it_is_one_and_passes_an_open_breaker_which_its_success_closes(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner(status(500))
    endpoint_id = await hospital.endpoint(url=partner.url(), secret=SECRET)
    await hospital.endpoint("gateway.delivery_dead", url=partner.url("/watch"))
    await hospital.change(OPEN_BREAKER, endpoint_id, hospital.tenant_id)
    (before,) = await hospital.rows("SELECT * FROM endpoint_health")
    counted = dead_so_far()
    async with hospital.worker():
        (event_id,) = await hospital.post()
        await hospital.until("SELECT FROM deliveries")
        await hospital.test(endpoint_id)
        (failed,) = await hospital.until(FINISHED, "dead")
        assert (failed["attempt"], failed["state_reason"], failed["reason"]) == (1, "attempts_exhausted", "test")
        (after,) = await hospital.rows("SELECT * FROM endpoint_health")
        assert after == before, "a test that fails changes nothing"
        assert dead_so_far() == counted, "nor does it alarm anybody"
        assert (await hospital.rows("SELECT event_id FROM deliveries"))[0]["event_id"] == event_id

        await hospital.test(endpoint_id)
        await hospital.until(f"{FINISHED} OFFSET 1", "delivered")
    first, second, real = partner.received
    assert real.id == ids.render(ids.EVENT, event_id), "the breaker is closed"
    assert "webhook-test" not in real.headers
    assert "test" not in json.loads(real.body)
    for tested in (first, second):
        assert tested.headers["webhook-test"] == "true"
        assert list(json.loads(tested.body)) == ["id", "type", "timestamp", "test", "data"]
        assert json.loads(tested.body)["test"] is True
        Webhook(SECRET).verify(tested.body, tested.headers)
    assert await hospital.rows("SELECT FROM events WHERE type = 'gateway.delivery_dead'") == []


def dead_so_far() -> float:
    return REGISTRY.get_sample_value("webhook_gateway_deliveries_finished_total", {"state": "dead"}) or 0.0


async def test_a_test_waits_while_its_endpoint_is_paused_and_is_one_though_it_is_claimed_like_any_other(
    hospital: Hospital, open_partner: Open
) -> None:
    partner = await open_partner()
    endpoint_id = await hospital.endpoint(url=partner.url(), state="paused")
    async with hospital.worker():
        await hospital.test(endpoint_id)
        await hospital.until("SELECT FROM deliveries WHERE lease_id IS NULL AND attempt = 0")
        await hospital.change("UPDATE endpoints SET state = 'enabled' WHERE id = $1", endpoint_id)
        (received,) = await partner.got(1)
        await hospital.until(FINISHED, "delivered")
    assert received.headers["webhook-test"] == "true"
