"""``migrate``: bring the database to the schema of this version."""

from __future__ import annotations

from typing import Annotated

import typer

from webhook_gateway.settings import settings

from .environment import database_url
from .exits import NO
from .screen import say, write_json


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 if the schema is not the newest.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help='{"from": …, "to": …}')] = False,
) -> None:
    """Bring the database to the newest schema. Safe to run again, and by several at once: they take turns.

    [dim]Example:[/dim]  DATABASE_URL=postgresql://gateway:…@db.example/gateway webhook-gateway migrate
    """
    from webhook_gateway.store import migrate as migrations

    url = database_url(settings())
    before, newest = migrations.current(url), migrations.head()
    if not check and before != newest:
        migrations.upgrade(url)
    if as_json:
        write_json({"from": before, "to": before if check else newest, "newest": newest})
    elif before == newest:
        say(f"the schema is the newest ({newest})")
    elif check:
        say(f"the schema is {before or 'missing'}, the newest is {newest}: run `webhook-gateway migrate`")
    else:
        say(f"migrated from {before or 'nothing'} to {newest}")
    raise typer.Exit(NO if check and before != newest else 0)
