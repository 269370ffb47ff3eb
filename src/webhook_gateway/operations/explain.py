"""Why: how a delivery stands, and why an endpoint has none of an event, gathered for a sentence each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.rules import ids, sentences
from webhook_gateway.rules.filters import HIDDEN, read_data
from webhook_gateway.rules.matching import may_have
from webhook_gateway.rules.scopes import Scope, allows
from webhook_gateway.rules.sentences import Explanation, Standing, WhyNot
from webhook_gateway.store import endpoints, lists, reports, waiting
from webhook_gateway.store.driver import driver_of

from .change import Actor, Change
from .deliveries import find
from .filters import shown_filter, unmet
from .permission import types_of
from .refusals import NotFound

NEWEST = UUID(int=(1 << 128) - 1)


async def delivery(connection: AsyncConnection, actor: Actor, delivery_id: UUID) -> dict[str, Any] | NotFound:
    """One delivery with its ``explanation``."""
    if isinstance(row := await find(connection, actor, delivery_id), NotFound):
        return row
    return {**row, "explanation": (await deliveries(connection, actor, [row]))[delivery_id]}


async def deliveries(
    connection: AsyncConnection, actor: Actor, rows: Collection[Mapping[str, Any]]
) -> dict[UUID, Explanation]:
    """By id, how deliveries stand that were found for the actor (`store/reports.py`, `store/lists.py`)."""
    facts = await waiting.standing(await driver_of(connection), rows, hidden=actor.subscriber_id is None)
    told = {}
    for row in rows:
        whole = {**row, **facts[row["id"]]}
        one = Standing(**{name: whole[name] for name in Standing.__struct_fields__})
        told[row["id"]] = sentences.of_delivery(one, whole["now"].astimezone(actor.zone))
    return told


def event(row: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> Explanation:
    """How an event stands, by its deliveries, newest first."""
    latest = {delivery["endpoint_id"]: delivery for delivery in reversed(found)}.values()
    due = min((delivery["due_at"] for delivery in latest if delivery["due_at"]), default=None)
    return sentences.of_event(row["waiting_for"], [delivery["state"] for delivery in latest], due)


async def by_endpoint(
    change: Change, vault: Vault, event_id: UUID, *, before: UUID, limit: int = 200
) -> tuple[list[dict[str, Any]], UUID | None] | NotFound:
    """Endpoints, newest first, each with the event's latest delivery to it or why it has none, and where to go on. Of
    an event that is no longer kept only the deliveries are known.

    For who may read the body filters are judged anew, which the audit log says. Others would learn what is in it: they
    hear what a filter asks for, if it is older than the event.
    """
    connection, actor = change.connection, change.actor
    wanted = reports.Filter(actor.tenant_id, actor.subscriber_id, event_id=event_id)
    accepted = await reports.event(connection, actor.tenant_id, event_id)
    newest, _ = await lists.deliveries_page(connection, wanted, before=None, limit=1)
    if not newest and (accepted is None or actor.subscriber_id is not None):
        return NotFound.EVENT
    rows = await endpoints.ever(connection, actor.tenant_id, actor.subscriber_id, before=before, limit=limit)
    found = await lists.latest_of_event(connection, wanted, [row["id"] for row in rows])
    told, latest = await deliveries(connection, actor, found), {row["endpoint_id"]: row["id"] for row in found}
    asked = accepted is not None and any(row["filter"] for row in rows if row["id"] not in latest)
    data = await _data(change, vault, event_id) if asked else None
    is_test, items = any(row["reason"] == "test" for row in newest), []
    for row in rows:
        about = {"endpoint_id": row["id"], "subscriber_id": row["subscriber_id"], "delivery_id": latest.get(row["id"])}
        if row["id"] in latest:
            items.append({**about, "reason": None, "explanation": told[latest[row["id"]]]})
        elif accepted is not None and (row["deleted_at"] is None or row["deleted_at"] > accepted["accepted_at"]):
            why, explanation = _why_not(vault, actor, accepted, row, data, is_test=is_test)
            items.append({**about, "reason": why, "explanation": explanation})
    return items, rows[-1]["id"] if len(rows) == limit else None


async def _data(change: Change, vault: Vault, event_id: UUID) -> Any:
    """What filters ask, or None where the actor may not read it, or it can't be opened."""
    actor = change.actor
    if actor.subscriber_id is not None or not allows(actor.scopes, Scope.PAYLOAD_READ):
        return None
    sealed = await reports.body(change.connection, actor.tenant_id, event_id)
    try:
        body = vault.open(actor.tenant_id, "events", event_id, sealed or b"")
    except (KeyMissing, Tampered):
        return None
    change.note("event.explained", ids.render(ids.EVENT, event_id))
    return read_data(body)


def _why_not(
    vault: Vault, actor: Actor, accepted: Mapping[str, Any], row: Any, data: Any, *, is_test: bool
) -> tuple[WhyNot, Explanation]:
    at, addressees = accepted["accepted_at"], accepted["addressees"]
    changed_at = max(row["updated_at"], row["permitted_at"])
    failing = None if data is None else unmet(vault, row, data)
    holds = {
        WhyNot.FAN_OUT: accepted["in_outbox"],
        WhyNot.TEST: is_test,
        WhyNot.NOT_ADDRESSED: addressees is not None and row["subscriber_id"] not in addressees,
        WhyNot.DELETED: row["deleted_at"],
        WhyNot.NOT_PERMITTED: not may_have(tuple(row["permitted_types"]), accepted["type"]),
        WhyNot.TYPE_NOT_WANTED: not may_have(types_of(row), accepted["type"]),
        WhyNot.FILTER: failing if failing is not None else row["filter"] and changed_at <= at,
        WhyNot.MADE_LATER: row["created_at"] > at,
        WhyNot.CHANGED_LATER: changed_at > at,
    }
    why = next((why for why, is_so in holds.items() if is_so), WhyNot.UNKNOWN)
    if why is WhyNot.FILTER:
        may_see = allows(actor.scopes, Scope.ENDPOINTS_READ)
        return why, sentences.of_filter((failing or shown_filter(vault, row, actor)) if may_see else HIDDEN)
    since = {WhyNot.DELETED: row["deleted_at"], WhyNot.MADE_LATER: row["created_at"], WhyNot.CHANGED_LATER: changed_at}
    return why, sentences.of_none(why, since.get(why), row["now"])
