"""What operators are told of: a row for each trouble, from when it is seen until its end was told, too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from .database import Connection

OF = "SELECT FROM {} o WHERE (o.trouble, o.subject_id) = (n.trouble, n.subject_id)"

SEE = f"""
-- see: what is in trouble gets a row, to be told; what was told and is over is to be told again, and what was not, goes
WITH of_endpoints AS (
    SELECT e.id, e.state, e.state_changed_at, s.name || ', ' || split_part(e.url, '?', 1) AS label
    FROM endpoints e JOIN subscribers s ON s.id = e.subscriber_id WHERE e.deleted_at IS NULL
), troubles AS (
    SELECT 'endpoint_failing' AS trouble, e.id AS subject_id, e.id AS about_id, e.label, h.failing_since AS at
    FROM of_endpoints e JOIN endpoint_health h ON h.endpoint_id = e.id
    WHERE h.failing_since < now() - CASE WHEN h.open_until IS NULL THEN interval '1 hour' ELSE '10 minutes' END
      AND e.state <> 'paused'
    UNION ALL
    SELECT 'endpoint_disabled', id, id, label, state_changed_at FROM of_endpoints WHERE state = 'disabled'
    UNION ALL
    SELECT 'deliveries_dead', id, id, label, at FROM of_endpoints JOIN (
        SELECT about_id, min(first_at) AS at FROM attempt_stats
        WHERE died > 0 AND begins > now() - interval '1 hour' GROUP BY about_id) AS dead ON about_id = id
    UNION ALL
    SELECT 'secret_expiring', s.id, e.id, e.label, s.expires_at
    FROM endpoint_secrets s JOIN of_endpoints e ON e.id = s.endpoint_id
    WHERE s.expires_at > now() AND s.expires_at < now() + interval '14 days'
    UNION ALL
    SELECT 'key_expiring', id, id, name, expires_at FROM api_keys
    WHERE revoked_at IS NULL AND expires_at > now() AND expires_at < now() + interval '14 days'
), begun AS (
    INSERT INTO notices (trouble, subject_id, about_id, label, at)
    SELECT trouble, subject_id, about_id, label, coalesce(at, now()) FROM troubles n
    WHERE NOT EXISTS ({OF.format("notices")} AND (o.state <> 'over' OR o.claimed_until > now()))
    ON CONFLICT (trouble, subject_id) DO UPDATE SET state = 'told' WHERE notices.state = 'over'
), ended AS (
    UPDATE notices n SET state = 'over' WHERE state = 'told' AND NOT EXISTS ({OF.format("troubles")})
)
DELETE FROM notices n
WHERE state = 'new' AND coalesce(claimed_until < now(), true) AND NOT EXISTS ({OF.format("troubles")})
"""

CLAIM = """
-- claim: what is to be told, for two minutes: then somebody else tries
UPDATE notices SET claimed_until = now() + interval '2 minutes' WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM notices WHERE state <> 'told' AND coalesce(claimed_until < now(), true)
    ORDER BY at LIMIT 100 FOR UPDATE SKIP LOCKED))
RETURNING trouble, subject_id, about_id, label, at, state = 'over' AS over
"""

TOLD = """
-- told: what begins stays until it is over
WITH gone AS (
    DELETE FROM notices n USING unnest($1::text[], $2::uuid[]) AS o (trouble, subject_id)
    WHERE (o.trouble, o.subject_id) = (n.trouble, n.subject_id) AND n.state = 'over'
)
UPDATE notices n SET state = 'told', claimed_until = NULL
FROM unnest($1::text[], $2::uuid[]) AS o (trouble, subject_id)
WHERE (o.trouble, o.subject_id) = (n.trouble, n.subject_id) AND n.state = 'new'
"""


class Notice(NamedTuple):
    """``label`` is what the endpoint or key ``about_id`` is called. ``at``: since when, or when it expires."""

    trouble: str
    subject_id: UUID
    about_id: UUID
    label: str
    at: datetime
    over: bool


async def claim(connection: Connection) -> list[Notice]:
    await connection.execute(SEE)
    return [Notice(*row) for row in await connection.fetch(CLAIM)]


async def told(connection: Connection, notices: Sequence[Notice]) -> None:
    await connection.execute(TOLD, [one.trouble for one in notices], [one.subject_id for one in notices])
