"""How the gateway and its Postgres stand, for an operator at a terminal: all tenants together, numbers only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .database import Connection

SERVER = """
-- server: what the promises rest on
SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS version_text,
       current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('max_connections')::int AS max_connections,
       current_setting('log_error_verbosity') AS log_error_verbosity,
       current_setting('log_parameter_max_length_on_error') <> '0'
           OR current_setting('log_parameter_max_length') <> '0'
              AND (current_setting('log_statement') IN ('mod', 'all')
                   OR current_setting('log_min_duration_statement') <> '-1') AS logs_parameters,
       current_setting('server_encoding') AS encoding,
       EXISTS (SELECT FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS encrypted,
       extract(epoch FROM clock_timestamp())::float8 AS now
"""

ADMINISTRATORS = """
-- administrators: live keys that may do everything
SELECT count(*) FROM api_keys
WHERE 'admin' = ANY(scopes) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""

KEYS_EVER = "SELECT EXISTS (SELECT FROM api_keys)"

OUTBOX = """
-- outbox: how many events are not fanned out, and the oldest
SELECT count(*) AS depth, (SELECT event_id FROM outbox ORDER BY sequence LIMIT 1) AS oldest FROM outbox
"""

ENDED = """
-- ended badly: deliveries that died or were cancelled since a moment, but for those that were replayed
SELECT count(*) FILTER (WHERE state = 'dead') AS dead, count(*) FILTER (WHERE state = 'cancelled') AS cancelled
FROM finished_deliveries WHERE state <> 'delivered' AND tenant_id IN (SELECT id FROM tenants) AND finished_at >= $1
  AND replayed_as IS NULL
"""

IN_TROUBLE = """
-- in trouble: endpoints that are off, failing, or being left alone
SELECT e.id, s.name AS subscriber, split_part(e.url, '?', 1) || CASE WHEN e.url_query IS NOT NULL OR e.url LIKE '%?%'
       THEN '?…' ELSE '' END AS url, e.state, e.state_reason,
       coalesce(h.failures_in_a_row, 0) AS failures_in_a_row,
       h.failing_since,
       (SELECT count(*) FROM deliveries d WHERE d.endpoint_id = e.id) AS waiting,
       (SELECT count(*) FROM held_keys k WHERE k.endpoint_id = e.id) AS held_keys
FROM endpoints e
JOIN subscribers s ON s.id = e.subscriber_id
LEFT JOIN endpoint_health h ON h.endpoint_id = e.id
WHERE e.deleted_at IS NULL
  AND (e.state <> 'enabled' OR h.failures_in_a_row > 0 OR h.open_until > now() OR h.held_until > now()
       OR EXISTS (SELECT FROM held_keys k WHERE k.endpoint_id = e.id))
ORDER BY h.failing_since NULLS LAST, e.id
LIMIT $1
"""

WORN = """
-- worn data keys: those that seal and have sealed so many records
SELECT id, sealed FROM data_keys
WHERE sealed >= $1 AND id IN (SELECT max(id) FROM data_keys WHERE purpose = 'seal' GROUP BY tenant_id)
ORDER BY id
"""

WORN_AT = 2**31
"""Half of what a key may seal with random nonces."""

BY_MIGRATION = "SELECT name FROM subscribers WHERE permission_by_migration AND deleted_at IS NULL ORDER BY name"

WORKERS = """
-- workers: those that were heard of within the last so many seconds
SELECT name, started_at, seen_at FROM workers WHERE seen_at > now() - make_interval(secs => $1) ORDER BY name
"""


async def server(connection: Connection) -> dict[str, Any]:
    return dict(await connection.fetchrow(SERVER) or {})


async def administrators(connection: Connection) -> int:
    return int(await connection.fetchval(ADMINISTRATORS))


async def has_keys(connection: Connection) -> bool:
    """Whether any API key was ever made here."""
    return bool(await connection.fetchval(KEYS_EVER))


async def outbox(connection: Connection) -> dict[str, Any]:
    return dict(await connection.fetchrow(OUTBOX) or {})


async def ended_badly(connection: Connection, since: datetime) -> dict[str, Any]:
    return dict(await connection.fetchrow(ENDED, since) or {})


async def in_trouble(connection: Connection, limit: int) -> list[dict[str, Any]]:
    return [dict(row) for row in await connection.fetch(IN_TROUBLE, limit)]


async def worn_data_keys(connection: Connection) -> dict[int, int]:
    """By the id of a data key that ought to be replaced: how many records it has sealed."""
    return {row["id"]: row["sealed"] for row in await connection.fetch(WORN, WORN_AT)}


async def permitted_by_migration(connection: Connection) -> list[str]:
    """The names of subscribers of which nobody has said yet what they may have."""
    return [row["name"] for row in await connection.fetch(BY_MIGRATION)]


async def workers(connection: Connection, within: float) -> list[dict[str, Any]]:
    """``within`` is in seconds."""
    return [dict(row) for row in await connection.fetch(WORKERS, within)]
