"""What most commands begin with: the settings, and which database is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from webhook_gateway.crypto.master_keys import KEY_FILE, data_directory, load_master_keys
from webhook_gateway.crypto.vault import Vault
from webhook_gateway.operations.refusals import Refusal
from webhook_gateway.rules import ids
from webhook_gateway.settings import Settings, settings

from .exits import WRONG, CannotGoOn, granted

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from webhook_gateway.operations.change import Change
    from webhook_gateway.store.database import Database

T = TypeVar("T")

Host = Annotated[str, typer.Option("--host", envvar="WEBHOOK_GATEWAY_HOST", help="Address to listen on.")]

Port = Annotated[
    int, typer.Option("--port", "-p", envvar="WEBHOOK_GATEWAY_PORT", min=0, max=65_535, help="0: any free one.")
]

TenantName = Annotated[str, typer.Option("--tenant", metavar="NAME", help="The tenant that is meant.")]

NO_DATABASE = (
    "DATABASE_URL is not set and no gateway started by `webhook-gateway up` runs here: set it, as in "
    "DATABASE_URL=postgresql://gateway:…@db.example/gateway"
)


def database_url(found: Settings) -> str:
    """The configured database, or else the embedded one of a gateway that `up` keeps running on this machine."""
    if found.database_url is not None:
        return found.database_url
    try:
        return url_file(found).read_text().strip()
    except OSError:
        raise CannotGoOn(NO_DATABASE, WRONG) from None


def url_file(found: Settings) -> Path:
    """Where `up` leaves the URL of its embedded database, for as long as it runs."""
    return data_directory(found) / "database_url"


def with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Does the work on the configured database, and closes it."""
    from webhook_gateway.store.database import Database

    async def run() -> T:
        database = Database(database_url(settings()), connections=2)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def read_in(tenant: str, read: Callable[[AsyncConnection, UUID], Awaitable[T]]) -> T:
    """What is read of the tenant, in one transaction."""

    async def work(database: Database) -> T:
        tenant_id = await tenant_named(database, tenant)
        async with database.begin() as connection:
            return await read(connection, tenant_id)

    return with_database(work)


def change_in(tenant: str, use_case: Callable[[Change], Awaitable[T | Refusal]]) -> T:
    """What the use case returns, done for the tenant by whoever is at this machine."""
    from webhook_gateway.operations.change import changing, local_actor

    async def work(database: Database) -> T:
        async with changing(database, local_actor(await tenant_named(database, tenant))) as change:
            return granted(await use_case(change))

    return with_database(work)


def key_settings(found: Settings) -> Settings:
    """The settings, with the key file that `up` has made where no master key is configured."""
    made = data_directory(found) / KEY_FILE
    if found.master_keys is None and found.master_key_file is None and made.exists():
        return found.model_copy(update={"master_key_file": made})
    return found


def configured_vault() -> Vault:
    """An empty vault with the configured master keys."""
    return Vault(load_master_keys(key_settings(settings())))


def parse_id(prefix: str, text: str) -> UUID:
    try:
        return ids.parse(prefix, text)
    except ids.NotAnId as error:
        raise CannotGoOn(f"{text} can't be used: {error}", WRONG) from None


def moment_in(text: str) -> datetime | None:
    """None where nothing is given; UTC where no zone is."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CannotGoOn(f"{text} is no time: write it as 2026-11-23T08:00 or 2026-11-23T08:00+01:00", WRONG) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


async def tenant_named(database: Database, name: str) -> UUID:
    from webhook_gateway.store import tenants

    async with database.connection() as connection:
        tenant_id = await tenants.find(connection, name)
    if tenant_id is None and name == tenants.DEFAULT:
        raise CannotGoOn("no key was ever made here: begin with `webhook-gateway keys create NAME --role admin`")
    if tenant_id is None:
        raise CannotGoOn(f"there is no tenant {name}: `webhook-gateway keys create … --new-tenant` makes one")
    return tenant_id
