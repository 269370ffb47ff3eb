"""What the gateway says about itself: every log line's wording and every metric, in one place.

No body, secret, header value, ordering key or patient's id is ever given to these functions: they take ids, names and
numbers only.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Counter, Gauge, Histogram

from webhook_gateway import counters, lines
from webhook_gateway.rules import ids
from webhook_gateway.rules.model import Delivery, Endpoint
from webhook_gateway.rules.outcome import Exchange, words_of
from webhook_gateway.rules.verdict import Verdict

log = structlog.get_logger("webhook_gateway")
_level = logging.NOTSET
counters.join()

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)

http_requests = Counter(
    "webhook_gateway_http_requests_total",
    "Requests to the API, by route (its template), method and class of the status.",
    ["route", "method", "status"],
)
http_seconds = Histogram(
    "webhook_gateway_http_request_seconds",
    "How long a request to the API took.",
    ["route", "method"],
    buckets=(0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
http_in_flight = Gauge(
    "webhook_gateway_http_requests_in_flight", "Requests to the API under way.", multiprocess_mode="sum"
)
accepted_events = Counter("webhook_gateway_events_accepted_total", "Events committed to the outbox.")
refused_events = Counter("webhook_gateway_events_refused_total", "Events refused, by reason.", ["reason"])
unmatched_events = Counter("webhook_gateway_events_unmatched_total", "Events that no endpoint wanted.")
fanned_out = Counter("webhook_gateway_deliveries_created_total", "Deliveries made at fan-out.")
refused_connections = Counter(
    "webhook_gateway_connections_refused_total", "Connections that a limit of the server ended, by reason.", ["reason"]
)
attempts_made = Counter("webhook_gateway_attempts_total", "Requests to partners, by outcome.", ["outcome"])
finished = Counter("webhook_gateway_deliveries_finished_total", "Deliveries that ended, by state; no tests.", ["state"])
for _state in ("delivered", "dead"):
    finished.labels(_state)  # shown as 0 from the start: a rate can't see a counter that begins with 1
notices = Counter(
    "webhook_gateway_notices_total", "Troubles and their ends that operators were mailed, by result.", ["result"]
)
leases_lost = Counter("webhook_gateway_leases_lost_total", "Settles that found their lease gone.")
clock_steps = Counter(
    "webhook_gateway_clock_steps_total", "Steps of the database's clock by more than a minute that this process saw."
)
in_flight = Gauge(
    "webhook_gateway_requests_in_flight", "Requests to partners under way in this process.", multiprocess_mode="sum"
)
attempt_seconds = Histogram("webhook_gateway_attempt_seconds", "How long a request took.", buckets=SECONDS)
append_seconds = Histogram("webhook_gateway_append_seconds", "One group commit of events.", buckets=SECONDS)
append_events = Histogram(
    "webhook_gateway_append_events", "Events in a commit.", buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500)
)
claim_seconds = Histogram("webhook_gateway_claim_seconds", "One claim.", buckets=SECONDS)
settle_seconds = Histogram("webhook_gateway_settle_seconds", "One settle.", buckets=SECONDS)
fan_out_seconds = Histogram("webhook_gateway_fan_out_seconds", "One round of fan-out.", buckets=SECONDS)


def configure(level: str = "info") -> None:
    """JSON lines on standard error, one an occurrence, for every logger of the process."""
    global _level
    _level = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.EventRenamer("message"),
            _without_values,
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_level),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format='{"level":"%(levelname)s","message":"%(name)s"}'
    )


def metrics_shown(port: int) -> None:
    log.info("metrics_shown", port=port)


def worker_stuck(stages: list[str]) -> None:
    log.error("worker_stuck", stages=stages, remedy="it ends, to be started again; report what it said before")


def connection_refused(reason: str) -> None:
    """Only counted: whoever may open connections could fill a log."""
    refused_connections.labels(reason).inc()


def request_answered(
    method: str, route: str | None, status: int | None, duration: float, who: Sequence[str | None] | None
) -> None:
    """Counts it, and writes its one line, unless ``who`` is None: the request's id, a key, its tenant, an address.

    ``route`` is a template, None where none fits; ``status`` is None for who left. Never the path, the query, nor a
    request id that may be a person's."""
    count, seconds = _of_request(method, route or "none", status)
    counters.soon(count, 1)
    counters.soon(seconds, duration)
    if who is not None and _level <= logging.INFO:
        lines.write_soon(_Request("info", datetime.now(UTC), method, int(duration * 1e6) / 1e6, route, status, *who))
    else:
        counters.count()


_KNOWN = [("level", str), ("timestamp", datetime), ("method", str), ("duration", float)]
_MAYBE = [(name, str | int | None, None) for name in ("route", "status", "request_id", "actor", "tenant_id", "source")]
_Request = msgspec.defstruct("_", [*_KNOWN, *_MAYBE], omit_defaults=True, tag_field="message", tag="request")


@cache
def _of_request(method: str, route: str, status: int | None) -> tuple[Callable[[float], None], ...]:
    """As many as there are routes, methods of theirs, and statuses: the parser lets in known methods only."""
    kind = f"{status // 100}xx" if status else "none"
    return http_requests.labels(route, method, kind).inc, http_seconds.labels(route, method).observe


