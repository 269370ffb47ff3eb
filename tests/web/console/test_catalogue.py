"""The catalogue at the console: own types are made, changed and deleted, and a type's example is sent."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from typing import Any

import httpx
import pytest

from tests.web.console.people import Person, id_in, text_of
from tests.web.console.test_actions import audited
from tests.web.serving import Api
from tests.web.world import World
from webhook_gateway.rules import ids

OWN = "dialysis.machine_cleaned"
SCHEMA = {"type": "object", "properties": {"machine": {"type": "string"}, "patient": {"type": "string"}}}
FORM = {
    "name": OWN,
    "description": "A machine was cleaned",
    "schema": json.dumps(SCHEMA),
    "example": '{"machine": "it\'s 7", "patient": "pat_1"}',
    "thin": "/machine",
    "patient": "/patient",
}
PRE = re.compile(r'<pre[^>]*aria-label="(.*?)">(.*?)</pre>', re.DOTALL)


async def test_a_type_of_ones_own_is_made_changed_and_deleted(
    api: Api, somebody: Any, admin: httpx.AsyncClient
) -> None:
    person: Person = await somebody("admin")
    made = await person.do("/catalogue/new", **FORM)
    assert made.headers["location"] == f"/console/catalogue/{OWN}?said=event_type", text_of(made.text)
    event = {"type": OWN, "data": {"machine": "m1"}}
    assert (await admin.post("/v1/events", json=event)).status_code == 202, "events of it are accepted at once"
    shown = {name: json.loads(unescape(what)) for name, what in PRE.findall(await person.see(f"/catalogue/{OWN}"))}
    assert shown["The schema"] == SCHEMA
    assert shown["The example"]["patient"] == "pat_1"
    assert shown["The thin body"]["data"] == {"machine": "it's 7"}
    assert "subject" not in shown["The thin body"]
    edit = await person.see(f"/catalogue/{OWN}/edit")
    assert "A machine was cleaned" in edit
    fields = FORM | {"ordering_key": "machine:{machine}"}
    fields.pop("name")
    assert (await person.do(f"/catalogue/{OWN}/edit", **fields)).status_code == 303
    assert (await person.do(f"/catalogue/{OWN}/delete", typed="yes")).status_code == 422
    assert (await person.do(f"/catalogue/{OWN}/delete", typed=OWN)).status_code == 303
    await person.see(f"/catalogue/{OWN}", 404)
    assert (await admin.post("/v1/events", json=event)).status_code == 422
    entries = [(action, after) for action, after in await audited(api) if action.startswith("event_type.")]
    assert [action for action, _ in entries] == ["event_type.created", "event_type.changed", "event_type.deleted"]
    assert entries[1][1] == {"ordering_key": "machine:{machine}"}, "only what was changed"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"example": '{"machine": 7}'}, "example"),
        ({"schema": "{"}, "Give valid JSON"),
        ({"schema": ""}, "schema"),
        ({"name": "machine"}, "joined by dots"),
        ({"name": "gateway.own"}, "gateway. is the gateway's own"),
        ({"thin": "/no_such_member"}, "Point at something"),
    ],
)
async def test_a_type_that_is_refused_is_shown_again_with_what_is_wrong(
    somebody: Any, wrong: dict[str, str], told: str
) -> None:
    person: Person = await somebody("admin")
    refused = await person.do("/catalogue/new", **FORM | wrong)
    assert refused.status_code == 422
    assert told in text_of(unescape(refused.text))
    assert "A machine was cleaned" in refused.text, "what was typed is still there"


async def test_a_type_that_ships_is_nobodys_to_change(somebody: Any) -> None:
    person: Person = await somebody("admin")
    page = await person.see("/catalogue/lab_result.final")
    assert "/edit" not in page
    assert "Delete this type" not in page
    await person.see("/catalogue/lab_result.final/edit", 409)
    assert (await person.do("/catalogue/new", **FORM | {"name": "lab_result.final"})).status_code == 409
    shipped = await person.do("/catalogue/lab_result.final/delete", typed="lab_result.final")
    assert shipped.status_code == 409


@pytest.mark.parametrize("name", ["%00", "no_such.type", "a" * 200, "%F0%9F%98%80"])
async def test_a_name_that_is_none_is_not_found(somebody: Any, name: str) -> None:
    person: Person = await somebody("admin")
    for path in (f"/catalogue/{name}/edit", f"/catalogue/{name}"):
        assert (await person.get(f"/console{path}")).status_code in {404, 405}, path


async def test_a_types_example_is_sent_to_an_endpoint_that_gets_it(api: Api, somebody: Any, world: World) -> None:
    person: Person = await somebody("endpoints:read", "deliveries:read", "deliveries:write")
    page = await person.see("/catalogue/staff_shift.assigned")
    action = f"/endpoints/{world.endpoint_id}/test"
    assert f'action="/console{action}"' in page
    assert 'name="event_type" value="staff_shift.assigned"' in page
    assert f"{world.endpoint_id}/test" not in await person.see("/catalogue/lab_result.final"), "which it does not get"
    async with api.database.connection() as connection:
        await connection.execute("UPDATE workers SET seen_at = now() - interval '1 day'")  # nobody answers the test
    sent = await person.do(action, event_type="staff_shift.assigned")
    assert "staff_shift.assigned" in await person.see(f"/deliveries/{id_in(sent, ids.DELIVERY)}")


async def test_the_command_that_posts_a_type_is_what_the_api_takes(
    api: Api, somebody: Any, admin: httpx.AsyncClient
) -> None:
    person: Person = await somebody("admin")
    await person.do("/catalogue/new", **FORM)
    page = await person.see(f"/catalogue/{OWN}")
    command = shlex.split(unescape(page.partition('data-copy="curl')[2].partition('"')[0]))
    assert command[0] == f"{api.url}/v1/events"
    body = command[command.index("-d") + 1]
    assert json.loads(body)["data"]["machine"] == "it's 7", "a shell leaves it whole"
    posted = await admin.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    assert posted.status_code == 202
