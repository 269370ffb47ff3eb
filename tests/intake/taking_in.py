"""Intake without its HTTP: what tests of its queue and its commits begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.commits import Receipt
from webhook_gateway.intake.events import NewEvent
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.store import keyring, tenants
from webhook_gateway.store.database import Database

DATA = {"shift_id": "shf_81", "staff_id": "st_19", "version": 1}
EVENT = NewEvent(
    type="staff_shift.cancelled", data=b'{"shift_id":"shf_81","staff_id":"st_19","version":1}', parsed=DATA
)


@dataclass(frozen=True)
class TakingIn:
    """``until`` is a minute away, by monotonic time."""

    ingest: Ingest
    database: Database
    tenants: list[UUID]
    until: float

    async def post(self, tenant_id: UUID) -> None:
        assert isinstance(await self.ingest.accept(tenant_id, EVENT, self.until), Receipt)


@asynccontextmanager
async def taking_in(database_url: str, *names: str) -> AsyncIterator[TakingIn]:
    """For tenants of these names."""
    database, vault = Database(database_url, connections=3, patience=60.0), Vault(MasterKeys({"test": bytes(32)}))
    try:
        async with database.connection() as connection:
            made = [await tenants.make(connection, vault, name) for name in names]
        await keyring.fill(database, vault)
        yield TakingIn(Ingest(database, vault, Catalogue()), database, made, monotonic() + 60)
    finally:
        await database.close()
