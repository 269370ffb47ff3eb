"""Tenants: one hospital each. ``default`` is made at first start, so that a single hospital never sees the word."""

from __future__ import annotations

from uuid import UUID

import uuid_utils.compat as uuid_utils

from webhook_gateway.crypto.vault import Vault

from .database import Connection
from .keyring import make_keys

DEFAULT = "default"

MAKE = """
-- make a tenant: whoever comes first
INSERT INTO tenants (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING
"""

FIND = "SELECT id FROM tenants WHERE name = $1"


async def make(connection: Connection, vault: Vault, name: str = DEFAULT) -> UUID:
    """The tenant of that name with its data keys, made where they are missing. Safe to call again, and by several."""
    async with connection.transaction():
        await connection.execute(MAKE, uuid_utils.uuid7(), name)
        tenant_id = UUID(str(await connection.fetchval(FIND, name)))
        await make_keys(connection, vault, tenant_id)
    return tenant_id


async def find(connection: Connection, name: str = DEFAULT) -> UUID | None:
    found = await connection.fetchval(FIND, name)
    return None if found is None else UUID(str(found))


async def every(connection: Connection) -> list[UUID]:
    return [row["id"] for row in await connection.fetch("SELECT id FROM tenants ORDER BY id")]
