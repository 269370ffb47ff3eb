"""After the database's clock was ahead: what was written then is due later than anything can be by the rules."""

from __future__ import annotations

from webhook_gateway.rules.breaker import LONGEST_OPENING
from webhook_gateway.rules.model import DEFAULT_SCHEDULE
from webhook_gateway.rules.retry import JITTER, RETRY_AFTER_LIMIT

from .database import FULL_SCAN, Connection

SLICE = 10_000
SLACK = 60.0
"""Seconds beyond what the rules say, for clocks that differ, and longer than the gateway itself postpones."""

HEAL_WORKERS = """
-- heal workers: who lives says so again
DELETE FROM workers WHERE seen_at > now() + make_interval(secs => $1)
"""

HEAL_HEALTH = """
-- heal health: what lasts longer than a breaker, or a silence that was asked for, may last is over; nothing began later
UPDATE endpoint_health h SET
    open_until = CASE WHEN open_until > latest.opening THEN now() ELSE open_until END,
    held_until = CASE WHEN held_until > latest.silence THEN now() ELSE held_until END,
    failing_since = least(failing_since, now()), changed_at = clock_timestamp()
FROM (SELECT now() + make_interval(secs => $1) AS now, now() + make_interval(secs => $2) AS opening,
             now() + make_interval(secs => $3) AS silence) AS latest
WHERE open_until > latest.opening OR held_until > latest.silence OR failing_since > latest.now
   OR changed_at > latest.now
"""

HEAL_DELIVERIES = """
-- heal deliveries: a slice of those due later than their lease, their schedule or a silence asked for can make them
UPDATE deliveries d SET due_at = now() + CASE WHEN d.lease_id IS NULL THEN random() ELSE 1 END * late.longest
FROM (
    SELECT d.ctid, bound.longest
    FROM endpoints e LEFT JOIN endpoint_health h ON h.endpoint_id = e.id
    JOIN deliveries d ON d.endpoint_id = e.id AND d.due_at > now() + make_interval(secs => $1)
    CROSS JOIN LATERAL (SELECT CASE
        WHEN d.lease_id IS NOT NULL THEN make_interval(secs => e.deadline + $2::float8)
        ELSE greatest(coalesce((coalesce(e.schedule, $3::float8[]))[d.attempt], 0) * $4::float8 * interval '1 second',
                      h.held_until - now(),
                      CASE WHEN d.not_before <= now() + make_interval(secs => $6) THEN d.not_before - now() END)
    END AS longest) AS bound
    WHERE d.due_at > now() + bound.longest + make_interval(secs => $1)
    LIMIT $5
) AS late
WHERE d.ctid = late.ctid
"""


async def heal(connection: Connection, lease_margin: float) -> bool:
    """Brings forward what is due too late, a slice at a time; whether there may be more."""
    await connection.execute(HEAL_WORKERS, SLACK)
    await connection.execute(HEAL_HEALTH, SLACK, LONGEST_OPENING + SLACK, RETRY_AFTER_LIMIT + SLACK)
    done = await connection.execute(
        HEAL_DELIVERIES,
        SLACK,
        lease_margin,
        list(DEFAULT_SCHEDULE),
        1 + JITTER,
        SLICE,
        RETRY_AFTER_LIMIT,
        timeout=FULL_SCAN,
    )
    return done == f"UPDATE {SLICE}"
