"""Who changed what. Append-only, and each tenant's rows are chained: a row's hash covers the hash before it.

The chain shows that no row was changed, added or taken out in between. That none was cut off at the end, and that the
chain was not made anew as a whole, shows only against what was noted elsewhere: a signed `head`, or an export.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.crypto.audit_chain import FIRST, Head, hash_of, sign_head
from webhook_gateway.crypto.signatures import encode_private_key, public_key_of
from webhook_gateway.crypto.vault import Vault

from .driver import driver_of
from .keyring import audit_key
from .rows import every
from .tables import audit_log


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was done. ``source`` is the client's address, or ``local``.

    ``actor`` is a key's id, ``oidc:`` and the subject of a token, ``cli:`` and the operating system's user, or
    ``gateway`` for what it did by itself.

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


async def lock(connection: AsyncConnection, tenant_id: UUID) -> None:
    """Holds the tenant's chain until the transaction ends."""
    chain = text("SELECT pg_advisory_xact_lock(hashtextextended(:chain, 0))")
    await connection.execute(chain, {"chain": f"audit {tenant_id}"})


async def write(connection: AsyncConnection, tenant_id: UUID, entry: Entry) -> None:
    """Appends to the tenant's chain, in the transaction that makes the change.

    Holds the chain until the transaction ends, so it stands at the end of one.
    """
    await lock(connection, tenant_id)
    # A statement of its own: only a snapshot taken after the lock sees who had it before.
    sequence, previous_hash = await _last(connection, tenant_id)
    row: dict[str, Any] = {
        "tenant_id": tenant_id,
        "sequence": sequence + 1,
        "at": await connection.scalar(select(func.clock_timestamp())),
        "actor": entry.actor,
        "source": entry.source,
        "action": entry.action,
        "target": entry.target,
        "before": _plain(entry.before),
        "after": _plain(entry.after),
        "previous_hash": previous_hash,
    }
    await connection.execute(insert(audit_log).values(**row, hash=hash_of(row)))


async def page(
    connection: AsyncConnection,
    tenant_id: UUID,
    *,
    before: int | None,
    limit: int,
    target: str | None,
    actor: str | None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[RowMapping]:
    """Rows, newest first, from below the sequence ``before``; ``since`` and ``until`` bound when it was done."""
    log, sequence = audit_log.c, audit_log.c.sequence
    rows = select(audit_log).where(log.tenant_id == tenant_id)
    # Sequences follow time, so two probes find where it begins and ends; by time itself all of it might be walked.
    probe = select(sequence).where(log.tenant_id == tenant_id).limit(1)
    if since is not None:
        first = probe.where(log.at >= since).order_by(log.at, sequence).scalar_subquery()
        rows = rows.where(sequence >= first, -sequence <= -first)
    if until is not None:
        last = probe.where(log.at < until).order_by(log.at.desc(), sequence.desc()).scalar_subquery()
        rows = rows.where(sequence <= last, -sequence >= -last)
    if target is not None:
        rows = rows.where(audit_log.c.target == target)
    if actor is not None:
        rows = rows.where(audit_log.c.actor == actor)
    if target is None and actor is None:
        rows = rows.where(sequence < before) if before is not None else rows
        return await every(connection, rows.order_by(sequence.desc()).limit(limit))
    # By the indexes of these, which alone have it so: the primary key would be walked to whoever is long gone.
    rows = rows.where(-sequence > -before) if before is not None else rows
    return await every(connection, rows.order_by(-sequence).limit(limit))


async def head(connection: AsyncConnection, vault: Vault, tenant_id: UUID, now: datetime) -> Head:
    """The chain's last row, signed. The tenant's first one makes the key for it, which is noted in the chain.

    Signs what stands there; whether the chain leads to it, `verify` says.

    Raises:
        KeyMissing, Tampered: the key is there and can't be unwrapped.
    """
    seed, made = await audit_key(await driver_of(connection), vault, tenant_id)
    key = encode_private_key(seed)
    if made:
        await write(connection, tenant_id, Entry("gateway", "local", "audit_key.created", public_key_of(key)))
    return sign_head(key, tenant_id, *await _last(connection, tenant_id), now)


async def entries(
    connection: AsyncConnection, tenant_id: UUID, *, since: int = 0, until: int | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """Rows in the order in which they were written: after the sequence ``since``, up to ``until``."""
    chain = select(audit_log).where(audit_log.c.tenant_id == tenant_id, audit_log.c.sequence > since)
    if until is not None:
        chain = chain.where(audit_log.c.sequence <= until)
    async with connection.stream(chain.order_by(audit_log.c.sequence)) as rows:
        async for row in rows.mappings():
            yield dict(row)


async def verify(connection: AsyncConnection, tenant_id: UUID, noted: Iterable[tuple[int, bytes]] = ()) -> Verification:
    """Walks the tenant's chain from its first row. Reads every row: seconds for a million.

    ``noted`` are sequences and hashes of before, in order: rows that have another hash now, or are gone, are broken.
    """
    reached, expected, before = 0, FIRST, iter(noted)
    due = next(before, None)
    async with aclosing(entries(connection, tenant_id)) as rows:
        async for row in rows:
            whole = row["sequence"] == reached + 1 and row["previous_hash"] == expected and row["hash"] == hash_of(row)
            while whole and due is not None and due[0] == reached + 1:
                whole, due = due[1] == row["hash"], next(before, None)
            if not whole:
                return Verification(reached, expected, broken_at=reached + 1)
            reached, expected = reached + 1, row["hash"]
    return Verification(reached, expected, broken_at=None if due is None else reached + 1)


async def _last(connection: AsyncConnection, tenant_id: UUID) -> tuple[int, bytes]:
    """Sequence and hash of the last row, or what stands before the first."""
    newest = select(audit_log.c.sequence, audit_log.c.hash).where(audit_log.c.tenant_id == tenant_id)
    last = (await connection.execute(newest.order_by(audit_log.c.sequence.desc()).limit(1))).first()
    return (last.sequence, last.hash) if last else (0, FIRST)


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
