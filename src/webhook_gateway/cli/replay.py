"""``replay``: send finished deliveries again, one or many. ``try-now``: attempt one that waits."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webhook_gateway.rules import ids

from .environment import TenantName, change_in, moment_in, parse_id, with_database
from .exits import NO, WRONG, CannotGoOn
from .screen import progress, say, write_json

if TYPE_CHECKING:
    from webhook_gateway.store.database import Database

STALLED = 15.0
"""Seconds without progress after which one is told that no worker is at it."""


class State(StrEnum):
    DEAD = "dead"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


def replay(
    delivery: Annotated[str, typer.Argument(metavar="[DELIVERY_ID]", help="dlv_…: only this one.")] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", metavar="EP_ID", help="Only deliveries to this endpoint.")
    ] = "",
    type: Annotated[str, typer.Option("--type", help="Only events of this type.")] = "",
    state: Annotated[State, typer.Option("--state", help="Only deliveries that ended so.")] = State.DEAD,
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help="Made at or after, as in 2026-11-23T08:00 (UTC unless it says)."),
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Made before.")] = "",
    tenant: TenantName = "default",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until everything is queued again.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The job, or the new delivery, as JSON.")] = False,
) -> None:
    """Send a finished delivery again, or all that a filter finds. Partners see the same webhook-id.

    [dim]Examples:[/dim]
      webhook-gateway replay dlv_01h455vb4pex5vsknk084sn02q
      webhook-gateway replay --endpoint ep_… --since 2026-11-23T08:00 --yes
    """
    from webhook_gateway.operations import replays

    if delivery:
        _replay_one(delivery, tenant, as_json=as_json)
        return
    wanted = {
        "endpoint_id": parse_id(ids.ENDPOINT, endpoint) if endpoint else None,
        "type": type or None,
        "since": moment_in(since),
        "until": moment_in(until),
    }
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if not wanted:
        raise CannotGoOn("say which: a delivery's id, --endpoint, --type, --since or --until", WRONG)
    wanted["state"] = state.value
    found = change_in(tenant, lambda change: replays.count(change.connection, change.actor, wanted))
    many = "too many to count:" if found is None else f"{found:,}"
    if found != 0 and not (yes or as_json) and not typer.confirm(f"Replay {many} {state} deliveries?"):
        raise typer.Exit(NO)
    job = change_in(tenant, lambda change: replays.create(change, wanted))
    if wait:
        job = with_database(lambda database: _follow(database, job, quiet=as_json))
    shown = {"id": ids.render(ids.JOB, job["id"]), **{name: job[name] for name in ("state", "done", "total")}}
    if as_json:
        write_json(shown)
    else:
        say(f"{shown['id']} is {job['state']}: {job['done']:,} of {many} queued again")


def try_now(
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY_ID", help="dlv_…")], tenant: TenantName = "default"
) -> None:
    """Attempt a pending delivery now, also where its endpoint is left alone. It is an extra attempt.

    [dim]Example:[/dim]
      webhook-gateway try-now dlv_01h455vb4pex5vsknk084sn02q
    """
    from webhook_gateway.operations import deliveries

    delivery_id = parse_id(ids.DELIVERY, delivery)
    change_in(tenant, lambda change: deliveries.try_now(change, delivery_id))
    say(f"{delivery} is due now")


def _replay_one(text: str, tenant: str, *, as_json: bool) -> None:
    from webhook_gateway.operations import deliveries

    delivery_id = parse_id(ids.DELIVERY, text)
    new = change_in(tenant, lambda change: deliveries.replay(change, delivery_id))
    rendered = ids.render(ids.DELIVERY, new["id"])
    if as_json:
        write_json({"id": rendered, "replay_of": text})
    else:
        say(f"queued again as {rendered}")


async def _follow(database: Database, job: Any, *, quiet: bool) -> Any:
    """Shows the job's progress until it has ended. Ctrl-C leaves it running."""
    from webhook_gateway.store import replays

    with progress("replaying", quiet=quiet) as shown:
        bar = shown.add_task("replay", total=job["total"])
        moved, told = time.monotonic(), False
        while job["state"] in replays.OPEN:
            await asyncio.sleep(0.25)
            async with database.begin() as connection:
                now = await replays.get(connection, job["tenant_id"], job["id"], subscriber_id=None)
            assert now is not None, "jobs are never deleted"
            if now["done"] != job["done"]:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALLED and not told:
                told = True
                say("nothing moves: is a worker running? See `webhook-gateway status`")
            job = now
            shown.update(bar, completed=job["done"])
    return job
