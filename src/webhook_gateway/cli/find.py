"""``find``: what a text is, and where it leads."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from webhook_gateway.rules import ids

from .environment import TenantName, configured_vault, parse_id, tenant_named, with_database
from .exits import NO
from .screen import answers, say, table, write_json

if TYPE_CHECKING:
    from webhook_gateway.operations.search import Answer
    from webhook_gateway.store.database import Database

PAGE = 50


def find(
    text: Annotated[str, typer.Argument(help="-: read it from standard input, so that no shell remembers it.")],
    before: Annotated[str, typer.Option("--before", metavar="EVT_ID", help="Only events older than this one.")] = "",
    tenant: TenantName = "default",
    as_json: Annotated[bool, typer.Option("--json", help="What it is, and all that it leads to.")] = False,
) -> None:
    """Say what a text is, and where it leads: an id, an idempotency or ordering key, a subject, a patient.

    [dim]Examples:[/dim]
      webhook-gateway find dlv_01h455vb4pex5vsknk084sn02q
      webhook-gateway find - <<< pat_4711
    """
    from webhook_gateway.operations.change import local_actor
    from webhook_gateway.operations.search import search

    text = (sys.stdin.readline() if text == "-" else text).strip()
    vault, below = configured_vault(), parse_id(ids.EVENT, before) if before else None

    async def work(database: Database) -> Answer:
        actor = local_actor(await tenant_named(database, tenant))
        return await search(database, vault, actor, text, before=below, limit=PAGE)

    found = with_database(work)
    further = found.reached and ids.render(ids.EVENT, found.reached)
    if as_json:
        write_json({**asdict(found), "reached": further})
    elif found.items:
        shown = table("id", "type", "at", "found by", whole="id")
        for item in found.items:
            shown.add_row(
                item["id"], item["type"] or "", f"{item['at']:%Y-%m-%d %H:%M:%S}", ", ".join(item["found_by"])
            )
        answers.print(shown)
    if further:
        say(f"older ones: --before {further}")
    elif not found.items:
        say(f"nothing that is known here; what came before {found.indexed_since:%Y-%m-%d %H:%M} is found by its id")
        raise typer.Exit(NO)
