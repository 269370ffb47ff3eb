"""What pages ask for by themselves is made once for all who may see the same, and never shown to anybody else."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx

from tests.web.console.people import Person
from tests.web.serving import Api
from tests.web.world import World, make_world
from webhook_gateway.rules import ids

POLL = {"HX-Request": "true"}


async def poll(person: Person, path: str = "/deliveries") -> httpx.Response:
    answer = await person.get(f"/console{path}", headers=POLL)
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_poll_is_answered_with_what_another_one_has_just_seen_until_somebody_does_something(
    api: Api, somebody: Any, world: World
) -> None:
    one, other = await somebody("admin"), await somebody("admin")
    before = await poll(one)
    async with api.database.connection() as connection:
        await connection.execute("DELETE FROM finished_deliveries")
    shared = await poll(other)
    assert shared.text == before.text
    assert world.delivery_id in shared.text
    assert shared.headers["content-security-policy"] != before.headers["content-security-policy"]
    assert world.delivery_id not in await other.see("/deliveries"), "who asks themselves is shown what is"
    await other.do(f"/endpoints/{world.endpoint_id}/pause", reason="certificate change")
    assert world.delivery_id not in (await poll(one)).text


async def test_who_may_see_less_or_in_another_zone_is_answered_apart(
    api: Api, admin: httpx.AsyncClient, somebody: Any, world: World
) -> None:
    other = await make_world(api, admin, api.tenant_id, "Southside")
    bound = ids.parse(ids.SUBSCRIBER, other.subscriber_id)
    everything, nothing_to_do = await somebody("admin"), await somebody("deliveries:read")
    partner = await somebody("deliveries:read", subscriber_id=bound)
    elsewhere = await somebody("admin")
    await elsewhere.do("/zone", zone="Asia/Kolkata")
    answers = [(await poll(person)).text for person in (everything, nothing_to_do, partner, elsewhere)]
    assert len(set(answers)) == len(answers)
    assert [world.delivery_id in text for text in answers] == [True, True, False, True]
    assert ["IST" in text for text in answers] == [False, False, False, True]


async def test_a_poll_has_what_is_kept_current_and_neither_menu_nor_name(somebody: Any, world: World) -> None:
    answer = await poll(await somebody("admin"))
    assert 'id="live"' in answer.text
    assert "<nav" not in answer.text
    assert "Sign out" not in answer.text


async def test_a_poll_leaves_out_what_stays(somebody: Any, world: World) -> None:
    person = await somebody("admin")
    for path in ("/deliveries", f"/endpoints/{world.endpoint_id}"):
        page, answer = await person.see(path), await poll(person, path)
        assert "<form" in page
        assert answer.text.strip().startswith('<div id="live"'), path
        assert "<form" not in answer.text, path
    assert "no such" in (await person.get(f"/console/events/{ids.render(ids.EVENT, uuid4())}", headers=POLL)).text


async def test_a_replay_offers_to_be_stopped_only_while_it_runs(api: Api, somebody: Any, world: World) -> None:
    person = await somebody("admin")
    async with api.database.connection() as connection:
        for state, is_offered in (("running", True), ("done", False)):
            await connection.execute("UPDATE jobs SET state = $1", state)
            answer = await poll(person, f"/replays/{world.job_id}?asked={state}")
            assert ("Stop it" in answer.text) is is_offered


async def test_what_failed_is_tried_again_for_the_next_one(api: Api, somebody: Any, world: World) -> None:
    person, path = await somebody("admin"), f"/deliveries/{world.delivery_id}"
    async with api.database.connection() as connection:
        await connection.execute("UPDATE finished_deliveries SET tenant_id = gen_random_uuid()")
        assert (await person.get(f"/console{path}", headers=POLL)).status_code == 404
        await connection.execute("UPDATE finished_deliveries SET tenant_id = $1", api.tenant_id)
    await poll(person, path)
