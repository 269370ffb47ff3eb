"""How deliveries fare: what is open, what attempts came to, and which endpoints fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from asyncpg import Record
from sqlalchemy.ext.asyncio import AsyncConnection

from webhook_gateway.rules.histogram import added, quantile
from webhook_gateway.store import attempt_stats, stats
from webhook_gateway.store.driver import driver_of
from webhook_gateway.store.lists import endpoint_ids
from webhook_gateway.store.reports import Filter

from .change import Actor
from .endpoints import find
from .refusals import NotFound

Window = Literal["1h", "24h", "7d", "90d"]
_SECONDS: dict[Window, tuple[int, int]] = {
    "1h": (3_600, 60),
    "24h": (86_400, 3_600),
    "7d": (7 * 86_400, 3_600),
    "90d": (90 * 86_400, 86_400),
}
"""A window's length, and that of its buckets."""


async def backlog(connection: AsyncConnection, actor: Actor) -> dict[str, Any]:
    """How far behind the gateway is. What concerns the whole hospital is None for a subscriber."""
    tenant_id, subscriber_id = actor.tenant_id, actor.subscriber_id
    found, most = await stats.backlog(connection, tenant_id, subscriber_id)
    dead = await stats.died_since(connection, tenant_id, subscriber_id, datetime.now(UTC) - timedelta(days=1))
    outbox = await stats.outbox_waiting(connection, tenant_id) if subscriber_id is None else None
    total, sending, waiting = (sum(row[name] for row in found) for name in ("open", "sending", "waiting"))
    ages = [row["oldest_due_seconds"] for row in found if row["oldest_due_seconds"] is not None]
    return {
        "outbox_waiting": outbox,
        "open": total,
        "pending": total - sending - waiting,
        "sending": sending,
        "waiting": waiting,
        "oldest_due_seconds": max(ages, default=None),
        "dead_24h": dead,
        "counted_to": most,
        "endpoints": found[: stats.MOST_ENDPOINTS],
    }


async def unmatched(connection: AsyncConnection, actor: Actor) -> int | None:
    """How many of the hospital's recent events no endpoint wanted; None for a subscriber."""
    return await stats.unmatched_of_recent(connection, actor.tenant_id) if actor.subscriber_id is None else None


async def attempts(connection: AsyncConnection, actor: Actor, window: Window) -> dict[str, Any]:
    """What attempts came to: those of the whole hospital, or of a subscriber's endpoints."""
    about = [actor.tenant_id]
    if actor.subscriber_id is not None:
        about = await endpoint_ids(connection, Filter(actor.tenant_id, actor.subscriber_id))
    return await _series(connection, actor, window, about)


async def of_endpoint(
    connection: AsyncConnection, actor: Actor, endpoint_id: UUID, window: Window
) -> dict[str, Any] | NotFound:
    """The same of one endpoint, with when it last took something, and what is open for it."""
    if isinstance(found := await find(connection, actor, endpoint_id), NotFound):
        return found
    backlog, _ = await stats.backlog(connection, actor.tenant_id, actor.subscriber_id, endpoint_id)
    last = await attempt_stats.last_accepted(await driver_of(connection), actor.tenant_id, endpoint_id)
    series = await _series(connection, actor, window, [endpoint_id])
    return {**series, "last_success_at": last, "backlog": backlog[0] if backlog else None}


async def problems(connection: AsyncConnection, actor: Actor, endpoint_id: UUID | None = None) -> list[dict[str, Any]]:
    """What fails, by endpoint and outcome, since the endpoint last took something: the latest first."""
    return await attempt_stats.problems(await driver_of(connection), actor.tenant_id, actor.subscriber_id, endpoint_id)


async def _series(connection: AsyncConnection, actor: Actor, window: Window, about: Sequence[UUID]) -> dict[str, Any]:
    length, bucket = _SECONDS[window]
    until = (int(datetime.now(UTC).timestamp()) // bucket + 1) * bucket
    begins = [datetime.fromtimestamp(at, UTC) for at in range(until - length, until, bucket)]
    rows = await attempt_stats.series(await driver_of(connection), actor.tenant_id, about, begins[0], bucket)
    by_bucket, by_outcome = defaultdict(list), defaultdict(list)
    for row in rows:
        by_bucket[row["begins"]].append(row)
        by_outcome[row["outcome"], row["status"], row["detail"]].append(row)
    return {
        "window": window,
        **_measured(rows),
        "outcomes": [
            {"outcome": outcome, "status": status, "detail": detail, "attempts": sum(row["attempts"] for row in some)}
            for (outcome, status, detail), some in by_outcome.items()
        ],
        "buckets": [{"begins_at": at, **_measured(by_bucket[at])} for at in begins],
    }


def _measured(rows: Sequence[Record]) -> dict[str, Any]:
    accepted = [row for row in rows if row["outcome"] == "accepted"]
    attempts, successes = (sum(row["attempts"] for row in some) for some in (rows, accepted))
    durations = added(row["durations"] for row in accepted)
    return {
        "attempts": attempts,
        "accepted": successes,
        "died": sum(row["died"] for row in rows),
        "success": successes / attempts if attempts else None,
        "p50_seconds": quantile(durations, 0.5),
        "p99_seconds": quantile(durations, 0.99),
    }
