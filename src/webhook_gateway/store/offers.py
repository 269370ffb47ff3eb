"""Offers of workers to send events of a type at once: the statement that stores few then makes their deliveries, too.

They are leased to that worker, which hears of them with their body (docs/decisions/0022-offers.md). Whatever an
offer was made by may have changed: then the event takes the long way, by the outbox.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from uuid import UUID

import msgspec
from asyncpg.pgproto.pgproto import UUID as DriverUUID

from .clock import time_near
from .database import Connection
from .deliveries import CHANCE
from .notifications import CHANNEL, OUTBOX
from .outbox import Appended

LEASED = "leased"
"""The first word of a notification of what was made and leased."""

OFFER = """
-- offer: to send at once what is stored from now on; not beside a worker that is too old to wait for such an append. It
-- need not wait for the disk: one that a crash takes is made again
INSERT INTO offers (worker_id, heard_on, tenant_id, type, version, endpoint_ids, chances, in_order, leases)
SELECT $1::uuid, $2::text, $3::uuid, $4::text, $5::bigint, $6::uuid[], $7::bigint[], $8::bool[], $9::float8[]
WHERE set_config('synchronous_commit', 'off', true) = 'off'
      AND NOT EXISTS (SELECT FROM workers WHERE outbox_above IS NULL AND seen_at > now() - interval '10 seconds')
ON CONFLICT (tenant_id, type) DO UPDATE SET
    worker_id = excluded.worker_id, heard_on = excluded.heard_on, version = excluded.version,
    endpoint_ids = excluded.endpoint_ids, chances = excluded.chances, in_order = excluded.in_order,
    leases = excluded.leases
"""

WITHDRAW = """
-- withdraw: one offer of a worker, or all
DELETE FROM offers WHERE worker_id = $1 AND ($2::uuid IS NULL OR (tenant_id, type) = ($2, $3))
"""

EACH = ["uuid", "uuid", "text", "timestamptz", "bigint", "int", "bytea", "bytea", "bytea", "text", "text", "bigint"]
"""What there is of each event, in the order of the functions' parameters. All values come one by one: the driver's
arrays cost more than all the rest of its part."""

BY_ITSELF = 5
"""So many events are stored by a call each. More share the parts of one statement, which costs as much to begin as
three such calls, and touches twice as much memory."""


@cache
def append_each(count: int) -> str:
    """Stores so many events, each with its deliveries where a worker has offered to send them at once. Of more than one
    those that are null are none: by these alone a session can have it planned."""
    calls = [_append_one(at, len(EACH) * count + 1) for at in range(1, len(EACH) * count, len(EACH))]
    if count > 1:
        calls = [f"CASE WHEN ${1 + len(EACH) * at}::uuid IS NOT NULL THEN {call} END" for at, call in enumerate(calls)]
    return f"""
-- append by offer: each event, and its deliveries where a worker has offered to send them at once
SELECT {", ".join(calls)}
"""


def _append_one(first: int, now: int) -> str:
    """Of the event that has the parameters from ``first`` on; its lease has its own id."""
    *values, lookups, begins, ends = (f"${at}" for at in range(first, first + len(EACH)))
    may = f"{time_near(f'${now}', 'NULL')} IS NOT NULL"
    return (
        f"append_one({', '.join(values)}, {lookups}::text::uuid[], {may}, {begins}, {ends}, {values[0]}, "
        f"${now + 1}, ${now + 2})"
    )


@cache
def append_few(count: int) -> str:
    """The same for more; deliveries are made of all of them, or of none."""
    now = len(EACH) * count + 1
    *events, begins, ends = (
        f"ARRAY[{', '.join(f'${at}' for at in range(column, now, len(EACH)))}]::{kind}[]"
        for column, kind in enumerate(EACH, 1)
    )
    return f"""
