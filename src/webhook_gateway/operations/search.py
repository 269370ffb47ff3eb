"""What a text is, and where it leads: one of our ids, or what events came with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.intake.lookups import Kind, digest, key_of
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope, allows
from webhook_gateway.store import keyring, keys, lists, lookups, outbox, partitions, replays, reports, subscribers
from webhook_gateway.store.database import Database
from webhook_gateway.store.driver import driver_of

from . import deliveries, endpoints
from .change import Actor, changing
from .refusals import NotFound

MOST_OF_A_KEY = 200
"""Events that one idempotency key may have come with: a new one each time that it is forgotten."""
_IDS = {
    ids.EVENT: ("event", "events", Scope.DELIVERIES_READ),
    ids.DELIVERY: ("delivery", "deliveries", Scope.DELIVERIES_READ),
    ids.ENDPOINT: ("endpoint", "endpoints", Scope.ENDPOINTS_READ),
    ids.SUBSCRIBER: ("subscriber", "subscribers", Scope.ENDPOINTS_READ),
    ids.JOB: ("replay", "replays", Scope.DELIVERIES_READ),
    ids.KEY: ("key", "keys", Scope.ADMIN),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """``found`` says what the text is, and ``not_searched`` what else it may be that the actor may not look for.

    ``items`` are newest first; all down to the id ``reached`` were found, or all that there are where that is None.
    What came before ``indexed_since`` is found by ids only, and for some days by its idempotency key.
    """

    found: list[str]
    items: list[dict[str, Any]]
    reached: UUID | None
    not_searched: list[str]
    indexed_since: datetime


async def search(
    database: Database, vault: Vault, actor: Actor, text: str, *, before: UUID | None = None, limit: int
) -> Answer:
    """From below the event ``before``. A look for what may name a patient is audited, by its hash."""
    prefix, value = _parsed(text)
    async with database.reading() as connection:
        since = await lookups.indexed_since(await driver_of(connection))
        if value is not None:
            kind, _, scope = _IDS[prefix]
            if not allows(actor.scopes, scope) or (prefix == ids.KEY and actor.subscriber_id is not None):
                return Answer([], [], None, [kind], since)
            if items := await _of_id(connection, actor, prefix, value):
                return Answer([kind], items, None, [], since)
    await keyring.fill(database, vault)
    may_name_patients = allows(actor.scopes, Scope.PATIENTS_SEARCH)
    kinds = list(Kind) if may_name_patients else [Kind.IDEMPOTENCY_KEY]
    digests = {kind: digest(vault.hashes(actor.tenant_id), kind, text) for kind in kinds}
    by_key = {key_of(each): kind for kind, each in digests.items()}
    async with database.reading() as connection:  # first: what is pruned meanwhile is then among the look-ups
        remembered = await _remembered(connection, actor.tenant_id, digests[Kind.IDEMPOTENCY_KEY])
    found, reached = await lookups.events_of(database, list(by_key), before=before, limit=limit + 1)
    as_what = {event_id: {by_key[key] for key in its} for event_id, its in found}
    for event_id in remembered:
        if (before is None or event_id < before) and (reached is None or event_id >= reached):
            as_what.setdefault(event_id, set()).add(Kind.IDEMPOTENCY_KEY)
    newest = sorted(as_what, reverse=True)
    if len(newest) > limit:
        newest, reached = newest[:limit], newest[limit - 1]
    async with database.reading() as connection:
        items = await _events(connection, actor, {event_id: sorted(as_what[event_id]) for event_id in newest})
    if may_name_patients:
        async with changing(database, actor) as change:
            change.note("patients.searched", key_of(digests[Kind.PATIENT]).hex, after={"found": len(items)})
    named = {kind for item in items for kind in item["found_by"]}
    return Answer(sorted(named), items, reached, [kind for kind in Kind if kind not in kinds], since)


async def posted_with(database: Database, vault: Vault, tenant_id: UUID, idempotency_key: str) -> list[UUID]:
    """The newest events with the key, of those days whose events are kept."""
    await keyring.fill(database, vault)
    of_it = digest(vault.hashes(tenant_id), Kind.IDEMPOTENCY_KEY, idempotency_key)
    async with database.reading() as connection:
        first_day = await partitions.first_day(await driver_of(connection), partitions.EVENTS)
        remembered = await _remembered(connection, tenant_id, of_it)
    since = datetime.combine(first_day, time(), UTC)
    found, _ = await lookups.events_of(database, [key_of(of_it)], since=since, limit=MOST_OF_A_KEY)
    return list(dict.fromkeys([*remembered, *(event_id for event_id, _ in found)]))


async def _remembered(connection: AsyncConnection, tenant_id: UUID, digest: bytes) -> list[UUID]:
    """The event that an idempotency key still stands for."""
    rows = await outbox.earlier(await driver_of(connection), [(tenant_id, digest)])
    return [row["event_id"] for row in rows.values()]


def _parsed(text: str) -> tuple[str, UUID | None]:
    prefix = text.rpartition("_")[0]
    try:
        return prefix, ids.parse(prefix, text) if prefix in _IDS else None
    except ids.NotAnId:
        return prefix, None


async def _of_id(connection: AsyncConnection, actor: Actor, prefix: str, value: UUID) -> list[dict[str, Any]]:
    """What has the id, and of a delivery its event."""
    found_by, row = [_IDS[prefix][0]], cast("Any", None)
    match prefix:
        case ids.EVENT:
            return await _events(connection, actor, {value: found_by}, unsure=True)
        case ids.DELIVERY:
            row = await deliveries.find(connection, actor, value)
        case ids.ENDPOINT:
            row = await endpoints.find(connection, actor, value)
        case ids.SUBSCRIBER if actor.subscriber_id in (None, value):
            row = await subscribers.get(connection, actor.tenant_id, value)
        case ids.JOB:
            row = await replays.get(connection, actor.tenant_id, value, subscriber_id=actor.subscriber_id)
        case ids.KEY:
            row = await keys.get(connection, actor.tenant_id, value)
    if row is None or isinstance(row, NotFound):
        return []
    its = await _events(connection, actor, {row["event_id"]: found_by}) if prefix == ids.DELIVERY else []
    return [item(prefix, value, found_by, row["created_at"]), *its]


async def _events(
    connection: AsyncConnection, actor: Actor, found: Mapping[UUID, list[str]], *, unsure: bool = False
) -> list[dict[str, Any]]:
    """Those of the events that the actor may see, each by what it was found; ``unsure`` whether they ever were."""
    kept, _ = await lists.events_page(connection, actor.tenant_id, only=list(found), limit=len(found))
    rows = {row["id"]: row for row in kept}
    seen = set(found)
    if actor.subscriber_id is not None or (unsure and not rows):
        wanted = reports.Filter(actor.tenant_id, actor.subscriber_id)
        seen = await lists.with_deliveries(connection, wanted, list(found))
    return [
        item(ids.EVENT, one, by, row["accepted_at"], row["type"])
        if (row := rows.get(one))
        else item(ids.EVENT, one, by, ids.moment_of(one), is_kept=False)
        for one, by in found.items()
        if one in seen
    ]


def item(
    prefix: str, value: UUID, found_by: list[str], at: datetime, type: str | None = None, *, is_kept: bool = True
) -> dict[str, Any]:
    """Of an event whose day has gone, the deliveries still say what became of it."""
    (kind, plural, _), rendered = _IDS[prefix], ids.render(prefix, value)
    its = f"/v1/deliveries?{kind}_id={rendered}" if prefix in (ids.EVENT, ids.ENDPOINT) else None
    link = f"/v1/{plural}/{rendered}" if is_kept else its
    return {"kind": kind, "id": rendered, "type": type, "found_by": found_by, "at": at, "link": link, "deliveries": its}
