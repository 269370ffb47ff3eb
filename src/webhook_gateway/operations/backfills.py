"""Sending what was accepted before an endpoint was there, or wanted it, as a job that a worker carries out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate
from math import ceil
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping

from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.rules import ids
from webhook_gateway.rules.faults import Fault
from webhook_gateway.rules.filters import read_data
from webhook_gateway.rules.matching import may_have
from webhook_gateway.rules.model import Endpoint, EndpointState
from webhook_gateway.rules.scopes import Scope, allows
from webhook_gateway.store import backfills, bodies, configuration, forwarding, replays
from webhook_gateway.store.database import Connection, Database
from webhook_gateway.store.driver import driver_of

from .change import Actor, Change
from .endpoints import find
from .filters import SLICE_BYTES
from .quotas import replays_more
from .refusals import MOST_COUNTED, Conflict, Invalid, NotFound, NotHeld, Refusal
from .replays import as_filter, start

MOST_SLICES, MOST_OPENED = 100, 16
"""What a preview reads: slices of events, and of those whose bodies a filter asks for."""
PACE = 5.0
"""Seconds for which a job queues what its endpoint takes, at most `AT_ONCE`."""
AT_ONCE = 500
LATER = 30.0
"""Seconds until a job goes on that can't now."""


async def preview(
    database: Database, vault: Vault, actor: Actor, endpoint_id: UUID, given: Mapping[str, Any]
) -> dict[str, Any] | Refusal:
    """What a job would send to the endpoint, in the form of `replays.preview`: one event, by its ``event_id``, or what
    came ``since`` a time, and ``until`` one, or of a ``type``, if that is given.

    Raises:
        KeyMissing, Tampered: its filter, or a body that it asks for, can't be opened yet, or at all.
    """
    low, high = replays.bounds(as_filter(actor, given))
    async with database.reading() as connection:
        if isinstance(row := await find(connection, actor, endpoint_id), NotFound):
            return row
        endpoint = await configuration.endpoint(driver := await driver_of(connection), vault, endpoint_id)
        assert endpoint is not None, "it was there in this transaction"
        if refused := _refused(actor, endpoint, given):
            return refused
        gone = await backfills.gone(driver, (low, high), endpoint, _types(endpoint, given))
    found: list[Any] = []
    reached: UUID | None = low
    for _ in range(MOST_OPENED if endpoint.is_filtered else MOST_SLICES):
        if reached is None or len(found) > MOST_COUNTED:
            break
        async with database.reading() as connection:
            driver = await driver_of(connection)
            events, reached = await _next(driver, vault, endpoint, given, (reached, high), MOST_COUNTED)
        found += events
    notes = ["What is accepted meanwhile may overtake these: they are in order among themselves only, key by key."]
    if gone["kept"] is not None and low < gone["kept"]:
        notes.append(f"Bodies are kept since {ids.moment_of(gone['kept']):%Y-%m-%d %H:%M} UTC: nothing before is sent.")
    times = [event["accepted_at"] for event in found[:MOST_COUNTED]]
    return {
        "count": len(times),
        "more": reached is not None or len(found) > MOST_COUNTED,
        "missing": gone["count"] if actor.subscriber_id is None else 0,  # what others had is not a partner's to know
        "second_deliveries": 0,
        "wider": 0,
        "ordering_keys": len({event["ordering_key"] for event in found} - {None}),
        "oldest": min(times, default=None),
        "newest": max(times, default=None),
        "minutes": len(times) / _rate(endpoint) / 60,
        "notes": notes,
    }


async def create(
    change: Change, endpoint_id: UUID, given: Mapping[str, Any], counted: Mapping[str, Any]
) -> RowMapping | Refusal:
    """A job over what was accepted before it, oldest first, of which so much was ``counted`` by a `preview`."""
    if refused := await change.needs_current_workers() or await replays_more(change, 1, as_job=True):
        return refused
    given = {"endpoint_id": endpoint_id, **given}
    return await start(
        change, "backfill", as_filter(change.actor, given), None if counted["more"] else counted["count"], given
    )


