"""What a subscriber may have, and what its endpoints get of it: never more, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.matching import beyond, effective
from webhook_gateway.store import event_types, permission, subscribers
from webhook_gateway.store.driver import driver_of

from .change import Actor, Change
from .refusals import MOST_COUNTED, Conflict, WouldCutOff

MOST_NAMED = 20
"""Patterns that a remedy lists."""


async def may_ask_about(connection: AsyncConnection, actor: Actor, subscriber_id: UUID) -> bool:
    """Whether there is such a subscriber; to a partner's key there is only its own."""
    is_theirs = actor.subscriber_id in (None, subscriber_id)
    return is_theirs and await subscribers.get(connection, actor.tenant_id, subscriber_id) is not None


def types_of(endpoint: RowMapping) -> tuple[str, ...]:
    """What it gets: of what its subscriber may have, what it wants."""
    return effective(endpoint["permitted_types"], endpoint["event_types"])


async def faults_of_types(
    change: Change, catalogue: Catalogue, patterns: Sequence[str], permitted: Sequence[str] | None = None
) -> list[Fault]:
    """What is not ``permitted``, is not the actor's to give, or a misspelt name, which would never match, and nobody
    would notice. A pattern may be for types to come."""
    actor, faults = change.actor, []
    unknown = {name for name in patterns if not name.endswith("*") and catalogue.get(actor.tenant_id, name) is None}
    if unknown:
        unknown -= {row["name"] for row in await event_types.all_of(change.connection, actor.tenant_id)}
    not_permitted = [] if permitted is None else beyond(permitted, patterns)
    for index, pattern in enumerate(patterns):
        pointer = f"/event_types/{index}"
        if not actor.may_want(pattern):
            remedy = "Remove it: the hospital decides who gets which events, and this key says no."
            faults.append(Fault("not_allowed", remedy, pointer=pointer))
        elif pattern in not_permitted:
            faults.append(Fault("not_permitted", _allowed(permitted or ()), pointer=pointer))
        if pattern in unknown:
            remedy = "Give one of the types that GET /v1/event-types lists, or a pattern such as lab_result.*"
            faults.append(Fault("unknown_event_type", remedy, pointer=pointer))
    return faults


async def cut_off(
    change: Change, narrowed: Sequence[tuple[UUID, Sequence[str]]], *, cancel_open: bool
) -> Conflict | WouldCutOff | None:
    """Endpoints are to get only these types from now on. What waits and is beyond is cancelled, if that is wanted."""
    driver = await driver_of(change.connection)
    if not cancel_open:
        count, all_of_them = 0, change.actor.subscriber_id is None
        for endpoint_id, types in narrowed:
            most = MOST_COUNTED + 1 - count
            count += len(await permission.beyond(driver, endpoint_id, types, most, unfiltered=all_of_them))
        return WouldCutOff(count) if count else None
    await permission.cut_off(driver, [endpoint_id for endpoint_id, _ in narrowed])
    return None


def _allowed(permitted: Sequence[str]) -> str:
    if not permitted:
        return "Its subscriber may have no event types: the hospital gives them to the subscriber."
    named = ", ".join(permitted[:MOST_NAMED]) + (", …" if len(permitted) > MOST_NAMED else "")
    return f"Its subscriber may have {named}: choose among them, or leave event_types out."
