"""Deliveries: which there are, what became of one, and doing it again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from webhook_gateway.operations import deliveries as operations
from webhook_gateway.rules import ids
from webhook_gateway.rules.model import DeliveryState
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import endpoints, lists, reports
from webhook_gateway.web.api.deliveries import one as delivery
from webhook_gateway.web.api.deliveries import responses
from webhook_gateway.web.api.dependencies import next_page, read_cursor
from webhook_gateway.web.api.schemas.deliveries import DeliveryQuery
from webhook_gateway.web.console.frame import PER_PAGE, Visit, action, page
from webhook_gateway.web.errors import Problem, granted


@page("/deliveries", Scope.DELIVERIES_READ)
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
        choice = await endpoints.called(connection, visit.caller.tenant_id, subscriber_id=visit.caller.subscriber_id)
    context: dict[str, Any] = {
        "rows": rows,
        "cursor": cursor,
        "about": about,
        "choice": choice,
        "states": list(DeliveryState),
    }
    return visit.show("deliveries.html", "Deliveries", wanted=wanted, **context)


@page("/deliveries/{delivery_id}", Scope.DELIVERIES_READ)
async def one(visit: Visit, delivery_id: UUID) -> Response:
    row = await delivery(delivery_id, visit.gateway, visit.caller)
    async with visit.reading() as connection:
        context = await _around(connection, visit, row)
    title = f"Delivery {ids.render(ids.DELIVERY, delivery_id)}"
    return visit.show("delivery.html", title, row=row, base=visit.address, **context)


@action("/deliveries/{delivery_id}/replay", Scope.DELIVERIES_WRITE, form=one)
async def replay(visit: Visit, delivery_id: UUID) -> Response:
    async with visit.changing() as change:
        queued = granted(await operations.replay(change, delivery_id))
    return visit.go(f"/deliveries/{ids.render(ids.DELIVERY, queued['id'])}", "replayed")


@action("/deliveries/{delivery_id}/cancel", Scope.DELIVERIES_WRITE, form=one)
async def cancel(visit: Visit, delivery_id: UUID) -> Response:
    async with visit.changing() as change:
        granted(await operations.cancel(change, delivery_id))
    return visit.go(f"/deliveries/{ids.render(ids.DELIVERY, delivery_id)}", "cancelled")


@action("/deliveries/{delivery_id}/try-now", Scope.DELIVERIES_WRITE, form=one)
async def try_now(visit: Visit, delivery_id: UUID) -> Response:
    async with visit.changing() as change:
        granted(await operations.try_now(change, delivery_id))
    return visit.go(f"/deliveries/{ids.render(ids.DELIVERY, delivery_id)}", "tried")


@action("/deliveries/{delivery_id}/responses", Scope.PAYLOAD_READ, form=one)
async def answers(visit: Visit, delivery_id: UUID) -> Response:
    found = await responses(delivery_id, visit.gateway, visit.caller)
    return visit.show("answers.html", "What the partner answered", delivery_id=delivery_id, rows=found["items"])


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


async def _around(connection: AsyncConnection, visit: Visit, row: dict[str, Any]) -> dict[str, Any]:
    """What stands around a delivery: its endpoint, its event, and the other deliveries of that."""
    tenant_id, subscriber_id = visit.caller.tenant_id, visit.caller.subscriber_id
    event = await reports.event(connection, tenant_id, row["event_id"])
    wanted = reports.Filter(tenant_id, subscriber_id, event_id=row["event_id"])
    others, _ = await lists.deliveries_page(connection, wanted, before=None, limit=PER_PAGE)
    shown: Iterable[UUID] = {row["endpoint_id"], *(other["endpoint_id"] for other in others)}
    about = await endpoints.called(connection, tenant_id, shown)
    return {"event": event, "about": about, "others": [other for other in others if other["id"] != row["id"]]}
