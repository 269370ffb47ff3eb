"""Sending many finished deliveries again, as a job that a worker carries out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import is_name
from webhook_gateway.rules.model import EndpointState
from webhook_gateway.rules.scopes import Scope, allows
from webhook_gateway.store import lists, replays, reports
from webhook_gateway.store.notifications import OUTBOX

from . import endpoints
from .change import Actor, Change
from .quotas import replays_more
from .refusals import Conflict, Invalid, NotFound, NotHeld, Refusal


async def count(connection: AsyncConnection, actor: Actor, wanted: Mapping[str, Any]) -> int | Refusal | None:
    """How many deliveries a job would replay, or None where they are too many to count.

    ``wanted`` has ``state``, and may have the other fields of a `Filter`.
    """
    if not is_name(wanted.get("type", "any.type")):
        remedy = "Give an event type, as in lab_result.final."
        return Invalid((Fault("event_type", remedy, pointer="/type"),))
    if not actor.may_send(wanted.get("type", "*")):
        return NotHeld((wanted.get("type", "every event type: name one"),))
    if "endpoint_id" in wanted:
        if isinstance(endpoint := await endpoints.find(connection, actor, wanted["endpoint_id"]), NotFound):
            return endpoint
        if endpoint["state"] == EndpointState.DISABLED:
            return Conflict.ENDPOINT_DISABLED
        if elsewhere := endpoints.may_send_again(actor, endpoint, wanted.get("since")):
            return elsewhere
    return await lists.finished_count(connection, reports.Filter(actor.tenant_id, actor.subscriber_id, **wanted))


async def create(change: Change, wanted: Mapping[str, Any]) -> RowMapping | Refusal:
    """A job over what finished before it, oldest first. ``wanted``: see `count`."""
    actor = change.actor
    if refused := await replays_more(change, 1, as_job=True):
        return refused
    total = await count(change.connection, actor, wanted)
    if isinstance(total, Refusal):
        return total
    if total is None and actor.quotas is not None:
        return Conflict.TOO_MANY_TO_COUNT
    if total is not None and (refused := await replays_more(change, total - 1, as_job=False)):
        return refused
    written = {name: value.isoformat() if name in ("since", "until") else str(value) for name, value in wanted.items()}
    bound: dict[str, Any] = {} if actor.subscriber_id is None else {"subscriber_id": str(actor.subscriber_id)}
    bound["to_other_hosts"] = allows(actor.scopes, Scope.PAYLOAD_READ)
    job = await replays.create(change.connection, actor.tenant_id, written | bound, total)
    if "endpoint_id" in wanted:
        written["endpoint_id"] = ids.render(ids.ENDPOINT, wanted["endpoint_id"])
    change.note("replay.created", ids.render(ids.JOB, job["id"]), OUTBOX, after={**written, "total": total})
    return job


async def cancel(change: Change, job_id: UUID) -> RowMapping | NotFound | Conflict:
    """Stops a job where it is. What it has queued by then is still sent."""
    actor = change.actor
    before = await replays.get(change.connection, actor.tenant_id, job_id, subscriber_id=actor.subscriber_id, lock=True)
    if before is None:
        return NotFound.REPLAY
    row = await replays.cancel(change.connection, actor.tenant_id, job_id)
    if row is None:
        return Conflict.REPLAY_ENDED
    change.note("replay.cancelled", ids.render(ids.JOB, job_id), before={"done": before["done"]})
    return row
