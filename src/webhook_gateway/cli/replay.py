"""``replay``: send finished deliveries again, one or many. ``backfill``: what came before an endpoint did.

``try-now``: attempt one that waits."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webhook_gateway.operations.refusals import MOST_COUNTED
from webhook_gateway.rules import ids

from .environment import TenantName, change_in, moment_in, parse_id, tenant_named, with_database
from .exits import NO, WRONG, CannotGoOn, granted
from .operate import filled_vault
from .screen import progress, say, write_json

if TYPE_CHECKING:
    from webhook_gateway.store.database import Database

STALLED = 15.0
"""Seconds without progress after which one is told that no worker is at it."""


class State(StrEnum):
    DEAD = "dead"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


Since = Annotated[
    str,
    typer.Option("--since", metavar="TIME", help="Made at or after, as in 2026-11-23T08:00 (UTC unless it says)."),
]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Made before.")]
Type = Annotated[str, typer.Option("--type", help="Only events of this type.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until everything is queued.")]
AsJson = Annotated[bool, typer.Option("--json", help="The job, the new delivery, or what would be sent, as JSON.")]


def replay(
    delivery: Annotated[str, typer.Argument(metavar="[DELIVERY_ID]", help="dlv_…: only this one.")] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", metavar="EP_ID", help="Only deliveries to this endpoint.")
    ] = "",
    subscriber: Annotated[
        str, typer.Option("--subscriber", metavar="SUB_ID", help="Only deliveries to its endpoints.")
    ] = "",
    type: Type = "",
    state: Annotated[State, typer.Option("--state", help="Only deliveries that ended so.")] = State.DEAD,
    since: Since = "",
    until: Until = "",
    everything: Annotated[
        bool, typer.Option("--all", help="All of that state, where nothing else says which.")
    ] = False,
    tenant: TenantName = "default",
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Send a finished delivery again, or all that a filter finds. Partners see the same webhook-id.

    [dim]Examples:[/dim]
      webhook-gateway replay dlv_01h455vb4pex5vsknk084sn02q
      webhook-gateway replay --endpoint ep_… --since 2026-11-23T08:00 --dry-run
    """
    from webhook_gateway.operations import replays

    if delivery:
        _replay_one(delivery, tenant, as_json=as_json)
        return
    endpoint_id = parse_id(ids.ENDPOINT, endpoint) if endpoint else None
    subscriber_id = parse_id(ids.SUBSCRIBER, subscriber) if subscriber else None
    given = _given(type, since, until, endpoint_id=endpoint_id, subscriber_id=subscriber_id, all=everything or None)
    if not given:
        raise CannotGoOn(
            "say which: a delivery's id, --endpoint, --subscriber, --type, --since, --until or --all", WRONG
        )
    given["state"] = state.value
    found = change_in(tenant, lambda change: replays.preview(change.connection, change.actor, given))
    if _is_wanted(found, dry_run=dry_run, yes=yes, as_json=as_json):
        job = change_in(tenant, lambda change: replays.create(change, given))
        _report(job, wait=wait, as_json=as_json)


def backfill(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT_ID", help="ep_…")],
    since: Since,
    until: Until = "",
    type: Type = "",
    tenant: TenantName = "default",
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Send an endpoint what was accepted before it was made, or widened: what it may have and has not had, at its rate.

    [dim]Example:[/dim]  webhook-gateway backfill ep_… --since 2026-11-01 --dry-run
    """
    from webhook_gateway.operations import backfills
    from webhook_gateway.operations.change import local_actor

    endpoint_id, given, vault = parse_id(ids.ENDPOINT, endpoint), _given(type, since, until), filled_vault()

    async def preview(database: Database) -> dict[str, Any]:
        actor = local_actor(await tenant_named(database, tenant))
        return granted(await backfills.preview(database, vault, actor, endpoint_id, given))

    found = with_database(preview)
    if _is_wanted(found, dry_run=dry_run, yes=yes, as_json=as_json):
        job = change_in(tenant, lambda change: backfills.create(change, endpoint_id, given, found))
        _report(job, wait=wait, as_json=as_json)


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


def _given(type: str, since: str, until: str, **others: object) -> dict[str, Any]:
    given = {"type": type or None, "since": moment_in(since), "until": moment_in(until), **others}
    return {name: value for name, value in given.items() if value is not None}


def _is_wanted(found: dict[str, Any], *, dry_run: bool, yes: bool, as_json: bool) -> bool:
    """Says what would be sent, and asks whether it is to be, unless that was said already."""
    if dry_run and as_json:
        write_json(found)
    if as_json:
        return not dry_run
    more = "" if not found["more"] else "more than " if found["count"] == MOST_COUNTED else "at least "
    say(f"{more}{found['count']:,} would be sent")
    facts = {
        "missing": "{:,} more can't be: their bodies are no longer kept",
        "second_deliveries": "{:,} of them for the second time",
        "wider": "{:,} of which the endpoint gets more now",
        "ordering_keys": "{:,} ordering keys",
        "oldest": "the first was accepted {:%Y-%m-%d %H:%M} UTC",
        "newest": "the last {:%Y-%m-%d %H:%M} UTC",
        "minutes": "about {:,.0f} minutes at the endpoint's rate",
    }
    for line in (*(fact.format(found[name]) for name, fact in facts.items() if found[name]), *found["notes"]):
        say(f"  {line}")
    if not (dry_run or yes or not found["count"] or typer.confirm("Send them?")):
        raise typer.Exit(NO)
    return not dry_run


def _report(job: Any, *, wait: bool, as_json: bool) -> None:
    """Follows the job, if that is wanted, and says how far it is."""
    if wait:
        job = with_database(lambda database: _follow(database, job, quiet=as_json))
    shown = {
        "id": ids.render(ids.JOB, job["id"]),
        **{name: job[name] for name in ("state", "done", "total", "missing")},
    }
    if as_json:
        write_json(shown)
    else:
        of = "" if job["total"] is None else f" of {job['total']:,}"
        say(f"{shown['id']} is {job['state']}: {job['done']:,}{of} queued")


async def _follow(database: Database, job: Any, *, quiet: bool) -> Any:
    """Shows the job's progress until it has ended. Ctrl-C leaves it running."""
    from webhook_gateway.store import replays

    with progress("queueing", quiet=quiet) as shown:
        bar = shown.add_task(job["kind"], total=job["total"])
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
