"""Partner organisations: who they are, what each may have, and where it goes."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from starlette.responses import Response

from webhook_gateway.operations import subscribers as operations
from webhook_gateway.operations.refusals import Conflict
from webhook_gateway.rules import ids
from webhook_gateway.rules.matching import OPERATIONAL
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import sessions
from webhook_gateway.store import subscribers as stored
from webhook_gateway.web.api import endpoints, subscribers
from webhook_gateway.web.api.dependencies import page_of
from webhook_gateway.web.api.schemas.endpoints import EndpointQuery
from webhook_gateway.web.api.schemas.shapes import Paging
from webhook_gateway.web.api.schemas.subscribers import NewSubscriber, SubscriberChanges
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page
from webhook_gateway.web.errors import granted, not_found

MOST_ENDPOINTS = MOST_LINKS = 200


@page("/partners", Scope.ENDPOINTS_READ, by=Capability.VIEW)
async def every(visit: Visit) -> Response:
    if visit.is_portal and visit.caller.subscriber_id is not None:
        return visit.go(f"/partners/{ids.render(ids.SUBSCRIBER, visit.caller.subscriber_id)}")
    query = Paging(cursor=visit.asked("cursor"), limit=PER_PAGE)
    named = visit.asked("among")
    try:
        among = None if named is None else [ids.parse(ids.SUBSCRIBER, one) for one in named.split(",")]
    except ids.NotAnId:
        raise not_found("partner") from None
    fetch = partial(stored.page, tenant_id=visit.caller.tenant_id, only=visit.caller.subscriber_id, among=among)
    found = await page_of(visit.gateway, query, fetch, show=subscribers.shown)
    theirs = await endpoints.every(EndpointQuery(limit=MOST_ENDPOINTS), visit.gateway, visit.caller)
    of_each: dict[UUID, list[Any]] = {}
    for row in theirs["items"]:
        of_each.setdefault(row["subscriber_id"], []).append(row)
    context = {"rows": found["items"], "cursor": found["next_cursor"], "of_each": of_each}
    return visit.show("partners.html", "Partners", among=among, most=PER_PAGE, **context)


@page("/partners/new", Scope.ENDPOINTS_WRITE, whole_tenant=True)
async def new(visit: Visit) -> Response:
    given = {"content": {"level": "thin", "subject": False}, "event_types": []}
    return visit.show("partner_form.html", "New partner", row=given, kinds=_kinds(visit), taken=await _taken(visit))


@action("/partners/new", Scope.ENDPOINTS_WRITE, whole_tenant=True, form=new)
async def create(visit: Visit) -> Response:
    body = NewSubscriber.model_validate(_given(visit))
    async with visit.changing() as change:
        row = granted(await operations.create(change, visit.gateway.catalogue, body.model_dump()))
    return visit.go(f"/partners/{ids.render(ids.SUBSCRIBER, row['id'])}/endpoints/new", "partner")


@page("/partners/{subscriber_id}", Scope.ENDPOINTS_READ, by=Capability.VIEW)
async def one(visit: Visit, subscriber_id: UUID) -> Response:
    row = await subscribers.one(subscriber_id, visit.gateway, visit.caller)
    query = EndpointQuery(subscriber_id=subscriber_id, limit=MOST_ENDPOINTS)
    found = await endpoints.every(query, visit.gateway, visit.caller)
    context: dict[str, Any] = {"row": row, "endpoints": found["items"], "links": [], "capabilities": list(Capability)}
    if visit.may(Scope.ADMIN, whole_tenant=True):
        async with visit.reading() as connection:
            bound = connection, visit.caller.tenant_id, subscriber_id
            context["links"] = await sessions.links(*bound, live=True, limit=MOST_LINKS)
    return visit.show("partner.html", row["name"], **context)


@page("/partners/{subscriber_id}/edit", Scope.ENDPOINTS_WRITE, whole_tenant=True)
async def edit(visit: Visit, subscriber_id: UUID) -> Response:
    row = await subscribers.one(subscriber_id, visit.gateway, visit.caller)
    title, taken = f"Change {row['name']}", await _taken(visit)
    return visit.show("partner_form.html", title, row=row, kinds=_kinds(visit), taken=taken)


@action("/partners/{subscriber_id}/edit", Scope.ENDPOINTS_WRITE, whole_tenant=True, form=edit)
async def change(visit: Visit, subscriber_id: UUID) -> Response:
    row = await subscribers.one(subscriber_id, visit.gateway, visit.caller)
    given = _given(visit)
    changes = {name: value for name, value in given.items() if not _is_same(value, row[name])}
    body = SubscriberChanges.model_validate({**changes, "cancel_open": "cancel_open" in visit.form})
    await subscribers.change_one(subscriber_id, body, visit.gateway, visit.caller)
    return visit.go(f"/partners/{ids.render(ids.SUBSCRIBER, subscriber_id)}", "changed")


@action("/partners/{subscriber_id}/delete", Scope.ENDPOINTS_WRITE, whole_tenant=True, form=one)
async def delete(visit: Visit, subscriber_id: UUID) -> Response:
    row = await subscribers.one(subscriber_id, visit.gateway, visit.caller)
    visit.expect_typed(row["name"])
    await subscribers.delete(subscriber_id, visit.gateway, visit.caller, force=True)
    return visit.go("/partners", "deleted")


def _given(visit: Visit) -> dict[str, Any]:
    form = visit.form
    return {
        "name": form.get("name", ""),
        "external_id": form.get("external_id") or None,
        "description": form.get("description", ""),
        "event_types": form.event_types(),
        "content": form.content() or {"level": "thin"},
    }


async def _taken(visit: Visit) -> Any:
    """Who has the name, or the external id, that the form was refused for."""
    columns = {Conflict.SUBSCRIBER_NAME_TAKEN.value: "name", Conflict.EXTERNAL_ID_TAKEN.value: "external_id"}
    if visit.problem is None or (column := columns.get(visit.problem.detail)) is None:
        return None
    async with visit.reading() as connection:
        return await stored.holder(connection, visit.caller.tenant_id, column, visit.form.get(column, ""))


def _is_same(given: Any, shown: Any) -> bool:
    if isinstance(given, dict):
        return all(shown.get(name) == value for name, value in given.items())
    return bool(given == shown)


def _kinds(visit: Visit) -> list[str]:
    """Patterns for what the catalogue has, by what comes before the last word."""
    names = [known.name for known in visit.gateway.catalogue.all(visit.caller.tenant_id)]
    return sorted({name.rpartition(".")[0] + ".*" for name in names if not name.startswith(OPERATIONAL)})
