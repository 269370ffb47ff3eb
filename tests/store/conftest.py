"""A hospital in a real database: a tenant with keys, endpoints, and short ways to post, fan out and claim."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.delivery.clock import Clock
from webhook_gateway.delivery.dispatch import Dispatch
from webhook_gateway.delivery.due import Due
from webhook_gateway.delivery.registry import LONG_AGO, Registry
from webhook_gateway.delivery.slots import Slots
from webhook_gateway.intake.events import NewEvent, prepare
from webhook_gateway.rules import signing
from webhook_gateway.rules.model import Delivery
from webhook_gateway.store import configuration, deliveries, keyring, outbox, tenants
from webhook_gateway.store.database import Database
from webhook_gateway.store.deliveries import Finished, Wanted


@dataclass
class Hospital:
    """What a test needs of the road without the processes around it."""

    database: Database
    vault: Vault
    tenant_id: UUID
    subscriber_id: UUID
    dispatch: Dispatch = field(init=False)

    def __post_init__(self) -> None:
        clock, registry = Clock(), Registry()
        no_slots = Slots(clock, registry, Due(clock, registry), concurrency=0)
        self.dispatch = Dispatch(self.database, self.vault, registry, no_slots)

    async def endpoint(self, *patterns: str, ordering: str = "relaxed") -> UUID:
        endpoint_id, secret_id = uuid7(), uuid7()
        secret = self.vault.seal(
            self.tenant_id, "endpoint_secrets", secret_id, signing.render_secret(os.urandom(32)).encode()
        )
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO endpoints (id, tenant_id, subscriber_id, url, event_types, ordering) "
                "VALUES ($1, $2, $3, 'https://partner.example/hook', $4, $5)",
                endpoint_id,
                self.tenant_id,
                self.subscriber_id,
                list(patterns) or ["*"],
                ordering,
            )
            await connection.execute(
                "INSERT INTO endpoint_secrets (id, tenant_id, endpoint_id, secret) VALUES ($1, $2, $3, $4)",
                secret_id,
                self.tenant_id,
                endpoint_id,
                secret,
            )
            await configuration.changed(connection)
        return endpoint_id

    async def post(self, *ordering_keys: str | None, type: str = "lab_result.final") -> list[UUID]:
        """Stores one event for each ordering key, in this order."""
        events = [self.prepared(key, type, n) for n, key in enumerate(ordering_keys)]
        async with self.database.connection() as connection:
            await outbox.append(connection, events)
        return [event.id for event in events]

    def prepared(self, key: str | None, type: str = "lab_result.final", n: int = 0) -> outbox.Appended:
        """An event as it goes into the outbox."""
        event = NewEvent(type, json.dumps({"n": n}).encode(), {}, ordering_key=key)
        return prepare(self.vault, self.tenant_id, event, None)

    async def fan_out(self) -> int:
        taken = 0
        while done := (await self.dispatch.fan_out()).taken:
            taken += done
        return taken

    async def claim(self, endpoint_id: UUID, free: int = 100, lease: float = 30.0) -> list[Delivery]:
        async with self.database.connection() as connection:
            wanted = [Wanted(endpoint_id, free, LONG_AGO, lease)]
            claim = await deliveries.claim(connection, wanted, uuid7())
        claimed = [delivery for one in claim.endpoints.values() for delivery in one.deliveries]
        return sorted(claimed, key=lambda delivery: delivery.sequence)

    async def finish(self, *claimed: Delivery, state: str = "delivered", hold: bool = False) -> int:
        async with self.database.connection() as connection, connection.transaction():
            finished = [Finished(d, state, hold=hold) for d in claimed]
            return len((await deliveries.settle(connection, [], finished, [])).ours)

    async def rows(self, query: str, *values: object) -> list[asyncpg.Record]:
        async with self.database.connection() as connection:
            return list(await connection.fetch(query, *values))

    async def count(self, what: str) -> int:
        async with self.database.connection() as connection:
            return int(await connection.fetchval(f"SELECT count(*) FROM {what}"))


@pytest.fixture
async def hospital(database_url: str) -> AsyncIterator[Hospital]:
    database = Database(database_url, connections=10)
    vault = Vault(MasterKeys({"test": os.urandom(32)}))
    subscriber_id = uuid7()
    async with database.connection() as connection:
        tenant_id = await tenants.make(connection, vault)
        await connection.execute(
            "INSERT INTO subscribers (id, tenant_id, name) VALUES ($1, $2, 'Laboratory')", subscriber_id, tenant_id
        )
    await keyring.fill(database, vault)
    yield Hospital(database, vault, tenant_id, subscriber_id)
    await database.close()
