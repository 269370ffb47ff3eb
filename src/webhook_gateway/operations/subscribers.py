"""Partner organisations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.exc import IntegrityError

from webhook_gateway.rules import ids
from webhook_gateway.store import subscribers
from webhook_gateway.store.notifications import CONFIGURATION

from .change import Change
from .refusals import Conflict, NotFound


async def create(change: Change, given: Mapping[str, Any]) -> RowMapping | Conflict:
    """``given`` are name and description. The name is its own among the tenant's subscribers."""
    row = await subscribers.create(change.connection, change.actor.tenant_id, **given)
    if row is None:
        return Conflict.SUBSCRIBER_NAME_TAKEN
    change.note("subscriber.created", ids.render(ids.SUBSCRIBER, row["id"]), after=given)
    return row


async def change_one(change: Change, subscriber_id: UUID, given: Mapping[str, Any]) -> RowMapping | NotFound | Conflict:
    """Changes what is ``given`` and leaves the rest."""
    tenant_id = change.actor.tenant_id
    before = await subscribers.get(change.connection, tenant_id, subscriber_id)
    try:
        async with change.connection.begin_nested():
            row = before and await subscribers.change(change.connection, tenant_id, subscriber_id, given)
    except IntegrityError:
        return Conflict.SUBSCRIBER_NAME_TAKEN
    if before is None or row is None:
        return NotFound.SUBSCRIBER
    kept = {name: before[name] for name in given}
    change.note("subscriber.changed", ids.render(ids.SUBSCRIBER, subscriber_id), before=kept, after=given)
    return row


async def delete(change: Change, subscriber_id: UUID) -> NotFound | None:
    """With its endpoints and keys; its open deliveries are cancelled."""
    gone = await subscribers.delete(change.connection, change.actor.tenant_id, subscriber_id)
    if gone is None:
        return NotFound.SUBSCRIBER
    change.note("subscriber.deleted", ids.render(ids.SUBSCRIBER, subscriber_id), CONFIGURATION, before=gone)
    return None
