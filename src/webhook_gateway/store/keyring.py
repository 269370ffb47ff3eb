"""Data keys in Postgres, and how they come into a vault."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from webhook_gateway.crypto.vault import KEY_BYTES, DataKey, KeyMissing, Tampered, Vault

from .database import Connection, Database

PAGE = 100

LOAD = """
-- load data keys: every key, since a record may be as old as the retention
SELECT id, tenant_id, purpose, master_key, wrapped FROM data_keys ORDER BY id
"""

MADE = "SELECT purpose FROM data_keys WHERE tenant_id = $1"

MAKE = """
-- make a data key: once for each tenant and purpose, whoever comes first
INSERT INTO data_keys (tenant_id, purpose, master_key, wrapped)
SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT FROM data_keys WHERE tenant_id = $1 AND purpose = $2)
"""

AUDIT_KEY = """
-- audit key: what signs a tenant's audit heads
SELECT id, tenant_id, purpose, master_key, wrapped FROM data_keys WHERE tenant_id = $1 AND purpose = 'audit'
ORDER BY id DESC LIMIT 1
"""

ROTATE = """
-- rotate: a newer key for what is sealed from now on; the older ones stay, for what they have sealed
INSERT INTO data_keys (tenant_id, purpose, master_key, wrapped) VALUES ($1, 'seal', $2, $3) RETURNING id
"""

NEEDED = """
-- needed: which master keys the data keys are wrapped by
SELECT master_key, count(*) AS data_keys FROM data_keys GROUP BY master_key ORDER BY master_key
"""

STALE = """
-- stale: a page of data keys that another master key wraps than the newest
SELECT id, tenant_id, purpose, master_key, wrapped FROM data_keys WHERE master_key <> $1 AND id > $2
ORDER BY id LIMIT $3
"""

REWRAP = """
-- rewrap: only what nobody else has rewrapped meanwhile
UPDATE data_keys SET master_key = $2, wrapped = $3 WHERE id = $1 AND master_key = $4 RETURNING tenant_id
"""

COUNT = """
-- count: what data keys have sealed, in one order for all processes
UPDATE data_keys k SET sealed = k.sealed + n.sealed
FROM (SELECT id FROM data_keys WHERE id = ANY($1::int[]) ORDER BY id FOR NO KEY UPDATE) locked
JOIN unnest($1::int[], $2::bigint[]) AS n (id, sealed) ON n.id = locked.id
WHERE k.id = locked.id
"""

COUNTED = 1_000
"""Records that a process seals before it writes their number down: it may forget as many when it ends."""

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('data_keys', 0))"


async def fill(database: Database, vault: Vault) -> list[str]:
    """Takes the data keys that it lacks into the vault; returns what was missing, one sentence a key."""
    async with database.connection() as connection:
        rows = [DataKey(**dict(row)) for row in await connection.fetch(LOAD)]
    lacking = [row for row in rows if not vault.has(row.id)]
    if not lacking:
        return []
    opened, missing = await asyncio.to_thread(_unwrap, vault, lacking)
    for data_key, key in opened:
        vault.take(data_key, key)
    return missing


async def count(database: Database, vault: Vault) -> None:
    """Writes down how many records each data key has sealed here, where there are many. One too many is no harm."""
    if vault.sealed.total() < COUNTED:
        return
    sealed, vault.sealed = vault.sealed, Counter()
    try:
        async with database.connection() as connection:
            await connection.execute(COUNT, list(sealed), list(sealed.values()))
    except BaseException:
        vault.sealed.update(sealed)
        raise


async def make_keys(connection: Connection, vault: Vault, tenant_id: UUID) -> None:
    """Gives a new tenant its two data keys. Safe to call again."""
    async with connection.transaction():
        await connection.execute(LOCK)
        made = {row["purpose"] for row in await connection.fetch(MADE, tenant_id)}
        for purpose in ("seal", "index"):
            if purpose not in made:
                name, wrapped = await _wrap(vault, tenant_id, purpose, os.urandom(KEY_BYTES))
                await connection.execute(MAKE, tenant_id, purpose, name, wrapped)


async def rotate(connection: Connection, vault: Vault, tenant_id: UUID) -> int:
    """The id of a new data key that seals the tenant's records from now on, in the caller's transaction.

    Processes take it into use when they see that the configuration has changed: that is left to the caller.
    """
    await connection.execute(LOCK)
    name, wrapped = await _wrap(vault, tenant_id, "seal", os.urandom(KEY_BYTES))
    return int(await connection.fetchval(ROTATE, tenant_id, name, wrapped))


async def audit_key(connection: Connection, vault: Vault, tenant_id: UUID) -> tuple[bytes, bool]:
    """The seed that signs heads of the tenant's audit log, and whether it was made just now: at the first head.

    Inside the caller's transaction.

    Raises:
        KeyMissing, Tampered: see `Wrapping.unwrap`.
    """
    if (known := vault.audit_key(tenant_id)) is not None:
        return known, False
    await connection.execute(LOCK)
    found = await connection.fetchrow(AUDIT_KEY, tenant_id)
    if found is None:
        seed = os.urandom(KEY_BYTES)
        await connection.execute(MAKE, tenant_id, "audit", *await _wrap(vault, tenant_id, "audit", seed))
        return seed, True
    data_key = DataKey(**dict(found))
    seed = await asyncio.to_thread(vault.master_keys.unwrap, data_key)
    vault.take(data_key, seed)
    return seed, False


async def needed(connection: Connection) -> dict[str, int]:
    """By the name of a master key: how many data keys it wraps. None of these may be thrown away."""
    return {row["master_key"]: row["data_keys"] for row in await connection.fetch(NEEDED)}


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """One data key after it was tried. ``problem`` says why it still has its old master key."""

    tenant_id: UUID
    problem: str | None = None


async def rewrap(database: Database, vault: Vault) -> AsyncIterator[Rewrapped]:
    """Wraps every data key by the newest master key, one after the other, while the gateway works.

    Safe to break off, to repeat, and to run twice at once: records and the keys in use stay as they are.
    """
    newest, after = vault.master_keys.newest, 0
    while True:
        async with database.connection() as connection:
            page = [DataKey(**dict(row)) for row in await connection.fetch(STALE, newest, after, PAGE)]
        if not page:
            return
        for data_key in page:
            yield await _rewrap(database, vault, data_key)
        after = page[-1].id


async def _rewrap(database: Database, vault: Vault, data_key: DataKey) -> Rewrapped:
    try:
        key = await asyncio.to_thread(vault.master_keys.unwrap, data_key)
    except (KeyMissing, Tampered) as error:
        return Rewrapped(data_key.tenant_id, _sentence(data_key, error))
    name, wrapped = await _wrap(vault, data_key.tenant_id, data_key.purpose, key)
    async with database.connection() as connection:
        await connection.fetchval(REWRAP, data_key.id, name, wrapped, data_key.master_key)
    return Rewrapped(data_key.tenant_id)


async def _wrap(vault: Vault, tenant_id: UUID, purpose: str, key: bytes) -> tuple[str, bytes]:
    return await asyncio.to_thread(vault.master_keys.wrap, tenant_id, purpose, key)


def _unwrap(vault: Vault, data_keys: list[DataKey]) -> tuple[list[tuple[DataKey, bytes]], list[str]]:
    opened, missing = [], []
    for data_key in data_keys:
        try:
            opened.append((data_key, vault.master_keys.unwrap(data_key)))
        except (KeyMissing, Tampered) as error:
            missing.append(_sentence(data_key, error))
    return opened, missing


def _sentence(data_key: DataKey, error: Exception) -> str:
    if isinstance(error, Tampered):
        return f"data key {data_key.id} does not open with the master key named {data_key.master_key!r}"
    return f"data key {data_key.id}: {error}"
