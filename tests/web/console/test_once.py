"""What is shown only now: the form that showed it, sent again as a reload sends it, does nothing again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.console.people import Person, form_of, id_in, text_of
from tests.web.serving import Api, running
from tests.web.world import World
from webhook_gateway.rules import ids

ENDPOINT = {"url": "https://lab.example.com/in", "event_types": "staff_shift.*", "content": "thin"}
FORMS = [
    (
        "/partners/{subscriber_id}/endpoints/new",
        "/partners/{subscriber_id}/endpoints/new",
        ENDPOINT,
        "whsec_",
        "rotate",
    ),
    ("/endpoints/{endpoint_id}", "/endpoints/{endpoint_id}/rotate", {}, "whsec_", "rotate"),
    ("/partners/{subscriber_id}", "/partners/{subscriber_id}/portal-links", {"minutes": "10"}, "whp_", "revoke"),
    ("/keys/new", "/keys/new", {"name": "night shift", "role": "operator"}, "whk_", "Revoke it"),
]
"""A page, the form there, what is filled in, what is shown only now, and what helps who has not kept it."""


async def fresh(person: Person, page: str, action: str) -> dict[str, str]:
    """The form as the page shows it."""
    html = await person.see(page)
    return form_of(html.replace('method="post">', f'method="post" action="/console{page}">', 1), action)


async def rows(api: Api) -> list[int]:
    async with api.database.connection() as connection:
        tables = ("endpoints", "endpoint_secrets", "sessions WHERE code_hash IS NOT NULL", "api_keys", "audit_log")
        return [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]


@pytest.mark.parametrize(("page", "action", "filled", "shown", "remedy"), FORMS)
async def test_a_form_whose_answer_is_shown_only_now_works_once(
    api: Api, somebody: Any, world: World, page: str, action: str, filled: dict[str, str], shown: str, remedy: str
) -> None:
    person: Person = await somebody("admin")
    page, action = world.path(page), world.path(action)
    form = await fresh(person, page, action) | filled
    first = await person.do(action, **form)
    assert first.is_success, text_of(first.text)
    assert shown in first.text
    there = await rows(api)
    again = await person.do(action, **form)
    assert again.status_code == 409
    assert shown not in again.text
    assert "This was done already" in text_of(again.text)
    assert remedy in text_of(again.text)
    assert await rows(api) == there
    leads_to = again.text.partition('class="button main" href="/console')[2].partition('"')[0]
    await person.see(leads_to)
    another = await person.do(action, **await fresh(person, page, action) | filled)
    assert another.is_success, text_of(another.text)
    assert shown in another.text


async def test_a_form_works_once_whichever_process_it_is_sent_to(
    api: Api, database_url: str, somebody: Any, world: World
) -> None:
    person: Person = await somebody("admin")
    form = await fresh(person, "/keys/new", "/keys/new") | {"name": "night shift", "role": "operator"}
    assert (await person.do("/keys/new", **form)).status_code == 201
    async with running(database_url, development=True) as other:
        again = await person.post(f"{other.url}/console/keys/new", data=form)
    assert again.status_code == 409
    assert "whk_" not in again.text


async def test_what_was_refused_and_what_was_only_tried_may_be_sent_again(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    new = f"/partners/{world.subscriber_id}/endpoints/new"
    form = await fresh(person, new, new) | ENDPOINT
    assert (await person.do(new, **form, do="preview")).status_code == 200
    assert (await person.do(new, **form | {"url": "ftp://x"}, do="save")).status_code == 422
    assert (await person.do(new, **form, do="save")).status_code == 201
    assert (await person.do(new, **form, do="save")).status_code == 409


async def test_a_form_of_the_version_before_has_no_token_and_is_taken(somebody: Any) -> None:
    person: Person = await somebody("admin")
    assert (await person.do("/keys/new", name="night shift", role="operator")).status_code == 201


async def test_a_session_remembers_a_bounded_number_of_forms(api: Api, somebody: Any) -> None:
    person: Person = await somebody("admin")
    async with api.database.connection() as connection:
        before = "array(SELECT gen_random_uuid() FROM generate_series(1, 200))"
        await connection.execute(f"UPDATE sessions SET spent = {before}")
        form = await fresh(person, "/keys/new", "/keys/new") | {"name": "night shift", "role": "operator"}
        assert (await person.do("/keys/new", **form)).status_code == 201
        assert await connection.fetchval("SELECT cardinality(spent) FROM sessions") == 200
    assert (await person.do("/keys/new", **form)).status_code == 409


async def test_what_was_made_says_whose_it_is(somebody: Any, world: World) -> None:
    person: Person = await somebody("admin")
    for _, path, filled, _, _ in FORMS[:3]:
        made = await person.do(world.path(path), **filled)
        head, crumbs = made.text.partition("<h1>")[2].partition("</h1>")[0], made.text.partition('class="crumbs"')[2]
        assert "Northside" in head, path
        assert f'<a href="/console/partners/{world.subscriber_id}">Northside</a>' in crumbs.partition("</ol>")[0], path
        if "portal-links" in path:
            link = id_in(made, ids.SESSION)
            assert f"under “Its portal”, where it is {link}" in text_of(made.text)
            assert f"/portal-links/{link}/revoke" in await person.see(f"/partners/{world.subscriber_id}")
