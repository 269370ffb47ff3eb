"""One delivery: sending it again, and giving it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import may_have
from webhook_gateway.rules.model import EndpointState
from webhook_gateway.rules.waiting import Reason
from webhook_gateway.store import deliveries, endpoints, forwarding, lists, replays, reports
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.finished import NOT_WANTED
from webhook_gateway.store.notifications import DELIVERIES, OUTBOX

from .change import Actor, Change
from .endpoints import find as find_endpoint
from .endpoints import may_send_again
from .permission import may_ask_about, types_of
from .quotas import replays_more
from .refusals import Conflict, Invalid, NotFound, NotHeld, Refusal

BY_HAND = "by_hand"
MANY = 10_000
"""Deliveries that are given up in one transaction, or counted before."""
_NOT_NOW = {
    Reason.PAUSED: Conflict.ENDPOINT_PAUSED,
    Reason.DISABLED: Conflict.ENDPOINT_DISABLED,
    Reason.ORDERING_KEY: Conflict.DELIVERY_BEHIND,
    Reason.HELD_KEY: Conflict.DELIVERY_BEHIND,
    Reason.SENDING: Conflict.DELIVERY_SENDING,
}


async def find(connection: AsyncConnection, actor: Actor, delivery_id: UUID) -> dict[str, Any] | NotFound:
    row = await reports.delivery(connection, reports.Filter(actor.tenant_id, actor.subscriber_id), delivery_id)
    return NotFound.DELIVERY if row is None else row


async def replay(change: Change, delivery_id: UUID) -> dict[str, UUID] | Refusal:
    """Queues the delivery's event for its endpoint again; the ids of the new delivery, its event and its endpoint."""
    connection, actor = change.connection, change.actor
    if isinstance(row := await find(connection, actor, delivery_id), NotFound):
        return row
    if row["state"] not in reports.FINAL_STATES:
        return Conflict.DELIVERY_OPEN
    if row["state_reason"] == NOT_WANTED:
        return Conflict.NOT_WANTED
    endpoint = await endpoints.get(connection, actor.tenant_id, row["endpoint_id"], lock=True)
    if endpoint is None:
        return Conflict.ENDPOINT_DELETED
    if endpoint["state"] == EndpointState.DISABLED:
        return Conflict.ENDPOINT_DISABLED
    if not may_have(types_of(endpoint), row["type"]):
        return Conflict.NOT_PERMITTED
    event = await reports.event(connection, actor.tenant_id, row["event_id"])
    if event is None or event["kept_apart"]:
        return Conflict.BODY_GONE
    if not actor.may_send(row["type"]):
        return NotHeld((row["type"],))
    if elsewhere := may_send_again(actor, endpoint, event["accepted_at"]):
        return elsewhere
    if refused := await replays_more(change, 1, as_job=False):
        return refused
    new = await replays.replay(await driver_of(connection), [delivery_id])
    if not new:
        return Conflict.REPLAYED
    after = {"delivery_id": ids.render(ids.DELIVERY, new[0])}
    change.note("delivery.replayed", ids.render(ids.DELIVERY, delivery_id), OUTBOX, after=after)
    return {"id": new[0], "event_id": row["event_id"], "endpoint_id": row["endpoint_id"]}


async def cancel(change: Change, delivery_id: UUID) -> dict[str, Any] | NotFound | Conflict:
    """Gives a pending delivery up for good. The next one of its ordering key goes on."""
    connection, actor = change.connection, change.actor
    if isinstance(row := await find(connection, actor, delivery_id), NotFound):
        return row
    if refused := _ended(row):
        return refused
    driver = await driver_of(connection)
    if not await deliveries.cancel(
        driver, tenant_id=actor.tenant_id, ids=[delivery_id], endpoint_id=None, reason=BY_HAND
    ):
        return Conflict.DELIVERY_SENDING
    before = {"attempt": row["attempt"]}
    change.note("delivery.cancelled", ids.render(ids.DELIVERY, delivery_id), DELIVERIES, before=before)
    return await find(connection, actor, delivery_id)


async def cancel_many(
    change: Change, wanted: Mapping[str, Any], *, dry_run: bool
) -> tuple[int, bool] | NotFound | Invalid:
    """Gives up what waits and the filter finds, or with ``dry_run`` only counts it; and whether there is more.

    ``wanted`` are fields of a `Filter`.
    """
    connection, actor = change.connection, change.actor
    if not wanted:
        return Invalid(
            (Fault("required", "Say which: by endpoint_id, subscriber_id, type, since or until.", pointer=""),)
        )
    target = "deliveries"
    if endpoint_id := wanted.get("endpoint_id"):
        if isinstance(found := await find_endpoint(connection, actor, endpoint_id), NotFound):
            return found
        target = ids.render(ids.ENDPOINT, endpoint_id)
    if (asked := wanted.get("subscriber_id")) and not await may_ask_about(connection, actor, asked):
        return NotFound.SUBSCRIBER
    asked_for = reports.Filter(actor.tenant_id, **{"subscriber_id": actor.subscriber_id, **wanted})
    waiting = await lists.waiting(connection, asked_for, MANY + 1, unfiltered=actor.subscriber_id is None)
    count, more = min(len(waiting), MANY), len(waiting) > MANY
    if not dry_run:
        driver, gone = await driver_of(connection), waiting[:MANY]
        count = await deliveries.cancel(driver, tenant_id=actor.tenant_id, ids=gone, endpoint_id=None, reason=BY_HAND)
        written = {name: str(value) for name, value in wanted.items() if name not in ("endpoint_id", "subscriber_id")}
        written |= {"subscriber_id": ids.render(ids.SUBSCRIBER, asked)} if asked else {}
        change.note("deliveries.cancelled", target, DELIVERIES, after={**written, "count": count})
    return count, more


async def try_now(change: Change, delivery_id: UUID) -> dict[str, Any] | Refusal:
    """Has a pending delivery attempted now rather than later, also where its endpoint is left alone."""
    connection, actor = change.connection, change.actor
    if isinstance(row := await find(connection, actor, delivery_id), NotFound):
        return row
    if refused := _ended(row) or _NOT_NOW.get(row["waiting_for"]):
        return refused
    if not actor.may_send(row["type"]):
        return NotHeld((row["type"],))
    if not await forwarding.try_now(await driver_of(connection), actor.tenant_id, delivery_id):
        return Conflict.DELIVERY_SENDING
    change.note(
        "delivery.tried_now", ids.render(ids.DELIVERY, delivery_id), DELIVERIES, before={"attempt": row["attempt"]}
    )
    return await find(connection, actor, delivery_id)


def _ended(row: Mapping[str, Any]) -> Conflict | None:
    if row["state"] in reports.FINAL_STATES:
        return Conflict.DELIVERY_ENDED
    return Conflict.DELIVERY_IN_OUTBOX if row["in_outbox"] else None
