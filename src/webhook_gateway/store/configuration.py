"""What workers and the API keep in memory: endpoints with their secrets, and the tenants' own event types.

Every change moves one version in its own transaction, so "is my copy current?" is one number.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from webhook_gateway.crypto.vault import KeyMissing, Tampered, Vault
from webhook_gateway.rules.credentials import TlsSettings, authorization_from
from webhook_gateway.rules.filters import Filter, encode, parse
from webhook_gateway.rules.matching import effective
from webhook_gateway.rules.model import DEFAULT_SCHEDULE, Endpoint, EndpointState, Health, Ordering
from webhook_gateway.rules.targets import masked
from webhook_gateway.rules.views import Tree, tree_of, view_of

from . import revisions, workers
from .clock import TIME
from .database import Connection

VERSION = "SELECT version FROM configuration"
VERSION_AND_TIME = f"SELECT version, ({TIME}) FROM configuration"

STATE = "SELECT version, paused_at IS NOT NULL FROM configuration"

CHANGED = """
-- changed: tells every process that its copy is old, in the transaction of the change
UPDATE configuration SET version = version + 1
"""

ENDPOINTS = f"""
-- endpoints: all that are not deleted, or one of them, with what their subscribers may have, and the revision of that
SELECT e.*, s.event_types AS permitted_types, s.content AS permitted_content,
       CASE WHEN {revisions.IS_LAST} THEN last.revision END AS recorded
FROM {revisions.LAST} WHERE e.deleted_at IS NULL AND e.id = coalesce($1, e.id) ORDER BY e.id
"""

SUBSCRIBERS = """
-- subscribers: whom events may be addressed to, and what each may have
SELECT id, tenant_id, external_id, event_types FROM subscribers WHERE deleted_at IS NULL
"""

SECRETS = """
-- secrets: the live ones, newest first: each of them signs
SELECT id, tenant_id, endpoint_id, secret, expires_at FROM endpoint_secrets
WHERE expires_at IS NULL OR expires_at > now() ORDER BY endpoint_id, created_at DESC, id DESC
"""

HEALTH = """
-- health: what other workers have learnt since; a little more, as they commit in another order than they write
SELECT endpoint_id, failures_in_a_row, failing_since, failing_days, open_until, openings, held_until, changed_at
FROM endpoint_health WHERE changed_at > $1::timestamptz - interval '30 seconds' ORDER BY changed_at
"""

SAVE_HEALTH = """
-- save health: only what a restart must not forget. Who closes the breaker has what waits brought forward, unless that
-- was begun within five minutes: an endpoint that opens and closes all the time is not to get all of it every time.
INSERT INTO endpoint_health AS h (endpoint_id, tenant_id, failures_in_a_row, failing_since, open_until, openings,
                                  held_until, failing_days, changed_at)
SELECT *, clock_timestamp()
FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::timestamptz[], $5::timestamptz[], $6::int[], $7::timestamptz[],
            $8::int[])
ON CONFLICT (endpoint_id) DO UPDATE SET
    failures_in_a_row = excluded.failures_in_a_row, failing_since = excluded.failing_since,
    open_until = excluded.open_until, openings = excluded.openings, held_until = excluded.held_until,
    failing_days = excluded.failing_days, changed_at = excluded.changed_at,
    forward_at = CASE WHEN excluded.open_until IS NOT NULL THEN NULL
                      WHEN h.open_until IS NOT NULL
                      THEN least(greatest(now(), h.forwarded_at + interval '5 minutes'), now() + interval '5 minutes')
                      ELSE h.forward_at END,
    forwarded_due_at = CASE WHEN h.open_until IS NULL THEN h.forwarded_due_at END
"""

DISABLE = """
-- disable: at most once, whoever sees the reason first
UPDATE endpoints SET state = 'disabled', state_reason = $2, state_changed_by = NULL, state_changed_at = now(),
                     updated_at = now()
WHERE id = $1 AND state = 'enabled' AND deleted_at IS NULL RETURNING id
"""

THIN = "SELECT tenant_id, name, thin FROM event_types"
EVENT_TYPES = "SELECT tenant_id, name, description, schema, example, ordering_key, patient FROM event_types"

OPEN_QUERIES = """
-- open queries: URLs with a query that is not sealed, as the version before writes them
SELECT id, tenant_id, url FROM endpoints WHERE url LIKE '%?%' ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
"""

SEAL_QUERY = "UPDATE endpoints SET url = $2, url_query = $3 WHERE id = $1"

SEALED = {
    "headers": "endpoints",
    "tls": "endpoints.tls",
    "authorization": "endpoints.authorization",
    "url_query": "endpoints.url_query",
    "filter": "endpoints.filter",
}
"""An endpoint's sealed columns, and what each is bound to beside its row: none opens in another's place."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The endpoints as of one version. ``stale_at`` is when a rotated secret ends; ``unsendable`` lack a key.

    ``thin`` is what a thin body has of the tenants' own types, by tenant and name. Nothing is sent while it
    ``is_paused``.
    """

    version: int
    endpoints: dict[UUID, Endpoint]
    unsendable: frozenset[UUID]
    stale_at: datetime | None
    thin: Mapping[tuple[UUID, str], Tree] = field(default_factory=dict)
    is_paused: bool = False


async def version(connection: Connection) -> int:
    return int(await connection.fetchval(VERSION))


async def version_and_time(connection: Connection) -> Any:
    """The database's time is in Unix seconds."""
    return await connection.fetchrow(VERSION_AND_TIME)


