"""Why an event is where it is, in a sentence: at each endpoint, as far as whoever asks may know."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

import webhook_gateway
from tests.support.hospital import Hospital
from tests.support.partner import OK, partner, status
from tests.web.serving import Api
from tests.web.test_problems import check_problem
from tests.web.world import post
from webhook_gateway.delivery import sending
from webhook_gateway.operations.deliveries import BY_HAND
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER
from webhook_gateway.rules.sentences import Ended, WhyNot
from webhook_gateway.store import endpoints, finished, retention
from webhook_gateway.store.configuration import seal_column

CLAIM = "insurance_claim.submitted"
FILTER = {"payer_id": ["p_18"], "total": {"currency": ["USD"]}}
URL = "https://payer.example.com/in"


async def at_endpoints(http: httpx.AsyncClient, event_id: UUID) -> dict[str, tuple[str | None, str]]:
    """By endpoint: the reason and the sentence."""
    response = await http.get(f"/v1/events/{ids.render(ids.EVENT, event_id)}/endpoints")
    assert response.status_code == 200, response.text
    items = response.json()["items"]
    return {item["endpoint_id"]: (item["reason"], item["explanation"]["sentence"]) for item in items}


async def explanation(http: httpx.AsyncClient, hospital: Hospital, event_id: UUID) -> dict[str, Any]:
    """Of the event's one delivery."""
    query = "SELECT id FROM {} WHERE event_id = $1"
    tables = ("deliveries", "finished_deliveries")
    (row,) = [row for table in tables for row in await hospital.rows(query.format(table), event_id)]
    found = (await http.get(f"/v1/deliveries/{ids.render(ids.DELIVERY, row['id'])}")).json()
    told: dict[str, Any] = found["explanation"]
    return told


async def payer(admin: httpx.AsyncClient, name: str, **changes: Any) -> dict[str, Any]:
    """An endpoint of a subscriber that gets claims."""
    new = {"name": name, "external_id": name, "event_types": ["insurance_claim.*"], "content": "full"}
    subscriber = await post(admin, "/v1/subscribers", new)
    return await post(admin, "/v1/endpoints", {"subscriber_id": subscriber["id"], "url": URL, **changes})


async def test_a_delivery_says_how_it_came_to_where_it_is(hospital: Hospital, admin: httpx.AsyncClient) -> None:
    answers = [status(503), OK, status(500), status(500)]
    async with partner(*answers, otherwise=status(503)) as there:
        quick = await hospital.endpoint("payment.*", url=there.url(), schedule=[1.0])
        async with hospital.worker():
            delivered = await hospital.accept()
            await hospital.until("SELECT FROM attempts WHERE outcome = 'rejected'")
            told = await explanation(admin, hospital, delivered)
            assert told["next"] in ("attempt 2 of 2", "What it meets decides.")
            await hospital.until("SELECT FROM finished_deliveries WHERE state = 'delivered'")
            dead = await hospital.accept()
            await hospital.until("SELECT FROM finished_deliveries WHERE state = 'dead'")
            await hospital.change("UPDATE endpoints SET schedule = NULL")
            retried = await hospital.accept()
            await hospital.until("SELECT FROM attempts OFFSET 4")
            await hospital.until("SELECT FROM deliveries WHERE lease_id IS NULL")
        (finished,) = await hospital.rows("SELECT finished_at FROM finished_deliveries WHERE event_id = $1", delivered)
        told = await explanation(admin, hospital, delivered)
        assert told["sentence"].startswith(f"Delivered {finished['finished_at']:%H:%M:%S} UTC at the second attempt, ")
        assert (told["next"], told["next_at"]) == (None, None)
        told = await explanation(admin, hospital, dead)
        assert told["sentence"].endswith(" after 2 attempts, the last one 500: it has no attempts left.")
        async with api_worker(hospital):
            await hospital.rows("UPDATE deliveries SET due_at = now() + interval '5 minutes'")
            told = await explanation(admin, hospital, retried)
            assert told["sentence"] in [
                f"Next try in {n}: attempt 2 of 10, after 503." for n in ("5 minutes", "299 seconds")
            ]
            due = datetime.fromisoformat(told["next_at"])
            assert abs(due - datetime.now(UTC) - timedelta(minutes=5)) < timedelta(minutes=1)
            await hospital.rows(
                "INSERT INTO endpoint_health (endpoint_id, tenant_id, failures_in_a_row, open_until)"
                " VALUES ($1, $2, 5, now() + interval '1 hour') ON CONFLICT (endpoint_id)"
                " DO UPDATE SET failures_in_a_row = 5, open_until = excluded.open_until",
                *(quick, hospital.tenant_id),
            )
            told = await explanation(admin, hospital, retried)
            assert told["sentence"].startswith("The breaker is open until ")
            assert told["sentence"].endswith(" UTC, after 5 failures in a row, the last one 503.")
            path = f"/v1/endpoints/{ids.render(ids.ENDPOINT, quick)}/pause"
            await post(admin, path, {"reason": "certificate change"})
            told = await explanation(admin, hospital, retried)
            assert told["sentence"].startswith("The endpoint was paused 0 seconds ago with the key `a test`")
            assert told["sentence"].endswith(': "certificate change".')
            assert told["next"] == "Somebody has to resume it."
        event = (await admin.get(f"/v1/events/{ids.render(ids.EVENT, retried)}")).json()
        assert event["explanation"]["sentence"] == "It went to 1 endpoint: 1 pending."


