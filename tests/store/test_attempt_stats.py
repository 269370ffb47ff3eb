"""Counts become few rows with time, and stay what they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from uuid_utils.compat import uuid7

from tests.support.hospital import Hospital
from webhook_gateway.operations import stats
from webhook_gateway.operations.change import local_actor
from webhook_gateway.store import attempt_stats
from webhook_gateway.store.attempt_stats import KEPT_DAYS, SLICE, Counted, Kind

SUMS = """
SELECT about_id, outcome, status, sum(attempts)::int AS attempts, sum(died)::int AS died, min(first_at), max(last_at),
       (SELECT array_agg(s ORDER BY i) FROM (
           SELECT i, sum(n)::int AS s FROM attempt_stats o CROSS JOIN unnest(o.durations) WITH ORDINALITY AS d(n, i)
           WHERE (o.about_id, o.outcome) = (a.about_id, a.outcome) AND o.status IS NOT DISTINCT FROM a.status GROUP BY i
       ) AS u) AS durations
FROM attempt_stats a GROUP BY about_id, outcome, status ORDER BY 1, 2, 3
"""


async def test_rows_become_one_for_each_minute_and_later_for_each_hour_and_nothing_is_lost(hospital: Hospital) -> None:
    here, there = await hospital.endpoint(), await hospital.endpoint()
    for at in (ago(hours=5), ago(hours=5, seconds=3), ago(hours=5, minutes=1), ago(minutes=3), ago()):
        for about in (here, there):
            await add(hospital, about, at, durations=[1, 0, 2])
            await add(hospital, about, at, "rejected", 503, durations=[0, 0, 0, 4], died=1)
    before = await hospital.rows(SUMS)
    await merge(hospital)
    assert await hospital.rows(SUMS) == before
    hours = len({ago(hours=5).hour, ago(hours=5, minutes=1).hour})
    spans = await hospital.rows(
        "SELECT span, count(*) FROM attempt_stats WHERE about_id = $1 GROUP BY 1 ORDER BY 1", here
    )
    assert [tuple(row) for row in spans] == [(0, 2), (60, 2), (3_600, 2 * hours)]
    assert await hospital.rows(SUMS) == before
    await merge(hospital)
    assert await hospital.rows(SUMS) == before


async def test_more_rows_than_a_slice_are_merged_and_only_those_of_the_same_outcome(hospital: Hospital) -> None:
    endpoint_id, at = await hospital.endpoint(), datetime.now(UTC) - timedelta(minutes=5)
    await add(hospital, endpoint_id, at, times=SLICE + 10)
    await add(hospital, endpoint_id, at, "rejected", 500)
    await add(hospital, endpoint_id, at, "rejected", 404)
    before = await hospital.rows(SUMS)
    await merge(hospital)
    assert await hospital.rows(SUMS) == before
    assert await hospital.count("attempt_stats") <= 4
    assert await hospital.count("attempt_stats WHERE span = 0") == 0


async def test_what_is_added_again_after_an_unknown_outcome_counts_once(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    row = one(hospital, endpoint_id, datetime.now(UTC))
    async with hospital.database.connection() as connection:
        await attempt_stats.add(connection, [row])
        await attempt_stats.add(connection, [row])
    assert await hospital.count("attempt_stats") == 1


async def test_the_latest_delivery_stays_the_sample(hospital: Hospital) -> None:
    endpoint_id, at = await hospital.endpoint(), datetime.now(UTC).replace(second=1) - timedelta(minutes=5)
    samples = [uuid4(), uuid4(), uuid4()]
    for seconds, sample in zip((2, 9, 5), samples, strict=True):
        await add(hospital, endpoint_id, at + timedelta(seconds=seconds), delivery_id=sample)
    await merge(hospital)
    assert [row["delivery_id"] for row in await hospital.rows("SELECT delivery_id FROM attempt_stats")] == [samples[1]]


async def test_rows_go_when_they_are_older_than_they_are_kept(hospital: Hospital) -> None:
    endpoint_id = await hospital.endpoint()
    for days in (KEPT_DAYS + 1, KEPT_DAYS - 1):
        await add(hospital, endpoint_id, datetime.now(UTC) - timedelta(days=days))
    await merge(hospital)
    assert await hospital.count("attempt_stats") == 1


async def test_a_problem_is_what_failed_after_the_last_success_and_counts_nothing_from_before(
    hospital: Hospital,
) -> None:
    failing, well, back, gone = [await hospital.endpoint() for _ in range(4)]
    for endpoint_id in (failing, well, gone):
        await add(hospital, endpoint_id, ago(minutes=30), "rejected", 503)
        await add(hospital, endpoint_id, ago(minutes=20))
    for endpoint_id in (failing, gone):
        await add(hospital, endpoint_id, ago(minutes=10), "rejected", 503)
        await add(hospital, endpoint_id, ago(minutes=5), "rejected", 503)
        await add(hospital, endpoint_id, ago(minutes=9), "timed_out")
    await add(hospital, back, ago(minutes=9), "timed_out")
    await add(hospital, back, ago(minutes=8))
    await hospital.change("UPDATE endpoints SET deleted_at = now() WHERE id = $1", gone)
    async with hospital.database.reading() as connection:
        found = await stats.problems(connection, local_actor(hospital.tenant_id))
    assert [(row["endpoint_id"], row["outcome"], row["attempts"]) for row in found] == [
        (failing, "rejected", 2),
        (failing, "timed_out", 1),
    ]


def ago(**past: float) -> datetime:
    return datetime.now(UTC).replace(second=10) - timedelta(**past)


def one(
    hospital: Hospital, about: UUID, at: datetime, outcome: str = "accepted", status: int | None = None, **numbers: Any
) -> tuple[Kind, Counted]:
    moment = at.timestamp()
    given = {"delivery_id": uuid4(), "durations": [1], "attempts": 1, **numbers}
    kind = Kind(int(moment // 60) * 60, hospital.tenant_id, about, outcome, status)
    return kind, Counted(uuid7(), moment, moment, **given)


async def add(hospital: Hospital, about: UUID, at: datetime, *what: Any, times: int = 1, **numbers: Any) -> None:
    rows = [one(hospital, about, at, *what, **numbers) for _ in range(times)]
    async with hospital.database.connection() as connection:
        await attempt_stats.add(connection, rows)


async def merge(hospital: Hospital) -> None:
    async with hospital.database.connection() as connection:
        await attempt_stats.merge(connection)