async def changed(connection: Connection) -> None:
    """In the caller's transaction: others wait for its end before they record what they changed."""
    await connection.execute(CHANGED)
    await connection.execute(revisions.RECORD)


async def snapshot(connection: Connection, vault: Vault) -> Snapshot:
    """Every endpoint with its open secrets. One whose key is missing is named as unsendable: its deliveries wait.

    Nothing is sent by what isn't recorded: of each it names the revision.
    """
    # The version first: a change that commits in between makes the next read find it newer, never older.
    current, is_paused = await connection.fetchrow(STATE) or (0, True)
    secrets, stale_at, unsendable = _open_secrets(await connection.fetch(SECRETS), vault)
    endpoints, rows = {}, await connection.fetch(ENDPOINTS, None)
    if any(row["recorded"] is None for row in rows):  # changed by the version before, or by hand
        async with connection.transaction():
            await changed(connection)
        return await snapshot(connection, vault)
    for row in rows:
        try:
            sealed = {column: open_column(vault, row, column) for column in SEALED}
        except (KeyMissing, Tampered):
            sealed = dict.fromkeys(SEALED)
            unsendable.add(row["id"])
        endpoints[row["id"]] = endpoint_from(row, tuple(secrets[row["id"]]), sealed)
    thin = {(row["tenant_id"], row["name"]): tree_of(row["thin"]) for row in await connection.fetch(THIN)}
    return Snapshot(current, endpoints, frozenset(unsendable), stale_at, thin, is_paused)


async def endpoint(connection: Connection, vault: Vault, endpoint_id: UUID) -> Endpoint | None:
    """One endpoint with its filter, and nothing else of what is sealed; None where it is gone.

    Raises:
        KeyMissing, Tampered: see `Vault.open`.
    """
    row = await connection.fetchrow(ENDPOINTS, endpoint_id)
    if row is None:
        return None
    return endpoint_from(row, sealed={**dict.fromkeys(SEALED), "filter": open_column(vault, row, "filter")})


def seal_column(vault: Vault, tenant_id: UUID, endpoint_id: UUID, column: str, value: Mapping[str, Any]) -> bytes:
    """JSON for one of the `SEALED` columns of an endpoint.

    Raises:
        KeyMissing: see `Vault.seal`.
    """
    return vault.seal(tenant_id, SEALED[column], endpoint_id, encode(value))


def url_columns(vault: Vault, tenant_id: UUID, endpoint_id: UUID, url: str) -> tuple[str, bytes | None]:
    """A URL as the table has it: its query is a secret, sealed together with what it belongs to."""
    shown, mark, query = url.partition("?")
    sealed = {"url": shown, "query": mark + query}
    return shown, seal_column(vault, tenant_id, endpoint_id, "url_query", sealed) if mark else None


def whole_url(row: Any, opened: Mapping[str, Any] | None) -> str:
    """With the query, unless that belongs to another URL: the version before has changed it since."""
    return str(row["url"] + opened["query"] if opened and opened["url"] == row["url"] else row["url"])


def masked_url(row: Any) -> str:
    return masked(row["url"] if row["url_query"] is None else row["url"] + "?")


async def seal_queries(connection: Connection, vault: Vault) -> None:
    """Seals what the version before has left open of URLs, once no such worker is alive, which would send without it.

    Raises:
        KeyMissing: see `Vault.seal`.
    """
    rows = await connection.fetch(OPEN_QUERIES)
    if rows and not await workers.require_current(connection):
        return
    for row in rows:
        await connection.execute(SEAL_QUERY, row["id"], *url_columns(vault, row["tenant_id"], row["id"], row["url"]))
    if rows:
        await changed(connection)


def open_column(vault: Vault, row: Any, column: str) -> dict[str, Any] | None:
    """What `seal_column` sealed; None where the column is empty.

    Raises:
        KeyMissing, Tampered: see `Vault.open`.
    """
    if row[column] is None:
        return None
    sealed = vault.open(row["tenant_id"], SEALED[column], row["id"], row[column])
    opened: dict[str, Any] = json.loads(sealed, parse_float=Decimal)
    return opened


