"""``replay``: send finished deliveries again, one or many."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from webhook_gateway.rules import ids

from .environment import TenantName, tenant_named, with_database
from .exits import NO, WRONG, CannotGoOn
from .screen import remarks, say, write_json

if TYPE_CHECKING:
    from uuid import UUID

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
    if delivery:
        _replay_one(delivery, tenant, as_json=as_json)
        return
    wanted = {
        "endpoint_id": _parse(ids.ENDPOINT, endpoint) if endpoint else None,
        "type": type or None,
        "state": state.value,
        "since": _moment(since),
        "until": _moment(until),
    }
    if not any(wanted[name] for name in ("endpoint_id", "type", "since", "until")):
        raise CannotGoOn("say which: a delivery's id, --endpoint, --type, --since or --until", WRONG)
    found = with_database(lambda database: _count(database, tenant, wanted))
    if found and not (yes or as_json) and not typer.confirm(f"Replay {found:,} {state} deliveries?"):
        raise typer.Exit(NO)
    job = with_database(lambda database: _run(database, tenant, wanted, found, wait=wait, quiet=as_json))
    if as_json:
        write_json(job)
    else:
        say(f"{job['id']} is {job['state']}: {job['done']:,} of {job['total']:,} queued again")


def _replay_one(text: str, tenant: str, *, as_json: bool) -> None:
    delivery_id = _parse(ids.DELIVERY, text)

    async def work(database: Database) -> UUID | None:
        from webhook_gateway.store import audit, replays, reports
        from webhook_gateway.store.notifications import OUTBOX, notify

        tenant_id = await tenant_named(database, tenant)
        async with database.begin() as connection:
            row = await reports.delivery(connection, reports.Filter(tenant_id), delivery_id)
            if row is None:
                return None
            if row["state"] not in reports.FINAL_STATES:
                raise CannotGoOn(f"{text} is {row['state']}: only a finished delivery can be replayed", NO)
            new = await replays.replay(
                connection,
                tenant_id,
                event_id=row["event_id"],
                type=row["type"],
                endpoint_id=row["endpoint_id"],
                reason="replay",
            )
            after = {"delivery": ids.render(ids.DELIVERY, new)}
            await audit.write(
                connection, tenant_id, audit.Change("cli", "local", "delivery.replayed", text, after=after)
            )
        await notify(database, OUTBOX)
        return new

    new = with_database(work)
    if new is None:
        raise CannotGoOn(f"there is no delivery {text}", NO)
    rendered = ids.render(ids.DELIVERY, new)
    if as_json:
        write_json({"id": rendered, "replay_of": text})
    else:
        say(f"queued again as {rendered}")


async def _count(database: Database, tenant: str, wanted: dict[str, Any]) -> int:
    from webhook_gateway.store import reports

    tenant_id = await tenant_named(database, tenant)
    async with database.begin() as connection:
        return await reports.finished_count(connection, reports.Filter(tenant_id, **wanted))


async def _run(
    database: Database, tenant: str, wanted: dict[str, Any], total: int, *, wait: bool, quiet: bool
) -> dict[str, Any]:
    from webhook_gateway.store import audit, replays

    tenant_id = await tenant_named(database, tenant)
    stored = {name: _written(value) for name, value in wanted.items() if value is not None}
    async with database.begin() as connection:
        job = await replays.create(connection, tenant_id, stored, total)
        job_id = ids.render(ids.JOB, job["id"])
        await audit.write(connection, tenant_id, audit.Change("cli", "local", "replay.created", job_id, after=stored))
    if wait:
        job = await _follow(database, tenant_id, job, quiet=quiet)
    return {"id": job_id, "state": job["state"], "done": job["done"], "total": job["total"]}


async def _follow(database: Database, tenant_id: UUID, job: Any, *, quiet: bool) -> Any:
    """Shows the job's progress until it has ended. Ctrl-C leaves it running."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from webhook_gateway.store import replays

    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=remarks, disable=quiet, transient=True) as progress:
        bar = progress.add_task("replay", total=job["total"])
        moved, told = time.monotonic(), False
        while job["state"] in replays.OPEN:
            await asyncio.sleep(0.25)
            async with database.begin() as connection:
                now = await replays.get(connection, tenant_id, job["id"], subscriber_id=None)
            assert now is not None, "jobs are never deleted"
            if now["done"] != job["done"]:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALLED and not told:
                told = True
                say("nothing moves: is a worker running? See `webhook-gateway status`")
            job = now
            progress.update(bar, completed=job["done"])
    return job


def _written(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CannotGoOn(f"{text} is no time: write it as 2026-11-23T08:00 or 2026-11-23T08:00+01:00", WRONG) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _parse(prefix: str, text: str) -> UUID:
    try:
        return ids.parse(prefix, text)
    except ids.NotAnId as error:
        raise CannotGoOn(f"{text} can't be used: {error}", WRONG) from None
