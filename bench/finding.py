"""One patient among millions of events: how long a look takes, thirty days back and all of six years."""

from __future__ import annotations

import statistics
from datetime import UTC, date, datetime, timedelta
from time import perf_counter
from uuid import UUID

from webhook_gateway.store import lookups, partitions
from webhook_gateway.store.partitions import LOOKUPS

from .gateway import Gateway
from .report import Report

DAYS, PATIENTS, LOOKS = 2_190, 100_000, 9
PAGE = 200
# A day's events are a millisecond apart or less, of one patient after the other, so that each has some in every month.
FILL = """
INSERT INTO lookups (key, event_id)
SELECT lpad(to_hex((n * 7919 + $3 * 104729) % $4), 32, '0')::uuid,
       (lpad(to_hex($1::bigint + n * 86400000 / $2), 12, '0') || '7000' || lpad(to_hex(n), 16, '8'))::uuid
FROM generate_series(0, $2::bigint - 1) AS n
"""


async def measure_finding(gateway: Gateway, report: Report, events: int) -> None:
    """``events`` of six years, each with a patient; a connection's first look through all of it is told apart."""
    connection = gateway.connection
    today = await partitions.today(connection)
    first = today - timedelta(days=DAYS - 1)
    for day in range(0, DAYS, 30):  # each a statement for the catalogue's rows of a month
        await partitions.make_ahead(connection, LOOKUPS, first + timedelta(days=day), min(30, DAYS - day) - 1)
    for number in range(DAYS):
        begin = partitions.lowest_id(first + timedelta(days=number)).int >> 80
        await connection.execute(FILL, begin, max(events // DAYS, 1), number, PATIENTS)
    await connection.execute("VACUUM (ANALYZE) lookups", timeout=600)
    rows = await connection.fetchval("SELECT count(*) FROM lookups", timeout=120)
    report.say(f"{rows:,} events of {PATIENTS:,} patients in {DAYS:,} days")
    report.note("find_first_ms", await _look(gateway, 0, first), "ms, six years, by a connection that begins with it")
    month = datetime.combine(today - timedelta(days=29), datetime.min.time(), UTC)
    for name, since in (("find_month_ms", month), ("find_years_ms", None)):
        took = [await _look(gateway, patient, first, since) for patient in range(1, LOOKS + 1)]
        report.note(name, statistics.median(took), f"ms, the median of {LOOKS} patients")
    await partitions.drop_before(connection, LOOKUPS, today)


async def _look(gateway: Gateway, patient: int, first: date, since: datetime | None = None) -> float:
    """Milliseconds until all of a patient's events are found, page after page."""
    began, found, before = perf_counter(), 0, None
    while True:
        page, before = await lookups.events_of(
            gateway.database, [UUID(int=patient)], since=since, before=before, limit=PAGE
        )
        found += len(page)
        if len(page) >= PAGE:
            before = page[-1][0]
        if before is None:
            break
    if since is None and not found:
        raise AssertionError(f"nothing was found of a patient since {first}")
    return (perf_counter() - began) * 1e3
