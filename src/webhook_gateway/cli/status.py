"""``status``: what waits, who is in trouble, who works."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from webhook_gateway.rules import ids
from webhook_gateway.rules.labels import visible
from webhook_gateway.rules.waiting import Reason, Waiting
from webhook_gateway.settings import settings

from .environment import database_url
from .screen import answers, table, write_json

if TYPE_CHECKING:
    from webhook_gateway.store.database import Database

MOST_ENDPOINTS = 50
BAD_LAST = timedelta(hours=24)
SOON = timedelta(days=14)
"""Before something expires, when it is told."""


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two reports.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a report.")] = False,
) -> None:
    """Show the outbox, the open deliveries, endpoints in trouble and the workers alive.

    [dim]Example:[/dim]  webhook-gateway status --json | jq .deliveries.open
    """
    asyncio.run(_show(watch=watch, every=every, as_json=as_json))


async def _show(*, watch: bool, every: float, as_json: bool) -> None:
    from rich.live import Live

    from webhook_gateway.store.database import Database

    database = Database(database_url(settings()), connections=2)
    try:
        if not watch or as_json or not sys.stdout.isatty():
            while True:
                found = await read(database)
                write_json(found) if as_json else answers.print(_drawn(found))
                if not watch:
                    return
                await asyncio.sleep(every)
        with Live(_drawn(await read(database)), console=answers, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(every)
                live.update(_drawn(await read(database)), refresh=True)
    finally:
        await database.close()


async def read(database: Database) -> dict[str, Any]:
    """The figures, of all tenants together."""
    from webhook_gateway.store import expiry, gateway_status, pause, waiting
    from webhook_gateway.store.workers import ALIVE

    now = datetime.now(UTC)
    async with database.connection() as connection:
        outbox = await gateway_status.outbox(connection)
        by_reason, oldest = await waiting.open_by_reason(connection)
        ended = await gateway_status.ended_badly(connection, now - BAD_LAST)
        trouble = await gateway_status.in_trouble(connection, MOST_ENDPOINTS)
        why = await waiting.why_endpoints_wait(connection, [endpoint["id"] for endpoint in trouble])
        workers = await gateway_status.workers(connection, ALIVE)
        worn = await gateway_status.worn_data_keys(connection)
        paused = await pause.state(connection)
        expiring = [one._asdict() for one in await expiry.soonest(connection) if one.at < now + SOON]
    waits = None if outbox["oldest"] is None else (now - ids.moment_of(outbox["oldest"])).total_seconds()
    return {
        "at": now.isoformat(timespec="seconds"),
        "sending_paused": paused and paused._asdict(),
        "outbox": {"depth": outbox["depth"], "oldest_seconds": None if waits is None else max(0.0, round(waits, 1))},
        "deliveries": {
            "open": sum(by_reason.values()),
            "oldest_seconds": None if oldest is None else round(oldest, 1),
            "waiting_for": by_reason,
        },
        "last_24_hours": ended,
        "endpoints_in_trouble": [_endpoint(endpoint, why[endpoint["id"]]) for endpoint in trouble],
        "workers": workers,
        "worn_data_keys": worn,
        "expiring": expiring,
    }


def _drawn(found: dict[str, Any]) -> RenderableType:
    deliveries, outbox, workers = found["deliveries"], found["outbox"], found["workers"]
    lines = Text()
    if paused := found["sending_paused"]:
        since = f"{paused['since']:%Y-%m-%d %H:%M}: {visible(paused['reason'])}"
        lines.append("sending     ", "bold").append(
            f"paused since {since}; `webhook-gateway resume-all` ends it\n", "red"
        )
    lines.append("outbox      ", "bold").append(f"{outbox['depth']:,} events{_age(outbox['oldest_seconds'])}\n")
    waiting = ", ".join(f"{count:,} {reason}" for reason, count in deliveries["waiting_for"].items())
    lines.append("deliveries  ", "bold").append(f"{deliveries['open']:,} open{_age(deliveries['oldest_seconds'])}\n")
    if waiting:
        lines.append("waiting for ", "bold").append(f"{waiting}\n")
    ended = found["last_24_hours"]
    lines.append("24 hours    ", "bold").append(
        f"{ended['dead']:,} dead, {ended['cancelled']:,} cancelled\n", "red" if ended["dead"] else ""
    )
    lines.append("workers     ", "bold")
    names = ", ".join(worker["name"] for worker in workers)
    lines.append(f"{len(workers)} alive ({names})" if workers else "none alive: start `webhook-gateway work`")
    if found["worn_data_keys"]:
        lines.append("\ndata keys   ", "bold").append("one has sealed much: run `webhook-gateway keys rotate`", "red")
    for one in found["expiring"][:5]:
        what = f"{one['kind'].replace('_', ' ')} {one['id']} ({visible(one['name'])}) until {one['at']:%Y-%m-%d %H:%M}"
        lines.append("\nexpires     ", "bold").append(what, "yellow")
    if not found["endpoints_in_trouble"]:
        return Group(lines, Text("endpoints   ", "bold").append("none in trouble", "green"))

    trouble = "endpoint in trouble"
    shown = table(trouble, "subscriber", "state", "failures", "waiting", "why", whole=trouble)
    for endpoint in found["endpoints_in_trouble"]:
        shown.add_row(
            endpoint["id"],
            endpoint["subscriber"],
            endpoint["state"],
            str(endpoint["failures_in_a_row"]),
            f"{endpoint['waiting']:,}",
            _why(endpoint),
        )
    return Group(lines, Text(), shown)


def _endpoint(row: dict[str, Any], why: Waiting) -> dict[str, Any]:
    until = None if why.until is None else datetime.fromtimestamp(why.until, UTC)
    return {**row, "id": ids.render(ids.ENDPOINT, row["id"]), "waiting_for": why.reason, "until": until}


def _why(endpoint: dict[str, Any]) -> str:
    match endpoint["waiting_for"]:
        case Reason.PAUSED | Reason.DISABLED:
            return endpoint["state_reason"] or f"{endpoint['state']} by an operator"
        case Reason.BREAKER | Reason.RETRY_AFTER | Reason.MAINTENANCE as reason:
            return f"{reason} until {endpoint['until']:%H:%M:%S}"
        case _ if endpoint["held_keys"]:
            return f"{endpoint['held_keys']} ordering keys held: decide on each"
        case _:
            return "failing" + (
                f" since {endpoint['failing_since']:%Y-%m-%d %H:%M}" if endpoint["failing_since"] else ""
            )


def _age(seconds: float | None) -> str:
    return "" if seconds is None else f", the oldest {timedelta(seconds=int(seconds))} old"
