"""What is done to many deliveries at the console: seen first, and only what was seen is done."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.support.rows import EVERYTHING, store_event, store_finished, store_open
from tests.web.console.people import Person, form_of, id_in, text_of
from tests.web.serving import Api
from tests.web.world import World, make_world, post
from webhook_gateway.rules import ids

REPLAY, CANCEL = "/replays/new", "/deliveries/cancel"
JOBS = "SELECT count(*) FROM jobs WHERE created_at > now() - interval '1 hour' AND state = 'pending'"
MANY_DEAD = """
INSERT INTO finished_deliveries
    (id, tenant_id, endpoint_id, event_id, type, sequence, attempt, state, state_reason, created_at)
SELECT gen_random_uuid(), tenant_id, endpoint_id, event_id, type, n, 10, 'dead', 'attempts_exhausted', now()
FROM finished_deliveries, generate_series(1, 1_500) AS n
"""


async def dead_of_another(api: Api, admin: httpx.AsyncClient, world: World) -> UUID:
    """A dead delivery of the same event to another partner; its attempt met 503 and not 500."""
    other = await post(admin, "/v1/subscribers", {"name": "Southside", **EVERYTHING})
    new = {"subscriber_id": other["id"], "url": "https://south.example.com/in"}
    endpoint_id = ids.parse(ids.ENDPOINT, (await post(admin, "/v1/endpoints", new))["id"])
    async with api.database.connection() as connection:
        found = await store_finished(
            connection, api.tenant_id, endpoint_id, ids.parse(ids.EVENT, world.event_id), "dead"
        )
        await connection.execute("UPDATE attempts SET status = 503 WHERE delivery_id = $1", found)
    return endpoint_id


async def jobs(api: Api) -> int:
    async with api.database.connection() as connection:
        return int(await connection.fetchval(JOBS))


async def test_what_a_list_shows_of_one_partner_is_replayed_of_that_partner_only(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    await dead_of_another(api, admin, world)
    person: Person = await somebody("admin")
    listed = await person.see(f"/deliveries?subscriber_id={world.subscriber_id}&state=dead")
    assert "Southside" not in listed.partition("<table")[2]
    link = next(re.finditer(r'href="/console(/replays/new[^"]*)"', listed))[1].replace("&amp;", "&")
    form = form_of(await person.see(link), REPLAY)
    assert form["subscriber_id"] == world.subscriber_id
    counted = await person.do(REPLAY, **form, do="count")
    assert "1 delivery would be sent again" in text_of(counted.text)
    everything = await person.do(REPLAY, **form | {"subscriber_id": ""}, do="count")
    assert "2 deliveries would be sent again" in text_of(everything.text)


async def test_what_was_changed_since_it_was_counted_is_counted_anew_and_not_done(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    await dead_of_another(api, admin, world)
    person, before = await somebody("admin"), await jobs(api)
    counted = await person.do(REPLAY, endpoint_id=world.endpoint_id, do="count")
    changed = form_of(counted.text, REPLAY) | {"endpoint_id": ""}
    answer = await person.do(REPLAY, **changed, do="confirm")
    assert answer.status_code == 422
    assert "counted anew" in text_of(answer.text)
    assert "2 deliveries would be sent again" in text_of(answer.text)
    assert (await person.do(REPLAY, do="confirm")).status_code == 422, "what was never counted is not done, either"
    assert await jobs(api) == before
    assert (await person.do(REPLAY, **form_of(answer.text, REPLAY), do="confirm")).status_code == 303
    assert await jobs(api) == before + 1


async def test_more_than_a_thousand_are_sent_once_their_number_is_typed(api: Api, somebody: Any, world: World) -> None:
    async with api.database.connection() as connection:
        await connection.execute(MANY_DEAD)
    person, before = await somebody("admin"), await jobs(api)
    shown = await person.do(REPLAY, endpoint_id=world.endpoint_id, do="count")
    assert "1,501 deliveries would be sent again" in text_of(shown.text)
    for typed in ("", "1500"):
        shown = await person.do(REPLAY, **form_of(shown.text, REPLAY) | {"typed": typed}, do="confirm")
        assert shown.status_code == 422
        assert "Type “1501” to confirm" in text_of(shown.text)
    assert await jobs(api) == before
    made = await person.do(REPLAY, **form_of(shown.text, REPLAY) | {"typed": "1501"}, do="confirm")
    assert "of 1,501 queued" in text_of(await person.see(f"/replays/{id_in(made, ids.JOB)}"))


async def test_a_group_of_problems_is_replayed_without_what_met_something_else(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    async with api.database.connection() as connection:
        about = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.EVENT, world.event_id)
        met_503 = await store_finished(connection, api.tenant_id, *about, "dead")
        await connection.execute("UPDATE attempts SET status = 503 WHERE delivery_id = $1", met_503)
        await connection.execute("UPDATE attempt_stats SET died = 1")
    person: Person = await somebody("admin")
    link = next(re.finditer(r'href="/console(/replays/new[^"]*)"', await person.see("/problems")))[1]
    form = form_of(await person.see(link.replace("&amp;", "&")), REPLAY)
    assert (form["outcome"], form["status"]) == ("rejected", "503")
    counted = await person.do(REPLAY, **form, do="count")
    assert "1 delivery would be sent again" in text_of(counted.text)
    made = await person.do(REPLAY, **form_of(counted.text, REPLAY), do="confirm")
    job = await admin.get(f"/v1/replays/{id_in(made, ids.JOB)}")
    assert [job.json()[name] for name in ("total", "outcome", "status", "detail")] == [1, "rejected", 503, None]
    for wrong in ({"outcome": "unlucky"}, {"status": "5"}, {"detail": "\0"}):
        assert (await person.do(REPLAY, **form | wrong, do="count")).status_code == 422


@pytest.mark.parametrize("by", ["endpoint_id", "subscriber_id"])
async def test_what_waits_is_given_up_as_it_was_shown_and_what_is_anothers_goes_on(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World, by: str
) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    async with api.database.connection() as connection:
        about = ids.parse(ids.ENDPOINT, world.endpoint_id), ids.parse(ids.EVENT, world.event_id)
        unasked = await store_open(connection, api.tenant_id, *about)
        await connection.execute("UPDATE deliveries SET unfiltered = true WHERE id = $1", unasked)
    person: Person = await somebody("admin")
    listed = await person.see(f"/deliveries?{by}={getattr(world, by)}")
    link = next(re.finditer(r'href="/console(/deliveries/cancel[^"]*)"', listed))[1].replace("&amp;", "&")
    counted = await person.do(CANCEL, **form_of(await person.see(link), CANCEL), do="count")
    assert "2 deliveries would be given up" in text_of(counted.text)
    assert "pending" in text_of(await person.see(f"/deliveries/{world.open_delivery_id}"))
    done = await person.do(CANCEL, **form_of(counted.text, CANCEL), do="confirm")
    assert done.headers["location"] == "/console/deliveries?said=many"
    assert "somebody gave it up" in text_of(await person.see(f"/deliveries/{world.open_delivery_id}"))
    assert "somebody gave it up" not in text_of(await person.see(f"/deliveries/{other.open_delivery_id}"))
    assert (await person.do(CANCEL, do="count")).status_code == 422, "nobody gives everything up by mistake"


async def test_nobody_gives_up_what_waits_for_another_partner(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    own = {"subscriber_id": ids.parse(ids.SUBSCRIBER, other.subscriber_id)}
    partner: Person = await somebody("deliveries:read", "deliveries:write", **own)
    for field in ("endpoint_id", "subscriber_id"):
        assert (await partner.do(CANCEL, **{field: getattr(world, field)}, do="count")).status_code == 404
    counted = await partner.do(CANCEL, type="staff_shift.assigned", do="count")
    assert "1 delivery would be given up" in text_of(counted.text)


async def test_an_event_is_sent_to_an_endpoint_that_was_made_after_it_and_nothing_else_is(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    async with api.database.connection() as connection:
        await store_event(api, connection, api.tenant_id)  # a second one, of the same type and time
    new = {"subscriber_id": world.subscriber_id, "url": "https://later.example.com/in"}
    later = (await post(admin, "/v1/endpoints", new))["id"]
    operator: Person = await somebody("admin")
    assert "/backfill" not in await operator.see(f"/events/{world.event_id}"), "it needs payload:read"
    assert "payload:read" in text_of(await operator.see(f"/endpoints/{later}/backfill"))
    person: Person = await somebody("admin", "payload:read")
    path = f"/endpoints/{later}/backfill?event_id={world.event_id}"
    assert f'href="/console{path}"' in await person.see(f"/events/{world.event_id}")
    place = f"/endpoints/{later}/backfill"
    counted = await person.do(place, **form_of(await person.see(path), place), do="count")
    assert "1 event would be sent" in text_of(counted.text)
    made = await person.do(place, **form_of(counted.text, place), do="confirm")
    job = (await admin.get(f"/v1/replays/{id_in(made, ids.JOB)}")).json()
    assert (job["kind"], job["event_id"], job["endpoint_id"], job["total"]) == ("backfill", world.event_id, later, 1)
    assert world.event_id in await person.see(f"/replays/{job['id']}")


async def test_an_endpoint_is_sent_what_came_before_once_it_was_counted(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    new = {"subscriber_id": world.subscriber_id, "url": "https://later.example.com/in"}
    later = (await post(admin, "/v1/endpoints", new))["id"]
    person: Person = await somebody("admin", "payload:read")
    place = f"/endpoints/{later}/backfill"
    assert f'href="/console{place}"' in await person.see(f"/endpoints/{later}")
    assert (await person.do(place, do="count")).status_code == 422, "since when has to be said"
    form = {"since": "2020-01-01T00:00", "type": "staff_shift.assigned"}
    counted = await person.do(place, **form, do="count")
    assert "1 event would be sent" in text_of(counted.text)
    assert (await person.do(place, **form_of(counted.text, place), do="confirm")).status_code == 303
