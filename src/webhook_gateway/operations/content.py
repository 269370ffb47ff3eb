"""How much of an event a subscriber may have, and what its endpoints get of it: never more, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.intake.catalogue import Catalogue, EventType
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import may_have
from webhook_gateway.rules.views import EVERYTHING, View, cut, intersect, pointers_of, tree_of, view_of
from webhook_gateway.store import disclosures, endpoints, event_types, subscribers
from webhook_gateway.store.driver import driver_of

from .change import Actor, Change
from .event_types import faults_of_pointers, known_type, own_type
from .permission import types_of
from .refusals import Conflict, Invalid, NotFound, Refusal

FULL = {"level": "full", "subject": True}
THIN = {"level": "thin", "subject": False}
EXAMPLE = {"id": "evt_01h455vb4pex5vsknk084sn02q", "timestamp": "2026-11-24T09:30:00Z", "subject": "pat_7c1e9a52"}
"""What the body of a preview has beside type and data."""


def view_of_endpoint(row: RowMapping) -> View:
    return view_of(row["permitted_content"], row["content"])


async def check(
    change: Change,
    catalogue: Catalogue,
    content: Mapping[str, Any] | None,
    types: Sequence[str],
    permitted: Mapping[str, Any] = FULL,
) -> Refusal | None:
    """Whether what gets these types may be given so much; None is all that is permitted."""
    if content is not None:
        known = await _every(change.connection, catalogue, change.actor.tenant_id)
        if faults := _faults(content, [one for one in known if may_have(tuple(types), one.name)], permitted):
            return Invalid(tuple(faults))
    return None if content in (None, FULL) else await change.needs_current_workers()


def meaning(view: View) -> dict[str, Any]:
    """What is answered of a content: its level, pointers and subject, and in a sentence what it means."""
    pointers, subject = pointers_of(view.tree), "" if view.subject else " and no subject"
    if view.is_thin:
        within = "" if view.tree is EVERYTHING else ", within `pointers`"
        means = f"It gets what a thin body of each type has{within}{subject}: it has to ask for the rest."
    elif view.tree is EVERYTHING:
        means = f"It gets all of each event{subject and ',' + subject}."
    else:
        means = f"Of `data` it gets what `pointers` lead to and nothing else{subject}."
    level = "thin" if view.is_thin else "full" if view.tree is EVERYTHING else "fields"
    return {
        "level": level,
        "pointers": None if view.tree is EVERYTHING else pointers,
        "subject": view.subject,
        "means": means,
    }


async def preview(
    connection: AsyncConnection, catalogue: Catalogue, actor: Actor, endpoint: RowMapping, event_type: str | None
) -> bytes | Refusal:
    """The body that the endpoint would get of the example of a type, by default of the first that it gets."""
    every, gets = await _every(connection, catalogue, actor.tenant_id), types_of(endpoint)
    known = next((one for one in every if event_type in (None, one.name) and may_have(gets, one.name)), None)
    if known is None:
        return Conflict.NOT_PERMITTED if event_type in (None, *(one.name for one in every)) else NotFound.EVENT_TYPE
    return example_of(known, view_of_endpoint(endpoint))


def example_of(known: EventType, view: View) -> bytes:
    """The body that whoever gets so much would get of the type's example."""
    return _cut(view, known, msgspec.json.encode({**EXAMPLE, "type": known.name, "data": known.example}))


class Sent(msgspec.Struct, frozen=True):
    """What left for an endpoint of a delivery, ``at`` a time with an attempt, or would leave, where nothing has yet."""

    body: bytes
    at: datetime | None = None
    attempt: int | None = None
    is_same: bool | None = None
    """Whether these bytes have the hash that was written down then; None where none was."""


async def sent(
    connection: AsyncConnection, vault: Vault, catalogue: Catalogue, actor: Actor, row: Mapping[str, Any], body: bytes
) -> Sent:
    """The event's ``body`` as the endpoint got it of a delivery the last time: cut by what the endpoint was then."""
    tenant_id, endpoint_id = actor.tenant_id, row["endpoint_id"]
    last = await disclosures.last_sent(await driver_of(connection), tenant_id, row["id"], endpoint_id)
    how = last or await endpoints.get(connection, tenant_id, endpoint_id)
    known = await known_type(connection, catalogue, tenant_id, row["type"])
    cut_so = _cut(view_of_endpoint(how), known, body) if how else b""
    if last is None:
        return Sent(cut_so)
    hashed = vault.digest_of_body(tenant_id, sha256(cut_so).digest())
    is_same = hashed == last["body_digest"] if last["body_digest"] else None
    return Sent(cut_so, last["started_at"], last["attempt"], is_same)


async def cut_for(
    connection: AsyncConnection, catalogue: Catalogue, actor: Actor, event_type: str, body: bytes
) -> bytes | None:
    """An event's body for a subscriber's own key: as much as the hospital gave the subscriber, if anything."""
    assert actor.subscriber_id is not None
    subscriber = await subscribers.get(connection, actor.tenant_id, actor.subscriber_id)
    if subscriber is None or not may_have(tuple(subscriber["event_types"]), event_type):
        return None
    known = await known_type(connection, catalogue, actor.tenant_id, event_type)
    return _cut(view_of(subscriber["content"]), known, body)


def _cut(view: View, known: EventType | None, body: bytes) -> bytes:
    return cut(body, view.of(tree_of(known.thin if known else ())), view.subject)


def _faults(content: Mapping[str, Any], types: Sequence[EventType], permitted: Mapping[str, Any]) -> list[Fault]:
    """Pointers that fit nothing, and what is more than is permitted. Of types to come nothing is known yet."""
    may = view_of(permitted)
    if content["level"] == "full" and not (may.tree is EVERYTHING and not may.is_thin):
        remedy = "Its subscriber may not have all of an event: give less, or leave content out."
        return [Fault("not_permitted", remedy, pointer="/content/level")]
    if content["subject"] and not may.subject:
        remedy = "Its subscriber may not have the subject: give false."
        return [Fault("not_permitted", remedy, pointer="/content/subject")]
    pointers = content.get("pointers") or []
    if faults := faults_of_pointers(pointers, [known.schema for known in types] or [{}], "/content/pointers"):
        return faults
    allowed = [may.of(tree_of(known.thin)) for known in types] or [may.tree]
    remedy = "Its subscriber may not have this: choose within " + (", ".join(pointers_of(may.tree)[:20]) or "nothing")
    return [
        Fault("not_permitted", f"{remedy}.", pointer=f"/content/pointers/{at}")
        for at, pointer in enumerate(pointers)
        if not any(intersect(one, tree_of([pointer])) == tree_of([pointer]) for one in allowed)
    ]


async def _every(connection: AsyncConnection, catalogue: Catalogue, tenant_id: UUID) -> list[EventType]:
    own = [own_type(row) for row in await event_types.all_of(connection, tenant_id)]
    return [known for known in catalogue.all(tenant_id) if known.source != "tenant"] + own
