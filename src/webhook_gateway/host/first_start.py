"""What a gateway needs before its first request: a schema, a tenant, and a key to ask with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.rules import ids
from webhook_gateway.store import audit, endpoint_status, keys, tenants
from webhook_gateway.store.database import Database
from webhook_gateway.store.driver import driver_of


async def first_key(url: str, master_keys: MasterKeys) -> str | None:
    """An administrator's key where there has never been any key, or None.

    Raises:
        DatabaseUnavailable: see `Database`.
    """
    database = Database(url, connections=2)
    try:
        async with database.connection() as connection:
            if await endpoint_status.has_keys(connection):
                return None
        _, key = await issue_key(database, Vault(master_keys), "first administrator", ["admin"])
        return key
    finally:
        await database.close()


async def issue_key(
    database: Database,
    vault: Vault,
    name: str,
    scopes: Sequence[str],
    *,
    tenant: str = tenants.DEFAULT,
    role: str | None = None,
    **restrictions: Any,
) -> tuple[str, str]:
    """The id of a new API key and the key itself, which is shown only now. Makes the tenant if need be.

    ``role`` is where the scopes came from, for the audit log; ``restrictions`` are the other fields of
    `store.keys.NewKey`.
    """
    async with database.begin() as connection:
        driver = await driver_of(connection)
        is_new = await tenants.find(driver, tenant) is None
        tenant_id = await tenants.make(driver, vault, tenant)
        row, key = await keys.issue(connection, keys.NewKey(tenant_id, name, scopes, **restrictions))
        key_id = ids.render(ids.KEY, row["id"])
        if is_new:
            made = audit.Change(
                "cli", "local", "tenant.created", ids.render(ids.TENANT, tenant_id), None, {"name": tenant}
            )
            await audit.write(connection, tenant_id, made)
        after = _permissions(dict(row)) | ({"role": role} if role else {})
        await audit.write(connection, tenant_id, audit.Change("cli", "local", "key.created", key_id, after=after))
    return key_id, key


def _permissions(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the key may do, and what holds it back; never the key, of which its beginning is only the name."""
    names = ("name", "prefix", "scopes", "event_types", "networks", "expires_at")
    found = {name: row[name] for name in names if row[name] is not None}
    if row["subscriber_id"] is not None:
        found["subscriber_id"] = ids.render(ids.SUBSCRIBER, row["subscriber_id"])
    return found
