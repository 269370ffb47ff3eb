"""A whole API: the real application, and uvicorn on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import uvicorn

from tests.support.partner import listening_socket
from webhook_gateway.crypto.vault import MasterKeys, Vault
from webhook_gateway.intake.catalogue import Catalogue
from webhook_gateway.intake.ingest import Ingest
from webhook_gateway.settings import Settings
from webhook_gateway.store import keyring, keys, tenants
from webhook_gateway.store.database import Database
from webhook_gateway.web.app import create_app
from webhook_gateway.web.connections import Limits
from webhook_gateway.web.protocol import bounded


@dataclass(frozen=True, slots=True)
class Api:
    """A running API. ``database`` is a way in of our own, for what only a worker would write."""

    url: str
    database: Database
    vault: Vault
    tenant_id: UUID

    async def make_key(self, *scopes: str, tenant_id: UUID | None = None, **restrictions: Any) -> str:
        new = keys.NewKey("a test", scopes, **restrictions)
        async with self.database.begin() as connection:
            _, key = await keys.issue(connection, tenant_id or self.tenant_id, new)
        return key

    @asynccontextmanager
    async def client(self, key: str | None) -> AsyncIterator[httpx.AsyncClient]:
        async with _client(self.url, key) as client:
            yield client

    async def as_client(self, *scopes: str, **restrictions: Any) -> httpx.AsyncClient:
        """A client with a key of these scopes; the caller closes it."""
        return _client(self.url, await self.make_key(*scopes, **restrictions))


@asynccontextmanager
async def serve(
    database_url: str, *, master: bytes = bytes(32), **settings: Any
) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """The application on a port of its own, in this event loop."""
    master_keys = MasterKeys({"test": master})
    database, vault, catalogue = Database(database_url), Vault(master_keys), Catalogue()
    chosen = Settings(database_url=database_url, **{"api_rate": 0.0, **settings})
    ingest = Ingest(database, vault, catalogue, patient_index=chosen.patient_index)
    app = create_app(chosen, database, vault, catalogue, ingest)
    with listening_socket() as listener:
        http = bounded(Limits.from_settings(chosen, ""))
        config = uvicorn.Config(app, http=http, log_config=None, lifespan="on", server_header=False)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await _until_alive(url)
        try:
            yield url, server
        finally:
            server.should_exit = True
            await serving


async def _until_alive(url: str) -> None:
    async with _client(url, None) as client:
        assert (await client.get("/healthz", timeout=10)).status_code == 200


def _client(url: str, key: str | None) -> httpx.AsyncClient:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    # There is no TLS to verify, and reading the authorities takes longer than most requests.
    return httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, verify=False)


@asynccontextmanager
async def running(database_url: str, **settings: Any) -> AsyncIterator[Api]:
    """An API with the default tenant."""
    database, vault = Database(database_url, connections=2), Vault(MasterKeys({"test": bytes(32)}))
    try:
        async with database.connection() as connection:
            tenant_id = await tenants.make(connection, vault)
        await keyring.fill(database, vault)
        async with serve(database_url, **settings) as (url, _):
            yield Api(url, database, vault, tenant_id)
    finally:
        await database.close()