def api_worker(hospital: Hospital) -> Any:
    """A worker that is alive and does nothing."""
    return hospital.database.connection()


def test_every_reason_with_which_a_delivery_ends_has_a_sentence() -> None:
    named = {endpoints.DELETED, retention.TOO_LONG, finished.NOT_WANTED, BY_HAND}
    unsendable = {sending.NOT_PERMITTED.reason, sending.ANOTHER_HOST.reason, sending.NOT_WANTED.reason}
    source = "".join(file.read_text() for file in Path(inspect.getfile(webhook_gateway)).parent.rglob("*.py"))
    written = set(re.findall(r'(?:GiveUp\(|reason=)"(\w+)"|put_away(?:_open)?\([^)]*"\'(\w+)\'"', source))
    given_up = set(re.findall(r'Unsendable\("(\w+)", Remedy\.(?:NONE|CANCEL)\)', source))
    assert named | unsendable | given_up | {name for pair in written for name in pair if name} - {"test"} == set(Ended)


async def test_one_that_waits_for_its_order_names_what_it_waits_for_and_to_a_partner_only_what_it_may_know(
    api: Api, hospital: Hospital, admin: httpx.AsyncClient
) -> None:
    await hospital.endpoint("lab_result.*", ordering="strict")
    first, second = [(await hospital.post("one order"))[0] for _ in range(2)]
    await hospital.fan_out()
    (head,) = await hospital.rows("SELECT id FROM deliveries WHERE event_id = $1", first)
    named = ids.render(ids.DELIVERY, head["id"])
    assert f"behind {named} of the same order since " in (await explanation(admin, hospital, second))["sentence"]
    async with await api.as_client("deliveries:read", subscriber_id=hospital.subscriber_id) as http:
        assert named in (await explanation(http, hospital, second))["sentence"]
        await hospital.rows("UPDATE deliveries SET unfiltered = true WHERE event_id = $1", first)
        assert "behind an earlier one of" in (await explanation(http, hospital, second))["sentence"]
        await hospital.rows(
            "INSERT INTO held_keys (endpoint_id, ordering_key, tenant_id, delivery_id, event_id)"
            " SELECT endpoint_id, ordering_key, tenant_id, id, event_id FROM deliveries WHERE id = $1",
            head["id"],
        )
        await hospital.rows("DELETE FROM deliveries WHERE id = $1", head["id"])
        assert f"{named} of the same order is dead" in (await explanation(admin, hospital, second))["sentence"]
        assert "an earlier one of the same order is dead" in (await explanation(http, hospital, second))["sentence"]


