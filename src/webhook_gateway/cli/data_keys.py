"""``keys rewrap``, ``keys retire`` and ``keys rotate``: the keys that what is stored is sealed with."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webhook_gateway.crypto.vault import Vault
from webhook_gateway.rules import ids

from .environment import configured_vault, with_database
from .exits import NO, CannotGoOn
from .screen import progress, say, write_json

if TYPE_CHECKING:
    from webhook_gateway.store.database import Database


def rewrap(as_json: Annotated[bool, typer.Option("--json", help='{"master_key": …, "rewrapped": …}')] = False) -> None:
    """Wrap every data key by the newest master key, while the gateway works; what is stored stays as it is.

    Needs the old master keys beside the new one, which stands first. Safe to break off and to repeat.

    [dim]Example:[/dim]  webhook-gateway keys rewrap && webhook-gateway keys retire m20260101-3f2a
    """
    vault = configured_vault()
    rewrapped, problems = with_database(lambda database: _rewrap(database, vault, quiet=not sys.stderr.isatty()))
    if as_json:
        write_json({"master_key": vault.master_keys.newest, "rewrapped": rewrapped, "problems": problems})
    else:
        say(f"{rewrapped} data keys rewrapped; the master key is {vault.master_keys.newest}")
    if problems:
        raise CannotGoOn(f"{len(problems)} data keys could not be rewrapped: {'; '.join(problems[:5])}", NO)


def retire(
    name: Annotated[str, typer.Argument(help="The name of the old master key: what stands before its colon.")],
    as_json: Annotated[bool, typer.Option("--json", help='{"master_key": …, "data_keys": …}')] = False,
) -> None:
    """Say whether a master key may be taken out of the settings. Exit code 0: nothing needs it, 1: something does.

    [dim]Example:[/dim]  webhook-gateway keys retire m20260101-3f2a
    """
    newest = configured_vault().master_keys.newest
    found = with_database(_needed)
    if as_json:
        write_json({"master_key": name, "newest": newest == name, "data_keys": found.get(name, 0)})
    if name in found:
        raise CannotGoOn(
            f"{found[name]} data keys are wrapped by {name}, so without it what they seal can't be read: keep it, and "
            "run `webhook-gateway keys rewrap` with a newer master key before it",
            NO,
        )
    if name == newest:
        raise CannotGoOn(f"{name} is the master key that new data keys are wrapped by: put a newer one before it", NO)
    if not as_json:
        say(f"nothing in the database needs {name}: take it out of the settings and start the processes again")
        say("keep a copy for as long as there are backups from before, since what they hold needs it")


def rotate(
    as_json: Annotated[bool, typer.Option("--json", help='[{"tenant": …, "data_key": …}]')] = False,
) -> None:
    """Give every tenant a new data key; the old ones stay, to open what they sealed. Running processes take it over.

    Once a year is plenty, or when `check` says that one has sealed 2 billion records, half of what it may.
    """
    vault = configured_vault()
    made = with_database(lambda database: _rotate(database, vault))
    if as_json:
        write_json(made)
    else:
        say(f"{len(made)} new data keys, wrapped by {vault.master_keys.newest}")


async def _rewrap(database: Database, vault: Vault, *, quiet: bool) -> tuple[int, list[str]]:
    from webhook_gateway.operations.change import changing, local_actor
    from webhook_gateway.store import keyring

    newest, problems, done = vault.master_keys.newest, [], Counter[Any]()
    total = sum(count for name, count in (await _needed(database)).items() if name != newest)
    with progress("rewrapping", quiet=quiet) as shown:
        bar = shown.add_task("rewrap", total=total)
        async for rewrapped in keyring.rewrap(database, vault):
            shown.advance(bar)
            if rewrapped.problem is None:
                done[rewrapped.tenant_id] += 1
            else:
                problems.append(rewrapped.problem)
    for tenant_id, count in done.items():
        async with changing(database, local_actor(tenant_id)) as change:
            change.note("data_keys.rewrapped", newest, after={"data_keys": count})
    return done.total(), problems


async def _needed(database: Database) -> dict[str, int]:
    from webhook_gateway.store import keyring

    async with database.connection() as connection:
        return await keyring.needed(connection)


async def _rotate(database: Database, vault: Vault) -> list[dict[str, Any]]:
    from webhook_gateway.operations.change import changing, local_actor
    from webhook_gateway.store import keyring, tenants
    from webhook_gateway.store.driver import driver_of
    from webhook_gateway.store.notifications import CONFIGURATION

    made = []
    async with database.connection() as driver:
        known = await tenants.every(driver)
    missing = await keyring.fill(database, vault)
    if not all(map(vault.knows, known)):
        raise CannotGoOn(f"nothing was rotated: {'; '.join(missing[:5])}. Give the gateway's own master keys", NO)
    for tenant_id in known:
        async with changing(database, local_actor(tenant_id)) as change:
            data_key = await keyring.rotate(await driver_of(change.connection), vault, tenant_id)
            change.note("data_key.rotated", str(data_key), CONFIGURATION)
        made.append({"tenant": ids.render(ids.TENANT, tenant_id), "data_key": data_key})
    return made
