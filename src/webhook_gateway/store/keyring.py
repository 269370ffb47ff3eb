"""Data keys in Postgres, and how they come into a vault."""

from __future__ import annotations

import os
from uuid import UUID

from ..vault import KEY_BYTES, DataKey, KeyMissing, Tampered, Vault
from .database import Connection, Database

LOAD = """
-- load data keys: every key, since a record may be as old as the retention
SELECT id, tenant_id, purpose, master_key, wrapped FROM data_keys WHERE id > $1 ORDER BY id
"""

MAKE = """
-- make a data key: once for each tenant and purpose, whoever comes first
INSERT INTO data_keys (tenant_id, purpose, master_key, wrapped)
SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT FROM data_keys WHERE tenant_id = $1 AND purpose = $2)
"""


async def fill(database: Database, vault: Vault) -> list[str]:
    """Takes every data key into the vault; returns what was missing, one sentence a key."""
    async with database.road() as connection:
        rows = await connection.fetch(LOAD, 0)
    missing = []
    for row in rows:
        try:
            vault.add(DataKey(**dict(row)))
        except (KeyMissing, Tampered) as problem:
            missing.append(str(problem))
    return missing


async def make_keys(connection: Connection, vault: Vault, tenant_id: UUID) -> None:
    """Gives a new tenant its two data keys. Safe to call again."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('data_keys', 0))")
        for purpose in ("seal", "index"):
            name, wrapped = vault.master_keys.wrap(tenant_id, purpose, os.urandom(KEY_BYTES))
            await connection.execute(MAKE, tenant_id, purpose, name, wrapped)