async def test_an_event_says_of_each_endpoint_why_it_has_it_or_has_not(
    hospital: Hospital, admin: httpx.AsyncClient
) -> None:
    gets, filtered = await payer(admin, "gets"), await payer(admin, "filtered", filter=FILTER)
    narrow = await payer(admin, "narrow", event_types=["insurance_claim.denied"])
    deleted, gone = await payer(admin, "deleted"), await payer(admin, "gone")
    await admin.delete(f"/v1/endpoints/{gone['id']}")
    lab = ids.render(ids.ENDPOINT, await hospital.endpoint("insurance_claim.*", description="addressed"))
    other = await post(admin, "/v1/subscribers", {"name": "other", "event_types": ["payment.*"]})
    not_permitted = await post(admin, "/v1/endpoints", {"subscriber_id": other["id"], "url": URL})
    event_id = await hospital.accept(CLAIM, payer_id="p_secret19")
    told = await at_endpoints(admin, event_id)
    assert set(told.values()) == {("fan_out", "The event is in the outbox, and a worker will find out who gets it.")}
    await admin.delete(f"/v1/endpoints/{deleted['id']}")
    await hospital.fan_out()
    later = await payer(admin, "later")
    told = await at_endpoints(admin, event_id)
    assert gone["id"] not in told, "it was not there any more when the event came"
    assert {endpoint_id: reason for endpoint_id, (reason, _) in told.items()} == {
        gets["id"]: None,
        lab: None,
        filtered["id"]: "filter",
        narrow["id"]: "type_not_wanted",
        deleted["id"]: "deleted",
        not_permitted["id"]: "not_permitted",
        later["id"]: "made_later",
    }
    asks = "payer_id p_18 and total.currency USD"
    assert told[filtered["id"]][1] == f"Does not want it: its filter asks for {asks}."
    assert told[later["id"]][1] == "It was made after the event, 0 seconds ago."
    assert told[gets["id"]][1].startswith("It is due or in the outbox, and no worker is alive.")
    assert "p_secret19" not in str(told)
    await hospital.rows("UPDATE events SET addressees = $1", [hospital.subscriber_id])
    await hospital.rows("DELETE FROM deliveries WHERE endpoint_id = $1", ids.parse(ids.ENDPOINT, gets["id"]))
    assert (await at_endpoints(admin, event_id))[gets["id"]] == ("not_addressed", "The event was addressed to others.")


async def test_pages_of_endpoints_hold_each_once(hospital: Hospital, admin: httpx.AsyncClient) -> None:
    expected = [ids.render(ids.ENDPOINT, await hospital.endpoint("payment.*")) for _ in range(5)]
    path, seen, cursor = f"/v1/events/{ids.render(ids.EVENT, await hospital.accept())}/endpoints", [], None
    await hospital.fan_out()
    while True:
        page = (await admin.get(path, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        seen += [item["endpoint_id"] for item in page["items"]]
        assert all(item["delivery_id"] for item in page["items"])
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == expected[::-1]


async def test_a_test_is_nobody_elses(hospital: Hospital, admin: httpx.AsyncClient) -> None:
    one, other = await payer(admin, "one"), await payer(admin, "other")
    queued = await post(admin, f"/v1/endpoints/{one['id']}/test")
    event_id = ids.parse(ids.EVENT, queued["event_id"])
    assert set((await at_endpoints(admin, event_id)).values()) == {("unknown", WhyNot.UNKNOWN.sentence)}, "not yet"
    await hospital.fan_out()
    told = await at_endpoints(admin, event_id)
    assert told[one["id"]][0] is None
    assert told[other["id"]] == ("test", "The event was a test of another endpoint.")


async def test_of_an_event_that_is_no_longer_kept_its_deliveries_are_told(
    hospital: Hospital, admin: httpx.AsyncClient
) -> None:
    gets = await payer(admin, "gets")
    await payer(admin, "filtered", filter=FILTER)
    event_id = await hospital.accept(CLAIM, payer_id="p_19")
    await hospital.fan_out()
    await hospital.rows("DELETE FROM events")
    assert list(await at_endpoints(admin, event_id)) == [gets["id"]]
    await hospital.rows("DELETE FROM deliveries")
    check_problem(await admin.get(f"/v1/events/{ids.render(ids.EVENT, event_id)}/endpoints"), 404, "not-found")


async def test_who_may_read_the_body_hears_which_condition_failed_and_that_is_audited(
    api: Api, hospital: Hospital, admin: httpx.AsyncClient
) -> None:
    filtered = await payer(admin, "filtered", filter=FILTER)
    event_id = await hospital.accept(CLAIM, payer_id="p_19")
    await hospital.fan_out()
    explained = "SELECT target FROM audit_log WHERE action = 'event.explained'"
    await at_endpoints(admin, event_id)
    assert await hospital.rows(explained) == [], "nothing was opened"
    async with await api.as_client("payload:read", "deliveries:read", "endpoints:read") as http:
        told = await at_endpoints(http, event_id)
        assert told[filtered["id"]] == ("filter", "Does not want it: its filter asks for payer_id p_18.")
        (entry,) = await hospital.rows(explained)
        assert entry["target"] == ids.render(ids.EVENT, event_id)
        await admin.patch(f"/v1/endpoints/{filtered['id']}", json={"filter": {"payer_id": ["p_19"]}})
        assert (await at_endpoints(http, event_id))[filtered["id"]][0] == "changed_later"
    async with await api.as_client("payload:read", "deliveries:read") as http:
        await admin.patch(f"/v1/endpoints/{filtered['id']}", json={"filter": {"payer_id": ["p_20"]}})
        hidden = ("filter", "Does not want it: its filter is set by the hospital.")
        assert (await at_endpoints(http, event_id))[filtered["id"]] == hidden, "no literal without endpoints:read"


async def test_nobody_finds_out_what_is_in_a_body_by_setting_filters(
    hospital: Hospital, admin: httpx.AsyncClient
) -> None:
    guessing = await payer(admin, "guessing", filter={"payer_id": ["p_18"]})
    event_id = await hospital.accept(CLAIM, payer_id="p_19")
    await hospital.fan_out()
    answers = set()
    for guess in ("p_19", "p_20"):
        await admin.patch(f"/v1/endpoints/{guessing['id']}", json={"filter": {"payer_id": [guess]}})
        answers.add((await at_endpoints(admin, event_id))[guessing["id"]])
    ((reason, _),) = answers
    assert reason == "changed_later"


@pytest.fixture
async def theirs(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, Any]]]:
    """A partner that gets the payer's id only: its own key with all that it can carry, and an endpoint."""
    endpoint = await payer(admin, "theirs", content={"level": "fields", "pointers": ["/payer_id"]}, filter=FILTER)
    subscriber_id = ids.parse(ids.SUBSCRIBER, endpoint["subscriber_id"])
    async with await api.as_client(*OF_A_SUBSCRIBER, "payload:read", subscriber_id=subscriber_id) as http:
        yield http, endpoint


