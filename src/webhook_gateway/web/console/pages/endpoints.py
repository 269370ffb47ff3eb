"""Endpoints: what one gets and how it is; testing, pausing, resuming, changing it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from starlette.responses import Response

from webhook_gateway.operations import content
from webhook_gateway.operations.refusals import Refusal
from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import fits
from webhook_gateway.rules.model import Ordering, Signing
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import endpoints as stored
from webhook_gateway.store import lists, reports
from webhook_gateway.web.api import endpoint_lifecycle, endpoints, stats, subscribers
from webhook_gateway.web.api.schemas.endpoint_lifecycle import Pause, TestSend
from webhook_gateway.web.api.schemas.endpoints import EndpointChanges, NewEndpoint
from webhook_gateway.web.api.schemas.signing import Rotation
from webhook_gateway.web.console.frame import Visit, action, page
from webhook_gateway.web.errors import invalid

RECENT = 10
TESTED_WITHIN = 8
"""Seconds for which the result of a test is waited for, before its delivery is shown as it is."""


@page("/partners/{subscriber_id}/endpoints/new", Scope.ENDPOINTS_WRITE)
async def new(visit: Visit, subscriber_id: UUID) -> Response:
    owner = await subscribers.one(subscriber_id, visit.gateway, visit.caller)
    row: dict[str, Any] = {
        "url": "",
        "description": "",
        "event_types": None,
        "content": None,
        "filter": None,
        "maintenance": None,
    }
    row |= {"ordering": Ordering.RELAXED, "slots": 10, "rate": None, "deadline": 15.0}
    context = {"row": row, "owner": owner, "preview": None, "signings": list(Signing)}
    return visit.show("endpoint_form.html", f"New endpoint of {owner['name']}", orderings=list(Ordering), **context)


@action("/partners/{subscriber_id}/endpoints/new", Scope.ENDPOINTS_WRITE, form=new)
async def create(visit: Visit, subscriber_id: UUID) -> Response:
    given = {**_given(visit), "subscriber_id": subscriber_id, "signing": visit.form.get("signing", Signing.HMAC)}
    if own := visit.form.get("secret"):
        given["secret"] = own
    made = await endpoints.create(NewEndpoint.model_validate(given), visit.gateway, visit.caller)
    return visit.show("secret.html", "Endpoint made", 201, made=made, endpoint_id=made["id"])


@page("/endpoints/{endpoint_id}", Scope.ENDPOINTS_READ)
async def one(visit: Visit, endpoint_id: UUID) -> Response:
    row = await endpoints.one(endpoint_id, visit.gateway, visit.caller)
    owner = await subscribers.one(row["subscriber_id"], visit.gateway, visit.caller)
    names = [known.name for known in visit.gateway.catalogue.all(visit.caller.tenant_id)]
    gets = [name for name in names if any(fits(pattern, name) for pattern in row["effective_event_types"])]
    recent: list[Any] = []
    async with visit.reading() as connection:
        wanted = reports.Filter(visit.caller.tenant_id, visit.caller.subscriber_id, endpoint_id=endpoint_id)
        unfiltered = visit.caller.subscriber_id is None
        held = await stored.held_page(connection, endpoint_id, after=None, limit=RECENT, unfiltered=unfiltered)
        if visit.may(Scope.DELIVERIES_READ):
            recent, _ = await lists.deliveries_page(connection, wanted, before=None, limit=RECENT)
    context = {"row": row, "owner": owner, "gets": gets, "held": held, "recent": recent, "day": None}
    if visit.may(Scope.DELIVERIES_READ):
        context["day"] = await stats.of_endpoint(endpoint_id, visit.gateway, visit.caller, "24h")
    return visit.show("endpoint.html", f"Endpoint of {owner['name']}", **context)


@page("/endpoints/{endpoint_id}/edit", Scope.ENDPOINTS_WRITE)
async def edit(visit: Visit, endpoint_id: UUID, preview: str | None = None) -> Response:
    row = await endpoints.one(endpoint_id, visit.gateway, visit.caller)
    owner = await subscribers.one(row["subscriber_id"], visit.gateway, visit.caller)
    context = {"row": row, "owner": owner, "preview": preview, "orderings": list(Ordering)}
    return visit.show("endpoint_form.html", f"Change endpoint of {owner['name']}", **context)


@action("/endpoints/{endpoint_id}/edit", Scope.ENDPOINTS_WRITE, form=edit)
async def change(visit: Visit, endpoint_id: UUID) -> Response:
    given = _given(visit)
    if visit.form.get("do") == "preview":
        return await edit(visit, endpoint_id, preview=await _preview(visit, endpoint_id, given))
    row = await endpoints.one(endpoint_id, visit.gateway, visit.caller)
    changes = {name: value for name, value in given.items() if value != row[name]}
    body = EndpointChanges.model_validate({**changes, "cancel_open": "cancel_open" in visit.form})
    await endpoints.change_one(endpoint_id, body, visit.gateway, visit.caller)
    return visit.go(f"/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}", "changed")


@page("/endpoints/{endpoint_id}/preview", Scope.ENDPOINTS_READ)
async def preview(visit: Visit, endpoint_id: UUID) -> Response:
    answer = await endpoints.preview(endpoint_id, visit.gateway, visit.caller, visit.asked("type"))
    context: dict[str, Any] = {"body": bytes(answer.body), "endpoint_id": endpoint_id, "type": visit.asked("type")}
    return visit.show("preview.html", "What the partner would get", **context)


@action("/endpoints/{endpoint_id}/pause", Scope.DELIVERIES_WRITE, form=one)
async def pause(visit: Visit, endpoint_id: UUID) -> Response:
    body = Pause.model_validate({"reason": visit.form.get("reason") or None})
    await endpoint_lifecycle.pause(endpoint_id, visit.gateway, visit.caller, body)
    return visit.go(f"/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}", "paused")


@action("/endpoints/{endpoint_id}/resume", Scope.DELIVERIES_WRITE, form=one)
async def resume(visit: Visit, endpoint_id: UUID) -> Response:
    await endpoint_lifecycle.resume(endpoint_id, visit.gateway, visit.caller)
    return visit.go(f"/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}", "resumed")


@action("/endpoints/{endpoint_id}/test", Scope.DELIVERIES_WRITE, form=one)
async def test(visit: Visit, endpoint_id: UUID) -> Response:
    body = TestSend.model_validate({"event_type": visit.form.get("event_type") or None})
    sent = await endpoint_lifecycle.send_test(endpoint_id, visit.gateway, visit.caller, Response(), body, TESTED_WITHIN)
    return visit.go(f"/deliveries/{ids.render(ids.DELIVERY, sent['id'])}", "tested")


@action("/endpoints/{endpoint_id}/rotate", Scope.ENDPOINTS_WRITE, form=one)
async def rotate(visit: Visit, endpoint_id: UUID) -> Response:
    hours = visit.form.number("overlap_hours")
    body = Rotation.model_validate({"overlap_seconds": int(3_600 * (24 if hours is None else hours))})
    made = await endpoints.rotate_secret(endpoint_id, visit.gateway, visit.caller, body)
    return visit.show("secret.html", "Secret rotated", made=made, endpoint_id=endpoint_id)


@action("/endpoints/{endpoint_id}/delete", Scope.ENDPOINTS_WRITE, form=one)
async def delete(visit: Visit, endpoint_id: UUID) -> Response:
    visit.expect_typed("delete")
    await endpoints.delete(endpoint_id, visit.gateway, visit.caller)
    return visit.go("/partners", "deleted")


def _given(visit: Visit) -> dict[str, Any]:
    """What the form says of an endpoint, as the API takes it."""
    form = visit.form
    window = {"from": visit.moment("maintenance_from"), "until": visit.moment("maintenance_until")}
    given = {
        "url": form.get("url", ""),
        "description": form.get("description", ""),
        "event_types": list(dict.fromkeys(form.lines("event_types"))) or None,
        "content": form.content(),
        "ordering": form.get("ordering", Ordering.RELAXED),
        "slots": form.number("slots"),
        "rate": form.number("rate"),
        "deadline": form.number("deadline"),
        "maintenance": window if any(window.values()) else None,
    }
    if visit.caller.subscriber_id is None:
        given["filter"] = form.json("filter")
    return given


async def _preview(visit: Visit, endpoint_id: UUID, given: dict[str, Any]) -> str:
    """What the partner would get if the form were saved; nothing is."""
    checked = EndpointChanges.model_validate({name: given[name] for name in ("event_types", "content")}).model_dump()
    async with visit.reading() as connection:
        row = await stored.get(
            connection, visit.caller.tenant_id, endpoint_id, subscriber_id=visit.caller.subscriber_id
        )
        assert row is not None
        would_be: Any = {**row, "content": checked["content"], "event_types": checked["event_types"] or []}
        body = await content.preview(connection, visit.gateway.catalogue, visit.caller, would_be, None)
    if isinstance(body, Refusal):
        raise invalid(Fault("event_types", "It would get no type that there is.", pointer="/event_types"))
    return body.decode()
