"""Event types: what may happen, what its data looks like, and who gets it; and the hospital's own, made and changed."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from webhook_gateway.operations.content import THIN, example_of
from webhook_gateway.operations.event_types import known_type
from webhook_gateway.operations.permission import types_of
from webhook_gateway.operations.refusals import Conflict, NotFound
from webhook_gateway.rules.matching import may_have
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.rules.views import view_of
from webhook_gateway.store import endpoints
from webhook_gateway.web.api import event_types, subscribers
from webhook_gateway.web.api.schemas.event_types import EventTypeChanges, NewEventType
from webhook_gateway.web.console.frame import Visit, action, page
from webhook_gateway.web.errors import granted, refused

MOST = 1_000


@page("/catalogue", by=Capability.VIEW)
async def every(visit: Visit) -> Response:
    found = await event_types.every(visit.gateway, visit.caller)
    asked = (visit.asked("q") or "").lower()
    rows = [known for known in found["items"] if asked in known.name or asked in known.description.lower()]
    if visit.caller.subscriber_id is not None and visit.may(Scope.ENDPOINTS_READ):
        owner = await subscribers.one(visit.caller.subscriber_id, visit.gateway, visit.caller)
        rows = [known for known in rows if may_have(tuple(owner["event_types"]), known.name)]
    return visit.show("catalogue.html", "Catalogue", rows=rows)


@page("/catalogue/new", Scope.ADMIN, whole_tenant=True)
async def new(visit: Visit) -> Response:
    return visit.show("event_type_form.html", "New event type", known=None)


@action("/catalogue/new", Scope.ADMIN, whole_tenant=True, form=new)
async def create(visit: Visit) -> Response:
    body = NewEventType.model_validate({"name": visit.form.get("name", ""), **_given(visit)})
    made = await event_types.create(body, visit.gateway, visit.caller)
    return visit.go(f"/catalogue/{made['name']}", "event_type")


@page("/catalogue/{name}", by=Capability.VIEW)
async def one(visit: Visit, name: str) -> Response:
    gets: list[Any] = []
    async with visit.reading() as connection:
        found = await known_type(connection, visit.gateway.catalogue, visit.caller.tenant_id, name)
        known = granted(found or NotFound.EVENT_TYPE)
        if visit.may(Scope.ENDPOINTS_READ):
            tenant_id, theirs = visit.caller.tenant_id, visit.caller.subscriber_id
            rows = await endpoints.page(
                connection, tenant_id, subscriber_id=theirs, state=None, before=None, limit=MOST
            )
            rows = [row for row in rows if may_have(types_of(row), name)]
            about = await endpoints.called(connection, tenant_id, [row["id"] for row in rows])
            gets = [(row, about[row["id"]]) for row in rows]
    thin = example_of(known, view_of(THIN))
    return visit.show("event_type.html", name, known=known, gets=gets, thin=thin, base=visit.address)


@page("/catalogue/{name}/edit", Scope.ADMIN, whole_tenant=True)
async def edit(visit: Visit, name: str) -> Response:
    known = await event_types.one(name, visit.gateway, visit.caller)
    if known["source"] != "tenant":
        raise refused(Conflict.EVENT_TYPE_SHIPPED)
    return visit.show("event_type_form.html", f"Change {name}", known=known)


@action("/catalogue/{name}/edit", Scope.ADMIN, whole_tenant=True, form=edit)
async def change(visit: Visit, name: str) -> Response:
    known = await event_types.one(name, visit.gateway, visit.caller)
    changes = {member: value for member, value in _given(visit).items() if value != known[member]}
    await event_types.change_one(name, EventTypeChanges.model_validate(changes), visit.gateway, visit.caller)
    return visit.go(f"/catalogue/{name}", "changed")


@action("/catalogue/{name}/delete", Scope.ADMIN, whole_tenant=True, form=one)
async def delete(visit: Visit, name: str) -> Response:
    visit.expect_typed(name)
    await event_types.delete(name, visit.gateway, visit.caller)
    return visit.go("/catalogue", "deleted")


def _given(visit: Visit) -> dict[str, Any]:
    """What the form says of a type, but for its name, as the API takes it."""
    form = visit.form
    return {
        "description": form.get("description", ""),
        "schema": form.json("schema"),
        "example": form.json("example"),
        "ordering_key": form.get("ordering_key") or None,
        "thin": form.lines("thin"),
        "patient": form.lines("patient"),
    }