-- append few by offer: more events that come together
SELECT * FROM append_few({", ".join(events)}, {time_near(f"${now}", "NULL")} IS NOT NULL,
                         {begins}, {ends}, ${now + 1}, ${now + 2}, ${now + 3})
"""


class Offer(msgspec.Struct, frozen=True):
    """In the order of `OFFER`. ``version`` is the configuration's, ``leases`` are in seconds."""

    tenant_id: UUID
    type: str
    version: int
    endpoint_ids: Sequence[UUID]
    in_order: Sequence[bool]
    leases: Sequence[float]


class Handed(msgspec.Struct, frozen=True):
    """What was stored for a worker: for these endpoints it has leased deliveries. ``waits``: there are others, behind
    earlier ones of their ordering key. ``body`` is sealed; None where it has to be asked for."""

    lease_id: UUID
    leased_at: float
    """By the database's clock, in Unix seconds."""
    endpoint_ids: Sequence[UUID]
    waits: bool
    tenant_id: UUID
    event_id: UUID
    type: str
    ordering_key: int | None
    body: bytes | None


async def offer(connection: Connection, worker_id: UUID, heard_on: str, made: Offer) -> None:
    chances = [endpoint_id.int & CHANCE for endpoint_id in made.endpoint_ids]
    about = made.tenant_id, made.type, made.version, made.endpoint_ids, chances, made.in_order, made.leases
    await connection.execute(OFFER, worker_id, heard_on, *about)


async def withdraw(
    connection: Connection, worker_id: UUID, tenant_id: UUID | None = None, event_type: str | None = None
) -> None:
    """What the worker has offered for that type, or all that it has."""
    await connection.execute(WITHDRAW, worker_id, tenant_id, event_type)


async def append(connection: Connection, events: Sequence[Appended], now: float) -> dict[UUID, datetime]:
    """As `outbox.append` of few that are for whoever wants them, no two of one ordering key. ``now`` is the database's
    time as far as it is known."""
    values: list[object] = []
    by_itself = len(events) <= BY_ITSELF
    if by_itself and len(events) > 1:  # in one order everywhere, or two that store the same keys wait for each other
        events = sorted(events, key=lambda event: (event.tenant_id, event.key or b""))
    for event in events:
        begins, ends = divmod(event.id.int + (1 << 80), 1 << 64)
        values += msgspec.structs.astuple(event)[:9]
        values += event.lookups, f"{begins:016x}", ends - (1 << 64)  # RFC 9562's variant
    if by_itself:
        (times,) = await connection.fetch(append_each(len(events)), *values, now, CHANNEL, OUTBOX)
        return {event.id: at for event, at in zip(events, times, strict=True) if at is not None}
    ((accepted_at, stored),) = await connection.fetch(
        append_few(len(events)), *values, now, events[0].id, CHANNEL, OUTBOX
    )
    return dict.fromkeys([event.id for event in events] if stored is None else stored, accepted_at)


async def plan(connection: Connection) -> None:
    """Does what a session has to do once before a few events are stored: it takes as long as ten of their commits."""
    for count in range(2, BY_ITSELF + 1):
        await connection.fetch(append_each(count), *[None] * len(EACH) * count, 0.0, CHANNEL, OUTBOX)
    await connection.fetch(append_few(0), 0.0, UUID(int=0), CHANNEL, OUTBOX)


def read_handed(words: str) -> Handed:
    """What a notification said after `LEASED`.

    Raises:
        ValueError: nothing that we would say.
    """
    lease, at, count, leased, tenant, event, kind, key, *body = words.split(" ", 8)
    endpoint_ids = [DriverUUID(endpoint_id) for endpoint_id in leased.split(",") if endpoint_id != "-"]
    return Handed(
        *(DriverUUID(lease), float(at), endpoint_ids, len(endpoint_ids) < int(count), DriverUUID(tenant)),
        *(DriverUUID(event), kind),
        *(None if key == "-" else int(key), a2b_base64(body[0]) if body else None),
    )
