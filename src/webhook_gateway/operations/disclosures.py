"""Who got what about whom: the ledger, searched and verified. Each look is audited, a patient by its hash only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.intake.lookups import Kind, digest, key_of
from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.views import view_of
from webhook_gateway.settings import Settings
from webhook_gateway.store import disclosures, keyring, lookups, subscribers
from webhook_gateway.store.database import Database
from webhook_gateway.store.disclosures import shifted
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.reports import first_id

from .change import Actor, Change, changing
from .content import meaning
from .refusals import Invalid

SLICE = timedelta(days=lookups.DAYS)
MOST_SLICES = 50
"""Of one page."""
MOST_EVENTS = 10_000
"""Of one patient."""
MOST_PROBED = 200
"""Events or endpoints whose next deliveries are asked for where a slice has none."""
CLOCKS_DIFFER = timedelta(days=31)
"""At most, of those by which deliveries got their ids."""
_IDS = {
    "event_id": ids.EVENT,
    "delivery_id": ids.DELIVERY,
    "endpoint_id": ids.ENDPOINT,
    "subscriber_id": ids.SUBSCRIBER,
}
COLUMNS = (
    *("at", "latest", "reached", "recorded", "times", "subscriber", "host", "content", "pointers", "event_type"),
    *(*_IDS, "revision", "reason", "attempt", "status", "fetched_by", "body_hash", "matches"),
)

Entry = dict[str, Any]
Page = tuple[list[Entry], UUID | None]
"""Entries, and the delivery from below which the next page goes on."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One of the first three; what may have left from ``since`` until before ``until``; and at most ``limit``
    deliveries, from below the id ``before``."""

    patient: str | None = None
    event_id: UUID | None = None
    subscriber_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    limit: int = 50


async def search(database: Database, vault: Vault, settings: Settings, actor: Actor, asked: Asked) -> Page | Invalid:
    """Newest deliveries first. Looks at a patient's bodies, or an event's, stand on the first page; a subscriber's
    beside the deliveries of the same event.

    Raises:
        KeyMissing: the tenant's index key isn't there.
    """
    await keyring.fill(database, vault)
    tenant_id, now, only = actor.tenant_id, datetime.now(UTC), None
    oldest = now - timedelta(days=settings.retain_metadata_days) - CLOCKS_DIFFER
    since, until = max(asked.since or oldest, oldest), min(asked.until or now + SLICE, now + SLICE)
    open_for, theirs = timedelta(days=settings.retain_open_days), [asked.event_id] if asked.event_id else []
    if asked.patient is not None:
        key = key_of(digest(vault.hashes(tenant_id), Kind.PATIENT, asked.patient))
        about, accepted = key.hex, since - open_for - timedelta(days=settings.retain_bodies_days)  # and replayed since
        found, reached = await lookups.events_of(
            database, [key], since=accepted, before=first_id(until), limit=MOST_EVENTS + 1
        )
        if reached is not None or len(found) > MOST_EVENTS:
            return _invalid(
                "too_many", "/from", "More events are about the patient than one search holds: ask for less."
            )
        theirs = [event_id for event_id, _ in found]
    elif asked.subscriber_id is not None:
        about = only = ids.render(ids.SUBSCRIBER, asked.subscriber_id)
    else:
        about = ids.render(ids.EVENT, theirs[0])
    async with changing(database, actor) as change:
        change.note("disclosures.searched", about, after={"from": asked.since, "to": asked.until})
        driver = await driver_of(change.connection)
        if asked.subscriber_id is not None:
            theirs = await disclosures.endpoints_of(driver, tenant_id, asked.subscriber_id)
        looked_at = [ids.render(ids.EVENT, one) for one in theirs] if not (only or asked.before) else []
        entries = [*map(_look, await disclosures.fetched(driver, tenant_id, looked_at, since, until))]
    low, high = shifted(first_id(since), -open_for - CLOCKS_DIFFER), shifted(first_id(until), CLOCKS_DIFFER)
    high, left = min(high, asked.before or high), asked.limit
    if only is None:  # no delivery is older than its event
        low = max(low, shifted(min(theirs), -CLOCKS_DIFFER)) if theirs else high
    for _ in range(MOST_SLICES):
        begin = max(low, shifted(high, -SLICE))
        async with database.reading() as connection:
            driver = await driver_of(connection)
            page = await disclosures.page(
                driver, tenant_id, theirs, (begin, high), (since, until), left, of_events=only is None
            )
            sent = [*map(_sent, page.entries)]
            if only is not None:
                looked_at = [*dict.fromkeys(entry["event_id"] for entry in sent)]
                sent += map(_look, await disclosures.fetched(driver, tenant_id, looked_at, since, until, only))
            if not page.deliveries and begin > low and len(theirs) <= MOST_PROBED:
                begin = await disclosures.newest_below(driver, tenant_id, theirs, begin, of_events=only is None)
        entries, left, high = entries + sent, left - page.deliveries, page.last or begin
        if page.last is not None or high <= low:
            return entries, page.last
    return entries, high


async def note_look(change: Change, vault: Vault, event_id: UUID, body: bytes, why: str | None) -> None:
    """A look at an event's body: by a subscriber's key, to whom it was disclosed and how much of it."""
    told: Entry = {"body_hash": vault.digest_of_body(change.actor.tenant_id, sha256(body).digest()).hex()}
    if (theirs := change.actor.subscriber_id) is not None:
        row = await subscribers.get(change.connection, change.actor.tenant_id, theirs)
        told |= {"subscriber_id": ids.render(ids.SUBSCRIBER, theirs)}
        told |= {"subscriber": row["name"], "content": row["content"]} if row else {}
    told |= {} if why is None else {"reason": why}
    change.note(disclosures.PAYLOAD_READ, ids.render(ids.EVENT, event_id), after=told)


async def verify(
    database: Database, vault: Vault, settings: Settings, actor: Actor, asked: Asked, body: bytes | str
) -> Page | Invalid:
    """An event's entries, each with whether it is of this body, or of the one with this SHA-256 in hexadecimal."""
    if (event_id := asked.event_id or _named_in(body)) is None:
        return _invalid("required", "/event_id", "Give the event's id: the body doesn't have it.")
    found = await search(database, vault, settings, actor, replace(asked, event_id=event_id))
    if isinstance(found, Invalid):
        return found
    sent = sha256(body).digest() if isinstance(body, bytes) else bytes.fromhex(body)
    wanted = vault.digest_of_body(actor.tenant_id, sent).hex()
    return [{**one, "matches": one["body_hash"] and one["body_hash"] == wanted} for one in found[0]], found[1]


