"""Who changed what. Append-only, and each tenant's rows are chained: a row's hash covers the hash before it.

The chain shows that no row was changed, added or taken out in between. That none was cut off at the end shows only
against a hash noted elsewhere: `verify` returns the last one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from .rows import every
from .tables import audit_log

FIRST = bytes(32)
"""What stands for the hash before the first row's."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was done. ``actor`` is a key's id or ``cli``, ``source`` the client's address.

    ``before`` and ``after`` hold names and numbers, never a secret, a header's value or an event's data.
    """

    actor: str
    source: str
    action: str
    target: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """``broken_at`` is the sequence of the first row that doesn't fit; None means that the chain is whole."""

    entries: int
    last_hash: bytes
    broken_at: int | None = None


async def write(connection: AsyncConnection, tenant_id: UUID, change: Change) -> None:
    """Appends to the tenant's chain, in the transaction that makes the change.

    Holds the chain until the transaction ends, so it stands at the end of one.
    """
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:chain, 0))"), {"chain": f"audit {tenant_id}"}
    )
    # A statement of its own: only a snapshot taken after the lock sees who had it before.
    last = (
        await connection.execute(
            select(audit_log.c.sequence, audit_log.c.hash)
            .where(audit_log.c.tenant_id == tenant_id)
            .order_by(audit_log.c.sequence.desc())
            .limit(1)
        )
    ).first()
    row: dict[str, Any] = {
        "tenant_id": tenant_id,
        "sequence": last.sequence + 1 if last else 1,
        "at": await connection.scalar(select(func.clock_timestamp())),
        "actor": change.actor,
        "source": change.source,
        "action": change.action,
        "target": change.target,
        "before": _plain(change.before),
        "after": _plain(change.after),
        "previous_hash": last.hash if last else FIRST,
    }
    await connection.execute(insert(audit_log).values(**row, hash=_hash(row)))


async def page(
    connection: AsyncConnection,
    tenant_id: UUID,
    *,
    before: int | None,
    limit: int,
    target: str | None,
    actor: str | None,
) -> list[RowMapping]:
    """Rows, newest first, from below the sequence ``before``."""
    rows = select(audit_log).where(audit_log.c.tenant_id == tenant_id)
    if before is not None:
        rows = rows.where(audit_log.c.sequence < before)
    if target is not None:
        rows = rows.where(audit_log.c.target == target)
    if actor is not None:
        rows = rows.where(audit_log.c.actor == actor)
    return await every(connection, rows.order_by(audit_log.c.sequence.desc()).limit(limit))


async def verify(connection: AsyncConnection, tenant_id: UUID) -> Verification:
    """Walks the tenant's chain from its first row. Reads every row: seconds for a million."""
    entries, expected = 0, FIRST
    chain = select(audit_log).where(audit_log.c.tenant_id == tenant_id).order_by(audit_log.c.sequence)
    async with connection.stream(chain) as rows:
        async for row in rows.mappings():
            linked = row["sequence"] == entries + 1 and row["previous_hash"] == expected
            if not linked or row["hash"] != _hash(dict(row)):
                return Verification(entries, expected, broken_at=entries + 1)
            entries, expected = entries + 1, row["hash"]
    return Verification(entries, expected)


def _hash(row: Mapping[str, Any]) -> bytes:
    """SHA-256 of everything else in the row, as JSON with sorted members and no white space."""
    at: datetime = row["at"]
    covered = {
        "tenant_id": str(row["tenant_id"]),
        "sequence": row["sequence"],
        "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
        **{name: row[name] for name in ("actor", "source", "action", "target", "before", "after")},
        "previous_hash": row["previous_hash"].hex(),
    }
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()).digest()


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """As JSON can hold it, so that what is hashed now is what will be read later."""
    if values is None:
        return None
    plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=_written))
    return plain


def _written(value: object) -> object:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case set() | frozenset() | tuple():
            return sorted(value)
        case _:
            return str(value)
