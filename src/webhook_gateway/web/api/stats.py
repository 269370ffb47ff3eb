"""``/v1/stats``: how far behind the gateway is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter

from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import stats
from webhook_gateway.web.callers import Caller

from .dependencies import Parts, needs
from .schemas.stats import Stats

router = APIRouter(prefix="/v1/stats", tags=["Stats"])

Reader = Annotated[Caller, needs(Scope.DELIVERIES_READ)]


@router.get("", response_model=Stats, operation_id="getStats", summary="See how far behind the gateway is")
async def totals(gateway: Parts, caller: Reader) -> Any:
    """Counts what is open. A subscriber's key sees the deliveries to its own endpoints."""
    tenant_id, subscriber_id = caller.tenant_id, caller.subscriber_id
    async with gateway.database.reading() as connection:
        backlog, most = await stats.backlog(connection, tenant_id, subscriber_id)
        dead = await stats.died_since(connection, tenant_id, subscriber_id, datetime.now(UTC) - timedelta(days=1))
        outbox = unmatched = None
        if subscriber_id is None:
            outbox = await stats.outbox_waiting(connection, tenant_id)
            unmatched = await stats.unmatched_of_recent(connection, tenant_id)
    total, sending, waiting = (sum(row[name] for row in backlog) for name in ("open", "sending", "waiting"))
    ages = [row["oldest_due_seconds"] for row in backlog if row["oldest_due_seconds"] is not None]
    return {
        "outbox_waiting": outbox,
        "open": total,
        "pending": total - sending - waiting,
        "sending": sending,
        "waiting": waiting,
        "oldest_due_seconds": max(ages, default=None),
        "dead_24h": dead,
        "unmatched_recent": unmatched,
        "counted_to": most,
        "endpoints": backlog[: stats.MOST_ENDPOINTS],
    }
