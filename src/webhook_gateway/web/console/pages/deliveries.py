"""Deliveries: which there are, what became of one, and doing it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from webhook_gateway.operations import content
from webhook_gateway.operations import deliveries as operations
from webhook_gateway.rules import ids, remedies
from webhook_gateway.rules.model import DeliveryState
from webhook_gateway.rules.scopes import Capability, Scope
from webhook_gateway.store import endpoints, lists, reports
from webhook_gateway.web.api import deliveries as api
from webhook_gateway.web.api.dependencies import next_page, read_cursor
from webhook_gateway.web.api.event_reports import read_payload
from webhook_gateway.web.api.schemas.deliveries import Cancelling, DeliveryQuery
from webhook_gateway.web.console import many
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page
from webhook_gateway.web.errors import Problem, granted


@page("/deliveries", Scope.DELIVERIES_READ, by=Capability.VIEW)
async def every(visit: Visit) -> Response:
    names = ("endpoint_id", "event_id", "type", "state")
    query = DeliveryQuery.model_validate({name: visit.asked(name) for name in names})
    asked = query.model_dump(exclude={"cursor", "limit"}) | {name: visit.moment(name) for name in ("since", "until")}
    subscriber_id = subscriber_asked(visit)
    wanted = reports.Filter(visit.caller.tenant_id, visit.caller.subscriber_id or subscriber_id, **asked)
    async with visit.reading() as connection:
        found, reached = await lists.deliveries_page(
            connection, wanted, before=read_cursor(visit.asked("cursor")), limit=PER_PAGE + 1
        )
        rows, cursor = next_page(found, PER_PAGE, lambda row: row["id"], reached)
        about = await endpoints.called(connection, visit.caller.tenant_id, {row["endpoint_id"] for row in rows})
        context: dict[str, Any] = {} if visit.is_poll else await many.offered(connection, visit)
    context |= {"rows": rows, "cursor": cursor, "about": about, "states": list(DeliveryState)}
    return visit.show("deliveries.html", "Deliveries", wanted=wanted, **context)


@page("/deliveries/cancel", Scope.DELIVERIES_WRITE, by=Capability.REPLAY)
async def cancel_form(visit: Visit, found: dict[str, Any] | None = None) -> Response:
    return await many.show(visit, "cancel", "Give deliveries up", found)


@action("/deliveries/cancel", Scope.DELIVERIES_WRITE, form=cancel_form, by=Capability.REPLAY)
async def cancel_many(visit: Visit) -> Response:
    given, unsure = many.given(visit, "endpoint_id", "subscriber_id", "type"), many.unsure(visit)
    body = Cancelling.model_validate({**given, "dry_run": unsure is not None})
    found = await api.cancel_many(body, visit.gateway, visit.caller)
    return visit.go("/deliveries", "many") if unsure is None else await cancel_form(unsure, found)


@page("/deliveries/{delivery_id}", Scope.DELIVERIES_READ, by=Capability.VIEW)
async def one(visit: Visit, delivery_id: UUID) -> Response:
    row = await api.one(delivery_id, visit.gateway, visit.caller)
    async with visit.reading() as connection:
        context = await _around(connection, visit, row)
    title = f"Delivery {ids.render(ids.DELIVERY, delivery_id)}"
    return visit.show("delivery.html", title, row=row, **context)


@action("/deliveries/{delivery_id}/replay", Scope.DELIVERIES_WRITE, form=one, by=Capability.REPLAY)
async def replay(visit: Visit, delivery_id: UUID) -> Response:
    async with visit.changing() as change:
        queued = granted(await operations.replay(change, delivery_id))
    return visit.go(f"/deliveries/{ids.render(ids.DELIVERY, queued['id'])}", "replayed")


@action("/deliveries/{delivery_id}/cancel", Scope.DELIVERIES_WRITE, form=one, by=Capability.REPLAY)
async def cancel(visit: Visit, delivery_id: UUID) -> Response:
    async with visit.changing() as change:
        granted(await operations.cancel(change, delivery_id))
    return visit.go(f"/deliveries/{ids.render(ids.DELIVERY, delivery_id)}", "cancelled")


@action("/deliveries/{delivery_id}/try-now", Scope.DELIVERIES_WRITE, form=one, by=Capability.REPLAY)
async def try_now(visit: Visit, delivery_id: UUID) -> Response:
    async with visit.changing() as change:
        granted(await operations.try_now(change, delivery_id))
    return visit.go(f"/deliveries/{ids.render(ids.DELIVERY, delivery_id)}", "tried")


@action("/deliveries/{delivery_id}/responses", Scope.PAYLOAD_READ, form=one)
async def answers(visit: Visit, delivery_id: UUID) -> Response:
    found = await api.responses(delivery_id, visit.gateway, visit.caller)
    return visit.show("answers.html", "What the partner answered", delivery_id=delivery_id, rows=found["items"])


@action("/deliveries/{delivery_id}/sent", Scope.PAYLOAD_READ, form=one)
async def sent(visit: Visit, delivery_id: UUID) -> Response:
    reason = visit.reason()
    async with visit.reading() as connection:
        row = granted(await operations.find(connection, visit.caller, delivery_id))
    body = await read_payload(visit.gateway, visit.caller, row["event_id"], reason)
    async with visit.reading() as connection:
        found = await content.sent(connection, visit.gateway.vault, visit.gateway.catalogue, visit.caller, row, body)
        about = await endpoints.called(connection, visit.caller.tenant_id, [row["endpoint_id"]])
    command = _curl(about[row["endpoint_id"]]["url"], row, found)
    return visit.show("sent.html", "What was sent", row=row, found=found, command=command, about=about)


def subscriber_asked(visit: Visit) -> UUID | None:
    """
    Raises:
        Problem: 404.
    """
    text = visit.asked("subscriber_id")
    try:
        return None if text is None else ids.parse(ids.SUBSCRIBER, text)
    except ids.NotAnId:
        raise Problem(404, "not-found", "There is no such partner.") from None


def _curl(url: str, row: dict[str, Any], found: content.Sent) -> str:
    """The request, but for what is secret: the URL's query, custom headers, and what signs."""
    at = int(found.at.timestamp()) if found.at else "$(date +%s)"
    named = {"content-type": "application/json", "webhook-id": ids.render(ids.EVENT, row["event_id"])}
    if row["reason"] == "test":
        named["webhook-test"] = "true"
    headers = [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in named.items()]
    headers += [f'-H "webhook-timestamp: {at}"', '-H "webhook-signature: $SIGNATURE"']
    return " ".join(["curl", shlex.quote(url), *headers, "--data-binary", shlex.quote(found.body.decode())])


