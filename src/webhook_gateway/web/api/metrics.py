"""``/metrics``: what the API's processes have counted, and the database's gauges as of the scrape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from webhook_gateway import counters
from webhook_gateway.rules import ids
from webhook_gateway.rules.scopes import Scope
from webhook_gateway.store import attempt_stats, expiry, stats
from webhook_gateway.store.driver import driver_of
from webhook_gateway.web.callers import Caller

from .dependencies import Parts, needs

router = APIRouter(tags=["Stats"])

Scraper = Annotated[Caller, needs(Scope.METRICS_READ, whole_tenant=True)]

PREFIX = "webhook_gateway_"
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EXAMPLE = "# HELP webhook_gateway_outbox_depth Events not fanned out yet.\nwebhook_gateway_outbox_depth 0.0\n"


@router.get(
    "/metrics",
    response_class=Response,
    operation_id="getMetrics",
    summary="Scrape metrics",
    responses={200: {"description": "Prometheus text format.", "content": {"text/plain": {"example": EXAMPLE}}}},
)
async def metrics(gateway: Parts, caller: Scraper) -> Response:
    """Shows the metrics of the API's processes and of the database. Endpoints are named only to their own hospital."""
    async with gateway.database.reading() as connection:
        whole = await stats.gauges(connection)
        found = [
            _gauge("outbox_depth", "Events not fanned out yet.", whole.outbox_depth),
            _gauge("deliveries_open", "Open deliveries.", whole.open_deliveries),
            _gauge("deliveries_waiting", "Deliveries that wait for their ordering key.", whole.waiting_deliveries),
            _gauge("held_keys", "Ordering keys that wait for an operator.", whole.held_keys),
            _gauge(
                "data_key_records", "Records sealed by the data key that has sealed most; 2^32 at most.", whole.sealed
            ),
            _gauge("workers", "Workers seen within a minute.", whole.workers),
            _gauge(
                "sending_paused", "1 while nothing is sent to anybody, as in a restored copy.", whole.sending_paused
            ),
            _gauge(
                "oldest_transaction_seconds",
                "Age of the oldest open transaction: one left open slows everything down.",
                whole.oldest_transaction_seconds,
            ),
            _labelled("breakers", "Endpoints whose breaker is not closed.", "state", _breakers(whole)),
            _labelled("endpoints", "Endpoints, by state.", "state", await stats.endpoint_states(connection)),
            _labelled("dead_tuples", "Rows to be vacuumed.", "table", await stats.dead_tuples(connection)),
        ]
        driver = await driver_of(connection)
        expiring = await expiry.soonest(driver, caller.tenant_id, gateway.vault)
        backlog, _ = await stats.backlog(connection, caller.tenant_id, None)
        found += _of_endpoints(
            await attempt_stats.of_endpoints(driver, caller.tenant_id),
            {row["endpoint_id"]: row for row in backlog},
            gateway.settings.metrics_endpoints,
        )
    ends = {one[:3]: one.at.timestamp() for one in expiring}
    what = "When an API key, a replaced signing secret or a client certificate ends, in Unix seconds; the next 50."
    found.append(_by_labels("expires_timestamp_seconds", what, ("kind", "id", "name"), ends))
    registry = CollectorRegistry()
    registry.register(Gathered(found))
    return Response(counters.shown() + generate_latest(registry), media_type=MEDIA_TYPE)


class Gathered(Collector):
    """Gauges that were read a moment ago."""

    def __init__(self, found: list[GaugeMetricFamily]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        yield from self._found


def _of_endpoints(rows: Sequence[Any], backlog: Mapping[UUID, Any], most: int) -> Iterator[GaugeMetricFamily]:
    """Those with most to do by themselves, the others together."""
    attempts: defaultdict[tuple[str, ...], int] = defaultdict(int)
    ages: defaultdict[tuple[str, ...], float] = defaultdict(float)
    accepted_at: dict[tuple[str, ...], float] = {}

    def work(row: Any) -> int:
        return int(row["accepted"] + row["failed"] + (backlog[row["id"]]["open"] if row["id"] in backlog else 0))

    for place, row in enumerate(sorted(rows, key=work, reverse=True)):
        who = (ids.render(ids.ENDPOINT, row["id"]), row["subscriber"]) if place < most else ("other", "other")
        for outcome in ("accepted", "failed"):
            attempts[*who, outcome] += row[outcome]
        age = backlog[row["id"]]["oldest_due_seconds"] if row["id"] in backlog else None
        ages[who] = max(ages[who], age or 0.0)
        if row["accepted_at"] is not None and place < most:
            accepted_at[who] = row["accepted_at"].timestamp()
    labels = ("endpoint", "subscriber")
    yield _by_labels("oldest_due_seconds", "Age of the oldest due delivery.", labels, ages)
    what = "Attempts within the last quarter of an hour."
    yield _by_labels("endpoint_attempts", what, (*labels, "outcome"), attempts)
    what = "When an attempt last succeeded, in Unix seconds."
    yield _by_labels("endpoint_last_accepted_timestamp_seconds", what, labels, accepted_at)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    return _by_labels(name, text, [label], {(of,): value for of, value in values.items()})


def _by_labels(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for of, value in values.items():
        family.add_metric(of, float(value))
    return family


def _breakers(whole: object) -> dict[str, int]:
    return {"open": whole.breakers_open, "half_open": whole.breakers_half_open}  # type: ignore[attr-defined]
