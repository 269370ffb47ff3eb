"""``disclosures``: who got what about whom, and whether it was this body."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webhook_gateway.rules import ids
from webhook_gateway.settings import settings

from .environment import TenantName, configured_vault, moment_in, parse_id, tenant_named, with_database
from .exits import granted
from .plain import WRONG, CannotGoOn
from .screen import answers, table, write_json

if TYPE_CHECKING:
    from webhook_gateway.store.database import Database

SHOWN = ("at", "reached", "times", "subscriber", "host", "content", "event_type", "event_id")


def disclosures(
    patient: Annotated[
        bool,
        typer.Option("--patient", help="Of one patient, whose id is read from standard input, as no list shows it."),
    ] = False,
    event: Annotated[str, typer.Option("--event", metavar="EVT_ID", help="Of one event.")] = "",
    subscriber: Annotated[str, typer.Option("--subscriber", metavar="SUB_ID", help="To one subscriber.")] = "",
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="Sent at or after (UTC unless it says).")] = "",
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="Sent before.")] = "",
    verify: Annotated[
        Path | None, typer.Option("--verify", exists=True, dir_okay=False, help="Whether this body was sent.")
    ] = None,
    tenant: TenantName = "default",
    as_csv: Annotated[bool, typer.Option("--csv", help="A table for a spreadsheet.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
) -> None:
    """List what may have reached whom: of a patient, of an event, or to a subscriber. Newest deliveries first.

    [dim]Examples:[/dim]
      webhook-gateway disclosures --patient --from 2026-01-01 --csv < patient > accounting.csv
      webhook-gateway disclosures --verify body.json
    """
    from webhook_gateway.operations import disclosures as ledger
    from webhook_gateway.operations.change import local_actor

    if verify is None and sum((patient, bool(event), bool(subscriber))) != 1:
        raise CannotGoOn("say of whom: one of --patient, --event and --subscriber, or what to --verify", WRONG)
    asked = ledger.Asked(
        patient=sys.stdin.readline().rstrip("\n") if patient else None,
        event_id=parse_id(ids.EVENT, event) if event else None,
        subscriber_id=parse_id(ids.SUBSCRIBER, subscriber) if subscriber else None,
        since=moment_in(since),
        until=moment_in(until),
    )

    async def work(database: Database) -> list[dict[str, Any]]:
        parts = (database, configured_vault(), settings(), local_actor(await tenant_named(database, tenant)))
        body = None if verify is None else verify.read_bytes()
        found: list[dict[str, Any]] = []
        last = None
        while True:
            page = replace(asked, before=last)
            answer = ledger.search(*parts, page) if body is None else ledger.verify(*parts, page, body)
            some, last = granted(await answer)
            found += some
            if last is None:
                return found

    found = with_database(work)
    if as_csv:
        print(ledger.as_csv(found), end="")
    elif as_json:
        write_json(found)
    else:
        shown = table(*SHOWN, *(["matches"] if verify else []), whole="event_id")
        for one in found:
            shown.add_row(*(str(one[name]) for name in SHOWN), *([str(one["matches"])] if verify else []))
        answers.print(shown)
