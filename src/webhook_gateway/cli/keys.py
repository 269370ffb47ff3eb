"""``keys``: API keys, straight in the database (before there is a key to ask the API with), and master keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import OF_A_SUBSCRIBER, SCOPES_OF, Role, Scope

from . import data_keys
from .environment import TenantName, configured_vault, tenant_named, with_database
from .exits import NO, WRONG, CannotGoOn
from .screen import answers, say, table, write_json

if TYPE_CHECKING:
    from uuid import UUID

    from webhook_gateway.store.database import Database

app = typer.Typer(no_args_is_help=True, help="API keys, master keys and data keys.")


ADMINISTRATOR = "admin"
ROLE_NAMES = (ADMINISTRATOR, *Role)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for, as lists and the audit log show it.")],
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help=f"A set of scopes: one of {', '.join(ROLE_NAMES)}.")
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
    days: Annotated[int, typer.Option("--days", min=0, help="Expires after so many days; 0: never.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help='{"id": …, "key": …, "scopes": […]}')] = False,
) -> None:
    """Make an API key and print it, once: only its hash is kept.

    [dim]Examples:[/dim]
      webhook-gateway keys create laboratory --role producer --event-type 'lab_result.*'
      webhook-gateway keys create ops --role operator --days 365
      webhook-gateway keys create southside --role admin --tenant southside --new-tenant
    """
    wanted = _scopes(role, scopes or [])
    if not tenant.isprintable() or not 0 < len(tenant.strip()) == len(tenant) <= 100:
        raise CannotGoOn("a tenant's name has 1 to 100 printable characters and no space around it", WRONG)
    subscriber_id = _parse(ids.SUBSCRIBER, subscriber) if subscriber else None
    if role == Role.PARTNER and subscriber_id is None:
        raise CannotGoOn("a partner's key needs --subscriber sub_…: without it, it would see everybody's", WRONG)
    if subscriber_id is not None and not OF_A_SUBSCRIBER.issuperset(wanted):
        raise CannotGoOn(f"a subscriber's key may carry only {', '.join(sorted(OF_A_SUBSCRIBER))}", WRONG)
    _check_patterns(event_types or [])
    _check_networks(networks or [])
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    vault = configured_vault()

    async def work(database: Database) -> tuple[str, str]:
        from webhook_gateway.host.first_start import issue_key

        await _check_tenant(database, tenant, subscriber_id, new=new_tenant)
        return await issue_key(
            database,
            vault,
            name,
            wanted,
            tenant=tenant,
            role=role or None,
            subscriber_id=subscriber_id,
            event_types=event_types or None,
            networks=networks or None,
            expires_at=expires_at,
        )

    key_id, key = with_database(work)
    if as_json:
        write_json({"id": key_id, "name": name, "key": key, "scopes": wanted, "expires_at": expires_at})
        return
    say(f"made {key_id} ({', '.join(wanted)}); it is shown only now:")
    print(key)


@app.command("list")
def list_keys(
    tenant: TenantName = "default",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
) -> None:
    """List the API keys: newest first, the revoked ones too. The keys themselves can't be shown."""
    rows = with_database(lambda database: _page(database, tenant))
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
    wanted = _parse(ids.KEY, key_id)

    async def work(database: Database) -> Any:
        from webhook_gateway.store import audit, keys

        tenant_id = await tenant_named(database, tenant)
        async with database.begin() as connection:
            row = await keys.revoke(connection, tenant_id, wanted)
            if row is not None:
                change = audit.Change("cli", "local", "key.revoked", key_id, after={"name": row["name"]})
                await audit.write(connection, tenant_id, change)
        return row

    row = with_database(work)
    if row is None:
        raise CannotGoOn(f"there is no key {key_id}: see `webhook-gateway keys list`", NO)
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
    from webhook_gateway.crypto.master_keys import new_master_key

    print(new_master_key())


app.command()(data_keys.rewrap)
app.command()(data_keys.retire)
app.command()(data_keys.rotate)


async def _check_tenant(database: Database, tenant: str, subscriber_id: UUID | None, *, new: bool) -> None:
    """The default tenant is made with its first key; any other has to be asked for, so that a typo makes none."""
    from webhook_gateway.store import subscribers, tenants

    async with database.connection() as connection:
        tenant_id = await tenants.find(connection, tenant)
    if new and tenant_id is not None:
        raise CannotGoOn(f"there is a tenant {tenant} already: leave --new-tenant out", NO)
    if not new and tenant != tenants.DEFAULT:
        tenant_id = await tenant_named(database, tenant)
    if subscriber_id is None:
        return
    async with database.begin() as connection_:
        if tenant_id is None or await subscribers.get(connection_, tenant_id, subscriber_id) is None:
            raise CannotGoOn(f"tenant {tenant} has no such subscriber: see `GET /v1/subscribers`", NO)


async def _page(database: Database, tenant: str) -> list[Any]:
    from webhook_gateway.store import keys

    tenant_id, rows, before = await tenant_named(database, tenant), [], None
    async with database.begin() as connection:
        while page := await keys.page(connection, tenant_id, before=before, limit=500):
            rows += page
            before = page[-1]["id"]
    return rows


def _shown(row: Any) -> dict[str, Any]:
    expired = row["expires_at"] is not None and row["expires_at"] <= datetime.now(UTC)
    state = "revoked" if row["revoked_at"] is not None else "expired" if expired else "valid"
    shown = ("name", "prefix", "scopes", "event_types", "networks", "created_at", "expires_at", "last_used_at")
    return {"id": ids.render(ids.KEY, row["id"]), "state": state, **{name: row[name] for name in shown}}


def _scopes(role: str, scopes: list[Scope]) -> list[str]:
    if not role and not scopes:
        raise CannotGoOn(f"say what the key may do: --role {'|'.join(ROLE_NAMES)} or --scope …", WRONG)
    if role and role not in ROLE_NAMES:
        raise CannotGoOn(f"there is no role {role}: choose among {', '.join(ROLE_NAMES)}", WRONG)
    of_role = SCOPES_OF[Role(role)] if role in list(Role) else {Scope.ADMIN} if role else set()
    return sorted({*scopes, *of_role})


def _check_patterns(patterns: list[str]) -> None:
    from webhook_gateway.rules.matching import is_pattern

    for pattern in patterns:
        if not is_pattern(pattern):
            raise CannotGoOn(
                f"{pattern} is no event type and no pattern: write lab_result.final or lab_result.*", WRONG
            )


def _check_networks(networks: list[str]) -> None:
    from ipaddress import ip_network

    for network in networks:
        try:
            ip_network(network)
        except ValueError:
            raise CannotGoOn(f"{network} is no network: write it as 10.20.0.0/16", WRONG) from None


def _parse(prefix: str, text: str) -> Any:
    try:
        return ids.parse(prefix, text)
    except ids.NotAnId as error:
        raise CannotGoOn(f"{text} is no id of that kind: {error}", WRONG) from None
