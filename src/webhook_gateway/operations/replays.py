"""Sending many finished deliveries again, as a job that a worker carries out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import is_name
from webhook_gateway.rules.model import EndpointState
from webhook_gateway.rules.scopes import Scope, allows
from webhook_gateway.store import replays
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.notifications import OUTBOX

from . import endpoints
from .change import Actor, Change
from .permission import may_ask_about
from .quotas import replays_more
from .refusals import MOST_COUNTED, Conflict, Invalid, NotFound, NotHeld, Refusal

_NAMED = ("endpoint_id", "subscriber_id", "type", "since", "until", "outcome")
_PREFIXES = {"endpoint_id": ids.ENDPOINT, "subscriber_id": ids.SUBSCRIBER, "event_id": ids.EVENT}


async def preview(connection: AsyncConnection, actor: Actor, given: Mapping[str, Any]) -> dict[str, Any] | Refusal:
    """What a job would send again, see `store.replays.preview`, with ``notes`` on what that means for partners.

    ``given`` has ``state``, and some of ``endpoint_id``, ``subscriber_id``, ``type``, ``since``, ``until``, and of what
    the last attempt met ``outcome``, ``status`` and ``detail``; or ``all``.
    """
    if isinstance(wanted := await _wanted(connection, actor, given), Refusal):
        return wanted
    found = await replays.preview(await driver_of(connection), actor.tenant_id, wanted, MOST_COUNTED)
    notes = []
    if found["second_deliveries"]:
        notes.append(
            "A replay keeps its webhook-id: a partner that deduplicates drops what it has, also if it is wider."
        )
    if found["ordering_keys"]:
        notes.append("Replays are outside of order: something newer of the same ordering key may be there already.")
    return {**found, "notes": notes}


async def create(change: Change, given: Mapping[str, Any]) -> RowMapping | Refusal:
    """A job over what finished before it, oldest first. ``given``: see `preview`."""
    actor = change.actor
    if refused := await replays_more(change, 1, as_job=True):
        return refused
    if isinstance(wanted := await _wanted(change.connection, actor, given), Refusal):
        return wanted
    driver = await driver_of(change.connection)
    found = await replays.preview(driver, actor.tenant_id, wanted, replays.MOST_WALKED)
    return await start(change, "replay", wanted, None if found["more"] else found["count"], given)


async def start(
    change: Change, kind: str, wanted: Mapping[str, Any], total: int | None, given: Mapping[str, Any]
) -> RowMapping | Refusal:
    """A job, which the caller's quota of one more is used up for."""
    if total is None and change.actor.quotas is not None:
        return Conflict.TOO_MANY_TO_COUNT
    if total is not None and (refused := await replays_more(change, total - 1, as_job=False)):
        return refused
    job = await replays.create(change.connection, change.actor.tenant_id, kind, wanted, total)
    after = {
        name: ids.render(_PREFIXES[name], value) if name in _PREFIXES else wanted[name] for name, value in given.items()
    }
    change.note(f"{kind}.created", ids.render(ids.JOB, job["id"]), OUTBOX, after={**after, "total": total})
    return job


def as_filter(actor: Actor, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, as a job keeps it in JSON: bound to the actor's subscriber, if any, whose job it is then."""
    kept = {name: value.isoformat() if isinstance(value, datetime) else str(value) for name, value in given.items()}
    if "subscriber_id" in kept:
        kept["to_subscriber_id"] = kept.pop("subscriber_id")
    return kept if actor.subscriber_id is None else kept | {"subscriber_id": str(actor.subscriber_id)}


async def _wanted(connection: AsyncConnection, actor: Actor, given: Mapping[str, Any]) -> dict[str, Any] | Refusal:
    """The filter as a job has it, where the actor may have all that it finds sent again."""
    if not given.get("all") and not any(name in given for name in _NAMED):
        remedy = f"Say which, by {', '.join(_NAMED)}; or that everything is meant, by `all`."
        return Invalid((Fault("required", remedy, pointer="/all"),))
    if not is_name(given.get("type", "any.type")):
        remedy = "Give an event type, as in lab_result.final."
        return Invalid((Fault("event_type", remedy, pointer="/type"),))
    if not actor.may_send(given.get("type", "*")):
        return NotHeld((given.get("type", "every event type: name one"),))
    if "endpoint_id" in given:
        if isinstance(endpoint := await endpoints.find(connection, actor, given["endpoint_id"]), NotFound):
            return endpoint
        if endpoint["state"] == EndpointState.DISABLED:
            return Conflict.ENDPOINT_DISABLED
        if elsewhere := endpoints.may_send_again(actor, endpoint, given.get("since")):
            return elsewhere
    if (asked := given.get("subscriber_id")) and not await may_ask_about(connection, actor, asked):
        return NotFound.SUBSCRIBER
    return as_filter(actor, given) | {"to_other_hosts": allows(actor.scopes, Scope.PAYLOAD_READ)}


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