def as_csv(entries: Iterable[Entry], columns: Sequence[str] = COLUMNS, *, header: bool = True) -> str:
    """RFC 4180. What a spreadsheet would take for a formula begins with an apostrophe."""
    written = io.StringIO()
    rows = csv.DictWriter(written, columns)
    if header:
        rows.writeheader()
    rows.writerows({name: _cell(value) for name, value in entry.items()} for entry in entries)
    return written.getvalue()


def _cell(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case list():
            return " ".join(value)
        case dict():
            return json.dumps(value, sort_keys=True, ensure_ascii=False)
        case bytes():
            return value.hex()
        case str() if value.startswith(("=", "+", "-", "@")):
            return f"'{value}"
        case _:
            return value


def _invalid(rule: str, pointer: str, remedy: str) -> Invalid:
    return Invalid((Fault(rule, remedy, pointer=pointer),))


def _named_in(body: bytes | str) -> UUID | None:
    try:
        return ids.parse(ids.EVENT, json.loads(body)["id"]) if isinstance(body, bytes) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _sent(row: Mapping[str, Any]) -> Entry:
    hashed = row["body_digest"]
    return _entry({
        **row,
        **{name: ids.render(prefix, row[name]) for name, prefix in _IDS.items()},
        **_how_much(row["permitted_content"], row["content"]),
        "body_hash": hashed and hashed.hex(),
    })  # fmt: skip


def _look(row: Mapping[str, Any]) -> Entry:
    """Of one key at one body, at first and at last."""
    told = row["after"] or {}
    how = {"reached": "fetched", "recorded": True, "reason": None, **_how_much(told.get("content"))}
    return _entry({**told, **row, **how})


def _how_much(*contents: Any) -> Entry:
    if contents[0] is None:
        return {"content": None}
    means = meaning(view_of(*contents))
    return {"content": means["level"], "pointers": means["pointers"]}


def _entry(told: Mapping[str, Any]) -> Entry:
    return {name: told.get(name) for name in COLUMNS}
