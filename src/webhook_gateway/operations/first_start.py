"""What a gateway needs before its first request: a tenant, and a key to ask with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import gateway_status, tenants
from webhook_gateway.store.database import Database
from webhook_gateway.store.keys import NewKey

from . import keys
from .change import changing, local_actor

NO_TENANT = local_actor(UUID(int=0))
"""Who is at this machine before there is a tenant; `keys.create_with_tenant` gives them one."""


async def first_key(url: str, master_keys: MasterKeys) -> str | None:
    """An administrator's key where there has never been any key, or None.

    Raises:
        DatabaseUnavailable: see `Database`.
    """
    database = Database(url, connections=2)
    try:
        async with database.connection() as connection:
            if await gateway_status.has_keys(connection):
                return None
        _, key = await issue_key(database, Vault(master_keys), "first administrator", [Scope.ADMIN])
        return key
    finally:
        await database.close()


async def issue_key(
    database: Database, vault: Vault, name: str, scopes: Sequence[str], **restrictions: Any
) -> tuple[str, str]:
    """The id of a new API key of the default tenant, which is made if need be, and the key, which is shown only now.

    ``restrictions`` are the other fields of `store.keys.NewKey`.

    Raises:
        ValueError: it is refused.
    """
    async with changing(database, NO_TENANT) as change:
        made = await keys.create_with_tenant(change, vault, tenants.DEFAULT, NewKey(name, scopes, **restrictions))
        if not isinstance(made, tuple):
            raise ValueError(str(made))
    return ids.render(ids.KEY, made[0]["id"]), made[1]
