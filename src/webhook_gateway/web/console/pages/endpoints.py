"""Endpoints: what one gets and how it is; testing, pausing, resuming, changing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from starlette.responses import Response

from webhook_gateway.operations import content, stats
from webhook_gateway.operations.refusals import Refusal
from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import fits
from webhook_gateway.rules.model import Ordering, Signing
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import endpoints as stored
from webhook_gateway.store import lists, reports
from webhook_gateway.web.api import contract as openapi
from webhook_gateway.web.api import endpoint_lifecycle, endpoints, subscribers
from webhook_gateway.web.api.schemas.endpoint_lifecycle import Pause, TestSend
from webhook_gateway.web.api.schemas.endpoints import EndpointChanges, FilterPreview, NewEndpoint
from webhook_gateway.web.api.schemas.signing import Rotation
from webhook_gateway.web.console.frame import Visit, action, page
from webhook_gateway.web.errors import granted, invalid

RECENT = 10
KEPT = "If you have not kept the secret, rotate it at the endpoint."
TRIES = ("preview", "filter")
"""What the form is asked to tell before anything is saved."""
TESTED_WITHIN = 8
"""Seconds for which the result of a test is waited for, before its delivery is shown as it is."""


@page("/partners/{subscriber_id}/endpoints/new", Scope.ENDPOINTS_WRITE, by=Capability.ENDPOINT)
async def new(visit: Visit, subscriber_id: UUID, **tried: Any) -> Response:
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
    context = {"row": row, "owner": owner, "orderings": list(Ordering)}
    return visit.show("endpoint_form.html", f"New endpoint of {owner['name']}", **context, tried=tried)


@action("/partners/{subscriber_id}/endpoints/new", Scope.ENDPOINTS_WRITE, form=new, by=Capability.ENDPOINT, once=KEPT)
async def create(visit: Visit, subscriber_id: UUID) -> Response:
    owner = await subscribers.one(subscriber_id, visit.gateway, visit.caller)
    if visit.form.get("do") in TRIES:
        permitted = {"permitted_types": owner["event_types"], "permitted_content": owner["content"]}
        return await new(visit, subscriber_id, **await _tried(visit, permitted, None))
    given = {**_given(visit), "subscriber_id": subscriber_id, "signing": visit.form.get("signing", Signing.HMAC)}
    if own := visit.form.get("secret"):
        given["secret"] = own
    made = await endpoints.create(NewEndpoint.model_validate(given), visit.gateway, visit.caller)
    return visit.show("secret.html", f"Endpoint made for {owner['name']}", 201, made=made, row=made, owner=owner)


@page("/endpoints/{endpoint_id}", Scope.ENDPOINTS_READ, by=Capability.VIEW)
async def one(visit: Visit, endpoint_id: UUID, tried: Any = None) -> Response:
    row = await endpoints.one(endpoint_id, visit.gateway, visit.caller)
    owner = await subscribers.one(row["subscriber_id"], visit.gateway, visit.caller)
    gets = _gets(visit, row["effective_event_types"])
    async with visit.reading() as connection:
        wanted = reports.Filter(visit.caller.tenant_id, visit.caller.subscriber_id, endpoint_id=endpoint_id)
        unfiltered = visit.caller.subscriber_id is None
        held = await stored.held_page(connection, endpoint_id, after=None, limit=RECENT, unfiltered=unfiltered)
        context = {"row": row, "owner": owner, "gets": gets, "held": held, "recent": [], "day": None, "tried": tried}
        if visit.may(Scope.DELIVERIES_READ):
            context["recent"], _ = await lists.deliveries_page(connection, wanted, before=None, limit=RECENT)
            context["day"] = granted(await stats.of_endpoint(connection, visit.caller, endpoint_id, "24h"))
            context["problems"] = await stats.problems(connection, visit.caller, endpoint_id)
    return visit.show("endpoint.html", f"Endpoint of {owner['name']}", **context)


@page("/endpoints/{endpoint_id}/edit", Scope.ENDPOINTS_WRITE, by=Capability.ENDPOINT)
async def edit(visit: Visit, endpoint_id: UUID, **tried: Any) -> Response:
    row = await endpoints.one(endpoint_id, visit.gateway, visit.caller)
    owner = await subscribers.one(row["subscriber_id"], visit.gateway, visit.caller)
    context = {"row": row, "owner": owner, "orderings": list(Ordering)}
    return visit.show("endpoint_form.html", f"Change endpoint of {owner['name']}", **context, tried=tried)


@action("/endpoints/{endpoint_id}/edit", Scope.ENDPOINTS_WRITE, form=edit, by=Capability.ENDPOINT)
async def change(visit: Visit, endpoint_id: UUID) -> Response:
    row = await endpoints.one(endpoint_id, visit.gateway, visit.caller)
    if visit.form.get("do") in TRIES:
        return await edit(visit, endpoint_id, **await _tried(visit, row, endpoint_id))
    changes = {name: value for name, value in _given(visit).items() if value != row[name]}
    body = EndpointChanges.model_validate({**changes, "cancel_open": "cancel_open" in visit.form})
    await endpoints.change_one(endpoint_id, body, visit.gateway, visit.caller)
    return visit.go(f"/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}", "changed")


@page("/endpoints/{endpoint_id}/preview", Scope.ENDPOINTS_READ, by=Capability.VIEW)
async def preview(visit: Visit, endpoint_id: UUID) -> Response:
    row = await endpoints.one(endpoint_id, visit.gateway, visit.caller)
    answer = await endpoints.preview(endpoint_id, visit.gateway, visit.caller, visit.asked("type"))
    gets = _gets(visit, row["effective_event_types"])
    context: dict[str, Any] = {"body": bytes(answer.body), "endpoint_id": endpoint_id, "gets": gets}
    return visit.show("preview.html", "What the partner would get", **context)


@page("/endpoints/{endpoint_id}/contract", Scope.ENDPOINTS_READ, by=Capability.VIEW)
async def contract(visit: Visit, endpoint_id: UUID) -> Response:
    told = await openapi.contract(endpoint_id, visit.gateway, visit.caller)
    title = f"Contract of {ids.render(ids.ENDPOINT, endpoint_id)}"
    return visit.show("contract.html", title, told=told, endpoint_id=endpoint_id)


@action("/endpoints/{endpoint_id}/filter", Scope.PAYLOAD_READ, whole_tenant=True, form=one)
async def try_filter(visit: Visit, endpoint_id: UUID) -> Response:
    visit.caller.need(Scope.ENDPOINTS_READ)  # the page shows the endpoint
    return await one(visit, endpoint_id, await _matching(visit, endpoint_id))


@action("/endpoints/{endpoint_id}/pause", Scope.DELIVERIES_WRITE, form=one, by=Capability.ENDPOINT)
async def pause(visit: Visit, endpoint_id: UUID) -> Response:
    body = Pause.model_validate({"reason": visit.form.get("reason") or None})
    await endpoint_lifecycle.pause(endpoint_id, visit.gateway, visit.caller, body)
    return visit.go(f"/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}", "paused")


@action("/endpoints/{endpoint_id}/resume", Scope.DELIVERIES_WRITE, form=one, by=Capability.ENDPOINT)
async def resume(visit: Visit, endpoint_id: UUID) -> Response:
    await endpoint_lifecycle.resume(endpoint_id, visit.gateway, visit.caller)
    return visit.go(f"/endpoints/{ids.render(ids.ENDPOINT, endpoint_id)}", "resumed")


@action("/endpoints/{endpoint_id}/test", Scope.DELIVERIES_WRITE, form=one, by=Capability.TEST)
async def test(visit: Visit, endpoint_id: UUID) -> Response:
    body = TestSend.model_validate({"event_type": visit.form.get("event_type") or None})
    sent = await endpoint_lifecycle.send_test(endpoint_id, visit.gateway, visit.caller, Response(), body, TESTED_WITHIN)
    attempt = sent["attempt"]
    said = "testing" if attempt is None else "tested" if attempt["outcome"] == "accepted" else None
    return visit.go(f"/deliveries/{ids.render(ids.DELIVERY, sent['id'])}", said)


@action("/endpoints/{endpoint_id}/rotate", Scope.ENDPOINTS_WRITE, form=one, by=Capability.SECRET, once=KEPT)
async def rotate(visit: Visit, endpoint_id: UUID) -> Response:
    hours = visit.form.number("overlap_hours")
    body = Rotation.model_validate({"overlap_seconds": int(3_600 * (24 if hours is None else hours))})
    row = await endpoints.one(endpoint_id, visit.gateway, visit.caller)
    owner = await subscribers.one(row["subscriber_id"], visit.gateway, visit.caller)
    made = await endpoints.rotate_secret(endpoint_id, visit.gateway, visit.caller, body)
    return visit.show("secret.html", f"Secret rotated for {owner['name']}", made=made, row=row, owner=owner)


@action("/endpoints/{endpoint_id}/delete", Scope.ENDPOINTS_WRITE, form=one, by=Capability.ENDPOINT)
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
        "event_types": form.event_types() or None,
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


def _gets(visit: Visit, patterns: Sequence[str]) -> list[str]:
    names = (known.name for known in visit.gateway.catalogue.all(visit.caller.tenant_id))
    return [name for name in names if any(fits(pattern, name) for pattern in patterns)]


async def _tried(visit: Visit, row: Mapping[str, Any], endpoint_id: UUID | None) -> dict[str, Any]:
    """What the form would mean if it were saved; nothing is."""
    if visit.form.get("do") == "filter":
        return {"matching": await _matching(visit, endpoint_id)}
    given = {name: value for name, value in _given(visit).items() if name in ("event_types", "content")}
    checked = EndpointChanges.model_validate(given).model_dump()
    would_be: Any = {**row, "content": checked["content"], "event_types": checked["event_types"] or []}
    async with visit.reading() as connection:
        body = await content.preview(connection, visit.gateway.catalogue, visit.caller, would_be, None)
    if isinstance(body, Refusal):
        raise invalid(Fault("event_types", "It would get no type that there is.", pointer="/event_types"))
    return {"preview": body.decode()}


async def _matching(visit: Visit, endpoint_id: UUID | None) -> Any:
    """How many of the latest events the form's filter would let through."""
    asked = {"filter": visit.form.json("filter"), "event_types": visit.form.event_types() or None}
    body = FilterPreview.model_validate(asked)
    visit.caller.need(Scope.PAYLOAD_READ)
    if endpoint_id is None:
        return await endpoints.preview_of_none(body, visit.gateway, visit.caller)
    return await endpoints.preview_filter(endpoint_id, body, visit.gateway, visit.caller)
