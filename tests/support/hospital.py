"""A hospital in a real database: a tenant with keys, its endpoints, what it posts, and workers in this process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from tests.support.rows import SUBSCRIBER
from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.delivery.bodies import Bodies
from webhook_gateway.delivery.dispatch import Dispatch
from webhook_gateway.delivery.due import Due
from webhook_gateway.delivery.registry import LONG_AGO, Registry
from webhook_gateway.delivery.slots import Slots
from webhook_gateway.delivery.worker import Worker
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.commits import Receipt
from webhook_gateway.intake.events import NewEvent, prepare
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.outbound.policy import policy_from
from webhook_gateway.outbound.sender import Sender
from webhook_gateway.rules import signing
from webhook_gateway.rules.model import Delivery, DeliveryState
from webhook_gateway.settings import Settings
from webhook_gateway.store import configuration, deliveries, keyring, outbox, replays, tenants
from webhook_gateway.store.clock import Clock
from webhook_gateway.store.database import Database
from webhook_gateway.store.deliveries import Finished, Wanted
from webhook_gateway.store.notifications import CONFIGURATION, OUTBOX, notify

PATIENCE = 20.0
"""Seconds after which what has not happened will not happen."""
NOWHERE = "https://partner.example/hook"
LAB_RESULT, PAYMENT = "lab_result.final", "payment.processed"


@dataclass
class Hospital:
    """What a test needs of the pipeline, without the processes around it."""

    settings: Settings
    database: Database
    vault: Vault
    tenant_id: UUID
    subscriber_id: UUID
    dispatch: Dispatch = field(init=False)
    ingest: Ingest = field(init=False)

    def __post_init__(self) -> None:
        clock, registry = Clock(), Registry()
        no_slots = Slots(clock, registry, Due(clock, registry), concurrency=0)
        self.dispatch = Dispatch(self.database, self.vault, registry, no_slots, Bodies(self.database, self.vault))
        self.ingest = Ingest(self.database, self.vault, Catalogue())

    # What is configured

    async def endpoint(self, *patterns: str, url: str = NOWHERE, secret: str | None = None, **columns: Any) -> UUID:
        """An endpoint as the API makes it, for events of all types or of these; ``columns`` are further ones."""
        endpoint_id: UUID = columns.pop("id", None) or uuid7()
        values = {
            "id": endpoint_id,
            "tenant_id": self.tenant_id,
            "subscriber_id": self.subscriber_id,
            "url": url,
            "event_types": list(patterns) or ["*"],
            **columns,
        }
        names = ", ".join(f'"{name}"' for name in values)
        places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        async with self.database.connection() as connection:
            await connection.execute(f"INSERT INTO endpoints ({names}) VALUES ({places})", *values.values())
        await self.secret(endpoint_id, secret or signing.encode_secret(os.urandom(32)))
        return endpoint_id

    async def secret(self, endpoint_id: UUID, secret: str) -> None:
        """One more live secret."""
        secret_id = uuid7()
        sealed = self.vault.seal(self.tenant_id, "endpoint_secrets", secret_id, secret.encode())
        await self.change(
            "INSERT INTO endpoint_secrets (id, tenant_id, endpoint_id, secret) VALUES ($1, $2, $3, $4)",
            *(secret_id, self.tenant_id, endpoint_id, sealed),
        )

    async def change(self, statement: str, *values: object) -> None:
        """A change of configuration, with its notification."""
        async with self.database.connection() as connection, connection.transaction():
            await connection.execute(statement, *values)
            await configuration.changed(connection)
        await notify(self.database, CONFIGURATION)

    # What is posted

    async def post(
        self, *ordering_keys: str | None, times: int = 1, type: str = LAB_RESULT, told: bool = False
    ) -> list[UUID]:
        """Stores an event for each ordering key, or one that has none, and that so many times; ``data`` counts them.

        Workers are ``told`` what is new, or only that something is.
        """
        events = [self.prepared(key, type, n) for n, key in enumerate((ordering_keys or (None,)) * times)]
        async with self.database.connection() as connection:
            await outbox.append(connection, events, notify=told)
        if not told:
            await notify(self.database, OUTBOX)
        return [event.id for event in events]

    def prepared(self, key: str | None, type: str = LAB_RESULT, n: int = 0) -> outbox.Appended:
        """An event as it goes into the outbox."""
        event = NewEvent(type, json.dumps({"n": n}).encode(), {}, ordering_key=key)
        return prepare(self.vault, uuid7(), self.tenant_id, event, None)

    async def test(self, endpoint_id: UUID, type: str = LAB_RESULT) -> UUID:
        """Sends a test to one endpoint, as the API does; the id of its delivery."""
        event = prepare(self.vault, uuid7(), self.tenant_id, NewEvent(type, b"{}", {}, test=True), None)
        delivery_id = uuid7()
        async with self.database.connection() as connection, connection.transaction():
            await connection.execute(
                replays.STORE_EVENT, event.id, event.tenant_id, event.type, event.occurred_at, event.size, event.body
            )
            about = (self.tenant_id, event.id, type, endpoint_id, delivery_id, "test")
            await connection.execute(outbox.ENQUEUE_FOR_ONE, *about)
        await notify(self.database, OUTBOX)
        return delivery_id

    async def accept(self, type: str = PAYMENT, **changes: object) -> UUID:
        """Takes in the example of a type, with other values in its data, as the API does."""
        known = Catalogue().get(self.tenant_id, type)
        assert known is not None
        data = {**known.example, **changes}
        receipt = await self.ingest.accept(self.tenant_id, NewEvent(type, json.dumps(data).encode(), data))
        assert isinstance(receipt, Receipt)
        return receipt.event_id

    # What is delivered: by a worker, or one step at a time

    @asynccontextmanager
    async def worker(self, **changes: object) -> AsyncIterator[Worker]:
        """A worker. When this ends it has drained: whatever a partner has answered is settled."""
        settings = self.settings.model_copy(update=changes)
        sender, stopping = Sender(policy_from(settings)), asyncio.Event()
        worker = Worker(settings, self.database, self.vault, sender, stopping)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            stopping.set()
            await running
            await sender.aclose()

    async def fan_out(self) -> int:
        taken = 0
        while done := (await self.dispatch.fan_out()).dequeued:
            taken += done
        return taken

    async def claim(self, endpoint_id: UUID, free: int = 100, lease: float = 30.0) -> list[Delivery]:
        async with self.database.connection() as connection:
            wanted = [Wanted(endpoint_id, free, LONG_AGO, lease)]
            claim = await deliveries.claim(connection, wanted, uuid7())
        claimed = [delivery for one in claim.endpoints.values() for delivery in one.deliveries]
        return sorted(claimed, key=lambda delivery: delivery.sequence)

    async def finish(
        self, *claimed: Delivery, state: str = "delivered", reason: str | None = None, hold: bool = False
    ) -> int:
        async with self.database.connection() as connection, connection.transaction():
            finished = [Finished(d, DeliveryState(state), reason, hold=hold) for d in claimed]
            return len((await deliveries.settle(connection, [], finished, [])).ours)

    # What there is

    async def rows(self, query: str, *values: object) -> list[asyncpg.Record]:
        async with self.database.connection() as connection:
            return list(await connection.fetch(query, *values))

    async def count(self, what: str) -> int:
        async with self.database.connection() as connection:
            return int(await connection.fetchval(f"SELECT count(*) FROM {what}"))

    async def until(self, query: str, *values: object) -> list[asyncpg.Record]:
        """The rows of the query, once it has any."""
        async with asyncio.timeout(PATIENCE):
            while not (rows := await self.rows(query, *values)):  # noqa: ASYNC110 - a row gives no signal
                await asyncio.sleep(0.01)
        return rows

    @asynccontextmanager
    async def elsewhere(self, master_keys: str | None = None) -> AsyncIterator[Hospital]:
        """The same hospital as another process has it, or as after a restart; with these master keys or the same."""
        settings = self.settings.model_copy(update={"master_keys": master_keys or self.settings.master_keys})
        async with _parts(settings) as (database, vault):
            await keyring.fill(database, vault)
            yield replace(self, settings=settings, database=database, vault=vault)


@asynccontextmanager
async def hospital_on(database_url: str) -> AsyncIterator[Hospital]:
    """A hospital with one subscriber, in a database that has none yet."""
    settings = Settings(
        database_url=database_url, development=True, log_level="error", master_keys=new_master_key("first")
    )
    subscriber_id = uuid7()
    async with _parts(settings) as (database, vault):
        async with database.connection() as connection:
            tenant_id = await tenants.make(connection, vault)
            await connection.execute(SUBSCRIBER, subscriber_id, tenant_id, "Laboratory")
        await keyring.fill(database, vault)
        yield Hospital(settings, database, vault, tenant_id, subscriber_id)


@asynccontextmanager
async def _parts(settings: Settings) -> AsyncIterator[tuple[Database, Vault]]:
    database = Database(str(settings.database_url), connections=10)
    try:
        yield database, Vault(MasterKeys.parse(str(settings.master_keys)))
    finally:
        await database.close()


def new_master_key(name: str) -> str:
    """A line as `webhook-gateway keys master` prints it."""
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"