async def run_some(connection: Connection, vault: Vault) -> int | None:
    """Queues the next events of the next open job, as many as its endpoint takes in some seconds, in one transaction.

    Returns:
        How many were queued, or None where no job has its turn.
    """
    async with connection.transaction():
        if (job := await replays.next_job(connection, "backfill")) is None:
            return None
        wanted = json.loads(job["filter"])
        low, high = replays.bounds(wanted, job["cursor"], job["id"])
        try:
            endpoint = await configuration.endpoint(connection, vault, UUID(wanted["endpoint_id"]))
            moved_at = (endpoint and endpoint.host_changed_at) or 0.0  # to a host that might be somebody else's
            if endpoint is None or endpoint.state is EndpointState.DISABLED or moved_at > job["created_at"].timestamp():
                await replays.advance(connection, job["id"], "cancelled")
                return 0
            rate = _rate(endpoint)
            most = min(ceil(rate * PACE), AT_ONCE)
            events, reached = await _next(connection, vault, endpoint, wanted, (low, high), most)
        except (KeyMissing, Tampered):  # of its filter: nothing is sent by one that can't be asked
            await replays.advance(connection, job["id"], "running", wait=LATER)
            return 0
        await backfills.enqueue(connection, endpoint, events)
        state = "done" if reached is None else "running"
        await replays.advance(connection, job["id"], state, reached, done=len(events), wait=len(events) / rate)
    return len(events)


def _refused(actor: Actor, endpoint: Endpoint, given: Mapping[str, Any]) -> Refusal | None:
    if endpoint.state is EndpointState.DISABLED:
        return Conflict.ENDPOINT_DISABLED
    if not allows(actor.scopes, Scope.PAYLOAD_READ):
        return NotHeld((f"{Scope.PAYLOAD_READ.value}, for what came before the endpoint could have it",))
    if "type" in given and not may_have(endpoint.event_types, given["type"]):
        remedy = "Give a type that the endpoint gets: see its effective_event_types."
        return Invalid((Fault("not_wanted", remedy, pointer="/type"),))
    beyond = tuple(pattern for pattern in _types(endpoint, given) if not actor.may_want(pattern))
    return NotHeld(beyond) if beyond else None


async def _next(
    connection: Connection,
    vault: Vault,
    endpoint: Endpoint,
    wanted: Mapping[str, Any],
    between: tuple[UUID, UUID],
    most: int,
) -> tuple[list[Any], UUID | None]:
    """The next events that it would have had, and up to where they were looked for; None where no more are left."""
    rows = await backfills.earlier(connection, between, endpoint, _types(endpoint, wanted))
    found = [row for row in rows if row["wanted"]]
    reached = rows[-1]["id"] if rows else None
    if endpoint.is_filtered:
        most = min(most, max(sum(size <= SLICE_BYTES for size in accumulate(row["size"] for row in found)), 1))
    if len(found) > most:
        found = found[:most]
        reached = found[-1]["id"]
    if endpoint.is_filtered:
        sealed = await bodies.bodies(connection, [row["id"] for row in found])
        found = [row for row in found if row["id"] in sealed and _wants(vault, endpoint, row["id"], sealed[row["id"]])]
    return found, reached


def _wants(vault: Vault, endpoint: Endpoint, event_id: UUID, sealed: bytes) -> bool:
    try:
        body = vault.open(endpoint.tenant_id, "events", event_id, sealed)
    except Tampered:
        return True  # nobody gets it: its attempt says so
    return endpoint.filter is not None and bool(endpoint.filter.matches(read_data(body)))


def _types(endpoint: Endpoint, wanted: Mapping[str, Any]) -> tuple[str, ...]:
    if "type" not in wanted:
        return endpoint.event_types
    return (wanted["type"],) if may_have(endpoint.event_types, wanted["type"]) else ()


def _rate(endpoint: Endpoint) -> float:
    return endpoint.rate or forwarding.RATE
