"""``keys``: API keys, straight in the database (before there is a key to ask the API with), and master keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webhook_gateway.crypto.master_keys import new_master_key
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import ROLES, Scope

from . import data_keys
from .environment import TenantName, change_in, configured_vault, parse_id, read_in, with_database
from .exits import granted
from .screen import answers, say, table, write_json

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from webhook_gateway.store.database import Database

app = typer.Typer(no_args_is_help=True, help="API keys, master keys and data keys.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for, as lists and the audit log show it.")],
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help=f"A set of scopes: one of {', '.join(ROLES)}.")
    ] = "",
    scopes: Annotated[
        list[Scope] | None, typer.Option("--scope", help="What it may do, one by one; may be repeated.")
    ] = None,
    subscriber: Annotated[
        str, typer.Option("--subscriber", metavar="SUB_ID", help="Sees and changes only what is this subscriber's.")
    ] = "",
    event_types: Annotated[
        list[str] | None,
        typer.Option(
            "--event-type", metavar="PATTERN", help="May post only these, as in lab_result.*; may be repeated."
        ),
    ] = None,
    networks: Annotated[
        list[str] | None, typer.Option("--network", metavar="CIDR", help="Valid only from there; may be repeated.")
    ] = None,
    tenant: TenantName = "default",
    new_tenant: Annotated[
        bool, typer.Option("--new-tenant", help="Make the tenant, with data keys of its own; this is its first key.")
    ] = False,
    days: Annotated[int, typer.Option("--days", min=0, max=36_500, help="Expires after so many days; 0: never.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help='{"id": …, "key": …, "scopes": […]}')] = False,
) -> None:
    """Make an API key and print it, once: only its hash is kept.

    [dim]Examples:[/dim]
      webhook-gateway keys create laboratory --role producer --event-type 'lab_result.*'
      webhook-gateway keys create ops --role operator --days 365
      webhook-gateway keys create southside --role admin --tenant southside --new-tenant
    """
    subscriber_id = parse_id(ids.SUBSCRIBER, subscriber) if subscriber else None
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    vault = configured_vault()

    async def work(database: Database) -> tuple[Any, str]:
        from webhook_gateway.operations import keys
        from webhook_gateway.operations.change import changing
        from webhook_gateway.operations.first_start import NO_TENANT
        from webhook_gateway.store.keys import NewKey

        new = NewKey(name, scopes or (), subscriber_id, event_types or None, networks or None, expires_at)
        async with changing(database, NO_TENANT) as change:
            made = await keys.create_with_tenant(change, vault, tenant, new, role or None, new=new_tenant)
            return granted(made)

    row, key = with_database(work)
    key_id, given = ids.render(ids.KEY, row["id"]), row["scopes"]
    if as_json:
        write_json({"id": key_id, "name": name, "key": key, "scopes": given, "expires_at": expires_at})
        return
    say(f"made {key_id} ({', '.join(given)}); it is shown only now:")
    print(key)


@app.command("list")
def list_keys(
    tenant: TenantName = "default",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
) -> None:
    """List the API keys: newest first, the revoked ones too. The keys themselves can't be shown."""
    rows = read_in(tenant, _every)
    if as_json:
        write_json([_shown(row) for row in rows])
        return
    shown = table("id", "name", "begins with", "scopes", "state", "last used", whole="id")
    for row in map(_shown, rows):
        used = row["last_used_at"].strftime("%Y-%m-%d %H:%M") if row["last_used_at"] else "never"
        shown.add_row(row["id"], row["name"], row["prefix"], " ".join(row["scopes"]), row["state"], used)
    answers.print(shown)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="key_…, as `keys list` shows it.")],
    tenant: TenantName = "default",
    as_json: Annotated[bool, typer.Option("--json", help='{"id": …, "revoked_at": …}')] = False,
) -> None:
    """Revoke an API key. API processes refuse it within a few seconds; it can't be taken back."""
    from webhook_gateway.operations import keys

    wanted = parse_id(ids.KEY, key_id)
    row = change_in(tenant, lambda change: keys.revoke(change, wanted))
    if as_json:
        write_json({"id": key_id, "revoked_at": row["revoked_at"]})
    else:
        say(f"revoked {key_id} ({row['name']})")


@app.command()
def master() -> None:
    """Print a new master key, a line `name:base64`, for WEBHOOK_GATEWAY_MASTER_KEY_FILE.

    Keep a copy where the database's backups are not: without it, what was stored can't be read by anybody.
    To rotate, put the new line above the old one, start the processes again, and run `keys rewrap`.

    [dim]Example:[/dim]  (umask 077; webhook-gateway keys master > /etc/webhook-gateway/master.key)
    """
    print(new_master_key())


app.command()(data_keys.rewrap)
app.command()(data_keys.retire)
app.command()(data_keys.rotate)


async def _every(connection: AsyncConnection, tenant_id: UUID) -> list[Any]:
    from webhook_gateway.store import keys

    rows, before = [], None
    while page := await keys.page(connection, tenant_id, before=before, limit=500):
        rows += page
        before = page[-1]["id"]
    return rows


def _shown(row: Any) -> dict[str, Any]:
    expired = row["expires_at"] is not None and row["expires_at"] <= datetime.now(UTC)
    state = "revoked" if row["revoked_at"] is not None else "expired" if expired else "valid"
    shown = ("name", "prefix", "scopes", "event_types", "networks", "created_at", "expires_at", "last_used_at")
    return {"id": ids.render(ids.KEY, row["id"]), "state": state, **{name: row[name] for name in shown}}
