"""``audit``: read the log of changes, and check that nobody has altered it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exits import NO
from .screen import answers, table, write_json
from .surroundings import TenantName, tenant_named, with_database

if TYPE_CHECKING:
    from webhook_gateway.store.database import Database

app = typer.Typer(no_args_is_help=True, help="The log of who changed what.")


@app.command()
def verify(
    tenant: TenantName = "default",
    as_json: Annotated[bool, typer.Option("--json", help='{"whole": …, "entries": …}')] = False,
) -> None:
    """Check the chain of hashes from its first entry. Exit code 0: whole, 1: broken.

    Note the last hash elsewhere: only against it can you see that the end of the log was cut off.
    """

    async def work(database: Database) -> Any:
        from webhook_gateway.store import audit

        tenant_id = await tenant_named(database, tenant)
        async with database.begin() as connection:
            return await audit.verify(connection, tenant_id)

    found = with_database(work)
    whole = found.broken_at is None
    if as_json:
        write_json(
            {
                "whole": whole,
                "entries": found.entries,
                "broken_at": found.broken_at,
                "last_hash": found.last_hash.hex(),
            }
        )
    elif whole:
        answers.print(f"whole: {found.entries:,} entries, the last hash is {found.last_hash.hex()}", soft_wrap=True)
    else:
        answers.print(f"broken: entry {found.broken_at:,} does not follow from those before it", soft_wrap=True)
    raise typer.Exit(0 if whole else NO)


@app.command("list")
def list_entries(
    target: Annotated[str, typer.Option("--target", help="Only what was done to this, as in ep_…")] = "",
    actor: Annotated[str, typer.Option("--actor", help="Only what this key (or ‘cli’) did.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000)] = 50,
    tenant: TenantName = "default",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
) -> None:
    """List changes, newest first.

    [dim]Example:[/dim]  webhook-gateway audit list --target ep_01h455vb4pex5vsknk084sn02q --json
    """

    async def work(database: Database) -> list[Any]:
        from webhook_gateway.store import audit

        tenant_id = await tenant_named(database, tenant)
        async with database.begin() as connection:
            return await audit.page(
                connection, tenant_id, before=None, limit=limit, target=target or None, actor=actor or None
            )

    rows = with_database(work)
    if as_json:
        fields = ("sequence", "at", "actor", "source", "action", "target", "before", "after")
        write_json([{name: row[name] for name in fields} for row in rows])
        return
    shown = table("#", "at", "actor", "action", "target", "from", whole="target")
    for row in rows:
        moment = row["at"].strftime("%Y-%m-%d %H:%M:%S")
        shown.add_row(str(row["sequence"]), moment, row["actor"], row["action"], row["target"], row["source"])
    answers.print(shown)