async def _around(connection: AsyncConnection, visit: Visit, row: dict[str, Any]) -> dict[str, Any]:
    """What stands around a delivery: its endpoint, its event, and the other deliveries of that."""
    tenant_id, subscriber_id = visit.caller.tenant_id, visit.caller.subscriber_id
    event = await reports.event(connection, tenant_id, row["event_id"])
    wanted = reports.Filter(tenant_id, subscriber_id, event_id=row["event_id"])
    others, _ = await lists.deliveries_page(connection, wanted, before=None, limit=PER_PAGE)
    shown: Iterable[UUID] = {row["endpoint_id"], *(other["endpoint_id"] for other in others)}
    about = await endpoints.called(connection, tenant_id, shown)
    others = [other for other in others if other["id"] != row["id"]]
    return {"event": event, "about": about, "others": others, "remedy": await _remedy(connection, visit, row)}


async def _remedy(connection: AsyncConnection, visit: Visit, row: dict[str, Any]) -> str | None:
    """What helps an operator, unless it has arrived, was given up or goes out again."""
    if (
        visit.is_portal
        or not row["attempts"]
        or row["state"] not in ("pending", "dead")
        or row["replayed_as"] is not None
    ):
        return None
    met, secrets = row["attempts"][-1], await endpoints.secrets_of(connection, [row["endpoint_id"]])
    secret_from = visit.zone.show(secrets[0]["created_at"]) if secrets else None
    return remedies.after(met["outcome"], met["status"], met["detail"], secret_from)
