"""Partner organisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.exc import IntegrityError

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.rules import ids
from webhook_gateway.rules.matching import beyond, effective
from webhook_gateway.store import endpoints, subscribers
from webhook_gateway.store.notifications import CONFIGURATION

from . import content
from .change import Change
from .endpoints import emit_about
from .permission import cut_off, faults_of_types, types_of
from .refusals import Conflict, Invalid, NotFound, Refusal, WouldCutOff

PERMISSION = {"event_types", "content"}
"""What somebody has decided once they have given either."""


async def create(change: Change, catalogue: Catalogue, given: Mapping[str, Any]) -> RowMapping | Refusal:
    """``given`` are columns. Name and external id are its own among the tenant's subscribers."""
    if faults := await faults_of_types(change, catalogue, given["event_types"]):
        return Invalid(tuple(faults))
    if refused := await content.check(change, catalogue, given["content"], given["event_types"]):
        return refused
    try:
        async with change.connection.begin_nested():
            row = await subscribers.create(change.connection, change.actor.tenant_id, given)
    except IntegrityError as error:
        return _taken(error)
    change.note("subscriber.created", ids.render(ids.SUBSCRIBER, row["id"]), CONFIGURATION, after=given)
    return row


async def change_one(
    change: Change, catalogue: Catalogue, subscriber_id: UUID, given: Mapping[str, Any]
) -> RowMapping | Refusal:
    """Changes the columns that are ``given`` and leaves the rest. With ``cancel_open`` it may cut off deliveries."""
    tenant_id = change.actor.tenant_id
    changes = {name: value for name, value in given.items() if name != "cancel_open"}
    before = await subscribers.get(change.connection, tenant_id, subscriber_id)
    if before is None:
        return NotFound.SUBSCRIBER
    if "event_types" in changes:
        if faults := await faults_of_types(change, catalogue, changes["event_types"]):
            return Invalid(tuple(faults))
        if refused := await _narrow(change, before, changes["event_types"], given.get("cancel_open", False)):
            return refused
    if "content" in changes:
        types = changes.get("event_types", before["event_types"])
        if too_much := await content.check(change, catalogue, changes["content"], types):
            return too_much
    if changes.keys() & PERMISSION:
        changes["permission_by_migration"] = False
    try:
        async with change.connection.begin_nested():
            row = await subscribers.change(change.connection, tenant_id, subscriber_id, changes)
    except IntegrityError as error:
        return _taken(error)
    if row is None:
        return NotFound.SUBSCRIBER
    kept, noted = {name: before[name] for name in changes}, {name: row[name] for name in changes}
    change.note(
        "subscriber.changed", ids.render(ids.SUBSCRIBER, subscriber_id), CONFIGURATION, before=kept, after=noted
    )
    return row


async def _narrow(
    change: Change, before: RowMapping, permitted: Sequence[str], cancel_open: bool
) -> Conflict | WouldCutOff | None:
    """A worker of the version before doesn't know what a subscriber may have, only what its endpoints want."""
    if not beyond(permitted, before["event_types"]):
        return None
    if too_old := await change.needs_current_workers():
        return too_old
    theirs = await endpoints.of_subscriber(change.connection, before["tenant_id"], before["id"])
    after = [(row["id"], effective(permitted, row["event_types"]), types_of(row)) for row in theirs]
    narrowed = [(endpoint_id, gets) for endpoint_id, gets, got in after if beyond(gets, got)]
    return await cut_off(change, narrowed, cancel_open=cancel_open)


def _taken(error: IntegrityError) -> Conflict:
    """Which of the two that are its own another subscriber has."""
    by_name = "subscribers_by_name" in str(error.orig)
    return Conflict.SUBSCRIBER_NAME_TAKEN if by_name else Conflict.EXTERNAL_ID_TAKEN


async def delete(
    change: Change, vault: Vault, subscriber_id: UUID, *, force: bool = False
) -> NotFound | Conflict | None:
    """With its keys, and by ``force`` with its endpoints: their open deliveries are cancelled."""
    theirs = await endpoints.of_subscriber(change.connection, change.actor.tenant_id, subscriber_id)
    gone = await subscribers.delete(change.connection, change.actor.tenant_id, subscriber_id)
    if gone is None:
        return NotFound.SUBSCRIBER
    if gone["endpoints"] and not force:
        return Conflict.SUBSCRIBER_HAS_ENDPOINTS
    change.note("subscriber.deleted", ids.render(ids.SUBSCRIBER, subscriber_id), CONFIGURATION, before=gone)
    for row in theirs:
        await emit_about(change, vault, row, "endpoint_deleted")
    return None