async def event_types(connection: Connection) -> list[tuple[UUID, str, str, Any, Any, str | None, list[str]]]:
    """The tenants' own: tenant, name, description, schema, example, ordering key, pointers to patients."""
    return [
        (row[0], row[1], row[2], json.loads(row[3]), json.loads(row[4]), row[5], row[6])
        for row in await connection.fetch(EVENT_TYPES)
    ]


async def health_since(connection: Connection, since: datetime) -> tuple[dict[UUID, Health], datetime]:
    """What was learnt after a moment, and the moment up to which that is known."""
    rows = await connection.fetch(HEALTH, since)
    learnt = {row["endpoint_id"]: health_from(row) for row in rows}
    return learnt, rows[-1]["changed_at"] if rows else since


def health_from(row: Any) -> Health:
    """What was written down. Counters of a worker's own are not."""
    return Health(
        failures_in_a_row=row["failures_in_a_row"],
        failing_since=seconds_of(row["failing_since"]),
        failing_days=row["failing_days"],
        open_until=seconds_of(row["open_until"]),
        openings=row["openings"],
        retry_after_until=seconds_of(row["held_until"]),
    )


async def save_health(connection: Connection, learnt: Sequence[tuple[Endpoint, Health]]) -> None:
    learnt = sorted(learnt, key=lambda pair: pair[0].id)  # one order for all workers: no deadlock
    await connection.execute(
        SAVE_HEALTH,
        [endpoint.id for endpoint, _ in learnt],
        [endpoint.tenant_id for endpoint, _ in learnt],
        [health.failures_in_a_row for _, health in learnt],
        [moment_of(health.failing_since) for _, health in learnt],
        [moment_of(health.open_until) for _, health in learnt],
        [health.openings for _, health in learnt],
        [moment_of(health.retry_after_until) for _, health in learnt],
        [health.failing_days for _, health in learnt],
    )


async def disable(connection: Connection, endpoint_id: UUID, reason: str) -> bool:
    """Whether it was this call that disabled the endpoint."""
    if await connection.fetchval(DISABLE, endpoint_id, reason) is None:
        return False
    await changed(connection)
    return True


def endpoint_from(
    row: Any, secrets: tuple[str, ...] = (), sealed: Mapping[str, dict[str, Any] | None] | None = None
) -> Endpoint:
    """A row of the table, with what of it was opened: nothing, for who doesn't send."""
    sealed = sealed or dict.fromkeys(SEALED)
    tls, authorization = sealed["tls"], sealed["authorization"]
    window = (row["maintenance_from"], row["maintenance_until"])
    return Endpoint(
        id=row["id"],
        tenant_id=row["tenant_id"],
        subscriber_id=row["subscriber_id"],
        revision=row["revision"],
        url=whole_url(row, sealed["url_query"]),
        event_types=effective(row["permitted_types"], row["event_types"]),
        state=EndpointState(row["state"]),
        ordering=Ordering(row["ordering"]),
        slots=row["slots"],
        rate=row["rate"],
        deadline=row["deadline"],
        schedule=DEFAULT_SCHEDULE if row["schedule"] is None else tuple(row["schedule"]),
        host_changed_at=seconds_of(row["host_changed_at"]),
        maintenance=(window[0].timestamp(), window[1].timestamp()) if all(window) else None,
        secrets=secrets,
        headers=sealed["headers"] or {},
        tls=None if tls is None else TlsSettings(**tls),
        authorization=None if authorization is None else authorization_from(authorization),
        is_filtered=row["filter"] is not None,
        filter=_filter(sealed["filter"]),
        view=view_of(*(_content(row[column]) for column in ("permitted_content", "content"))),
        recorded=row.get("recorded"),
    )


def _filter(opened: Mapping[str, Any] | None) -> Filter | None:
    found = None if opened is None else parse(encode(opened))
    return found if isinstance(found, Filter) else None


def _content(stored: Any) -> Any:
    """jsonb, which asyncpg gives as text and SQLAlchemy as what it holds."""
    return json.loads(stored) if isinstance(stored, str) else stored


def _open_secrets(rows: Sequence[Any], vault: Vault) -> tuple[defaultdict[UUID, list[str]], datetime | None, set[UUID]]:
    secrets: defaultdict[UUID, list[str]] = defaultdict(list)
    unsendable: set[UUID] = set()
    stale_at: datetime | None = None
    for row in rows:
        try:
            opened = vault.open(row["tenant_id"], "endpoint_secrets", row["id"], row["secret"])
        except (KeyMissing, Tampered):
            unsendable.add(row["endpoint_id"])
            continue
        secrets[row["endpoint_id"]].append(opened.decode())
        if row["expires_at"] is not None:
            stale_at = min(stale_at or row["expires_at"], row["expires_at"])
    return secrets, stale_at, unsendable


def seconds_of(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def moment_of(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