def attempt_made(endpoint: Endpoint, delivery: Delivery, exchange: Exchange, verdict: Verdict) -> None:
    """The one wide line an attempt."""
    outcome, status, detail = words_of(exchange.outcome)
    attempt_seconds.observe(exchange.duration)
    if _level > logging.INFO:
        return
    lines.write_soon(
        _Attempt(
            ids.render(ids.DELIVERY, delivery.id),
            ids.recall_recent(ids.EVENT, delivery.event_id),
            delivery.event_type,
            ids.recall(ids.ENDPOINT, endpoint.id),
            delivery.attempt,
            outcome,
            exchange.phase,
            round(exchange.duration, 6),
            type(verdict.action).__name__,
            verdict.health.failures_in_a_row,
            ids.recall(ids.TENANT, delivery.tenant_id),
            "info",
            datetime.now(UTC),
            status,
            detail,
            exchange.tls_version,
            exchange.sends,
        )
    )


def attempts_recorded(outcome: str, count: int) -> None:
    attempts_made.labels(outcome).inc(count)


class _Attempt(msgspec.Struct, omit_defaults=True, tag_field="message", tag="attempt"):
    """A line, without what is unknown: made and encoded sooner than a dictionary."""

    delivery_id: str
    event_id: str
    type: str
    endpoint_id: str
    attempt: int
    outcome: str
    phase: str
    duration: float
    verdict: str
    failures_in_a_row: int
    tenant_id: str
    level: str
    timestamp: datetime
    status: int | None = None
    detail: str | None = None
    tls: str | None = None
    sends: int = 1


def event_unmatched(event_id: UUID, event_type: str) -> None:
    unmatched_events.inc()
    log.info("event_matched_no_endpoint", event_id=ids.render(ids.EVENT, event_id), type=event_type)


def event_undelivered(event_id: str, event_type: str, subscriber_ids: list[str]) -> None:
    """Its addressees have no endpoint that may have it."""
    log.warning("event_undelivered", event_id=event_id, type=event_type, subscriber_ids=subscriber_ids)


def endpoint_changed(endpoint: Endpoint, change: str, reason: str | None) -> None:
    log.warning("endpoint_changed", endpoint_id=ids.render(ids.ENDPOINT, endpoint.id), change=change, reason=reason)


def notifications_interrupted(error: BaseException) -> None:
    log.warning("notifications_interrupted", error=type(error).__name__)


def database_unavailable(stage: str, error: Exception) -> None:
    log.warning("database_unavailable", stage=stage, error=str(error))


def statement_timed_out(stage: str) -> None:
    log.warning("statement_timed_out", stage=stage)


def stage_failed(stage: str, error: BaseException) -> None:
    """A bug: the stage goes on. Only the error's type and place are told, since its text may hold data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "unknown"
    log.error("stage_failed", stage=stage, error=type(error).__name__, place=place)


def egress_proxy_unavailable() -> None:
    remedy = "look at the egress proxy and its password; deliveries wait until then"
    log.error("egress_proxy_unavailable", remedy=remedy)


def clock_stepped(seconds: float) -> None:
    clock_steps.inc()
    log.error("clock_stepped", seconds=round(seconds), remedy="look at the clock of the database's machine")


def clock_settled(seconds: float) -> None:
    """``seconds`` are what is left of the step."""
    log.warning("clock_settled", seconds=round(seconds))


def clocks_differ(seconds: float) -> None:
    log.error("clocks_differ", seconds=round(seconds), remedy="correct this machine's clock, or the database's")


def keys_missing(missing: list[str]) -> None:
    log.error("keys_missing", missing=missing, remedy="configure the master key again; deliveries wait until then")


def record_damaged(record: str) -> None:
    log.error("record_damaged", record=record, remedy="find out who changed it; a backup may have it whole")


def lease_lost(count: int) -> None:
    leases_lost.inc(count)
    log.warning("lease_lost", count=count)


def sending_paused() -> None:
    log.warning("sending_paused", remedy="webhook-gateway status says why; resume-all ends it")


def sending_resumed() -> None:
    log.warning("sending_resumed")


def drain_cut_short(requests: int, results: int) -> None:
    log.error("drain_cut_short", requests=requests, results=results, remedy="their leases end; they are sent again")


def notices_sent(count: int, failure: str | None) -> None:
    notices.labels("sent" if failure is None else "failed").inc(count)
    if failure is None:
        log.info("notices_sent", count=count)
    else:
        log.error("notices_not_sent", count=count, reason=failure, remedy="run `webhook-gateway check`; tried again")


def partitions_dropped(names: list[str]) -> None:
    log.info("partitions_dropped", names=names)


def stalled_sessions_ended(count: int) -> None:
    log.warning("stalled_sessions_ended", sessions=count, remedy="a gateway process is frozen: look for stopped ones")


def not_let_in(reason: str) -> None:
    log.warning("not_let_in", reason=reason)


def open_too_long(count: int) -> None:
    log.warning("open_too_long", deliveries=count, remedy="they are dead; see WEBHOOK_GATEWAY_RETAIN_OPEN_DAYS")


def started(what: str, **facts: object) -> None:
    log.info("started", what=what, **facts)


def stopped(what: str, **facts: object) -> None:
    log.info("stopped", what=what, **facts)


def _without_values(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Keeps lines short: what is unknown is left out. An exception's text may hold data, so it never gets here."""
    line.pop("exc_info", None)
    return {name: value for name, value in line.items() if value is not None}


def _encode(line: object, **_: object) -> bytes:
    return msgspec.json.encode(line)