async def test_a_partners_key_hears_of_its_own_endpoints_and_of_its_filter_what_it_gets(
    hospital: Hospital, admin: httpx.AsyncClient, theirs: tuple[httpx.AsyncClient, dict[str, Any]]
) -> None:
    http, filtered = theirs
    await payer(admin, "another")
    event_id = await hospital.accept(CLAIM, payer_id="p_19")
    await hospital.fan_out()
    path = f"/v1/events/{ids.render(ids.EVENT, event_id)}/endpoints"
    check_problem(await http.get(path), 404, "not-found")
    sibling = await post(admin, "/v1/endpoints", {"subscriber_id": filtered["subscriber_id"], "url": URL})
    event_id = await hospital.accept(CLAIM, payer_id="p_19")
    await hospital.fan_out()
    await post(admin, f"/v1/endpoints/{sibling['id']}/pause", {"reason": "certificate change"})
    told = await at_endpoints(http, event_id)
    assert told == {
        filtered["id"]: (
            "filter",
            "Does not want it: its filter asks for payer_id p_18, and more that is set by the hospital.",
        ),
        sibling["id"]: (None, 'The endpoint was paused 0 seconds ago: "certificate change".'),
    }
    await hospital.change("UPDATE endpoints SET content = $1", '{"level": "thin", "subject": false}')
    await hospital.change("UPDATE endpoints SET updated_at = created_at")
    told = await at_endpoints(http, event_id)
    assert told[filtered["id"]][1] == "Does not want it: its filter is set by the hospital."


async def test_a_filter_that_can_not_be_opened_is_not_told(hospital: Hospital, admin: httpx.AsyncClient) -> None:
    filtered = await payer(admin, "filtered", filter=FILTER)
    event_id = await hospital.accept(CLAIM, payer_id="p_19")
    await hospital.fan_out()
    other = seal_column(hospital.vault, hospital.tenant_id, UUID(int=7), "filter", FILTER)
    await hospital.change("UPDATE endpoints SET filter = $1", other)
    hidden = ("filter", "Does not want it: its filter is set by the hospital.")
    assert (await at_endpoints(admin, event_id))[filtered["id"]] == hidden
