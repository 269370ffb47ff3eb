"""The tables that SQLAlchemy is asked with, in PostgreSQL's own words. The migrations make them, and say all else."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, MetaData, Table
from sqlalchemy.dialects import postgresql as types
from sqlalchemy.types import TypeEngine

metadata = MetaData()

_TYPES: dict[str, TypeEngine[Any]] = {
    "uuid": types.UUID(),
    "uuid[]": types.ARRAY(types.UUID),
    "text": types.TEXT(),
    "text[]": types.ARRAY(types.TEXT),
    "bytea": types.BYTEA(),
    "timestamptz": types.TIMESTAMP(timezone=True),
    "smallint": types.SMALLINT(),
    "integer": types.INTEGER(),
    "bigint": types.BIGINT(),
    "real": types.REAL(),
    "float8": types.DOUBLE_PRECISION(),
    "float8[]": types.ARRAY(types.DOUBLE_PRECISION),
    "jsonb": types.JSONB(),
    "boolean": types.BOOLEAN(),
}


def _table(name: str, *lines: str) -> Table:
    pairs = (column.split() for line in lines for column in line.split(","))
    return Table(name, metadata, *(Column(column, _TYPES[kind]) for column, kind in pairs))


subscribers = _table(
    "subscribers",
    "id uuid, tenant_id uuid, name text, description text, created_at timestamptz, updated_at timestamptz",
    "deleted_at timestamptz, event_types text[], content jsonb, external_id text",
    "permission_by_migration boolean",
)

api_keys = _table(
    "api_keys",
    "id uuid, tenant_id uuid, name text, prefix text, hash bytea, scopes text[], subscriber_id uuid",
    "event_types text[], networks text[], created_at timestamptz, expires_at timestamptz",
    "last_used_at timestamptz, revoked_at timestamptz",
)

sessions = _table(
    "sessions",
    "id uuid, tenant_id uuid, actor text, key_id uuid, scopes text[], subscriber_id uuid, source text",
    "code_hash bytea, code_expires_at timestamptz, hash bytea, created_at timestamptz, seen_at timestamptz",
    "expires_at timestamptz, ended_at timestamptz, capabilities text[], viewing uuid, person text, spent uuid[]",
)

event_types = _table(
    "event_types",
    "tenant_id uuid, name text, description text, schema jsonb, example jsonb, ordering_key text",
    "created_at timestamptz, updated_at timestamptz, thin text[], patient text[]",
)

endpoints = _table(
    "endpoints",
    "id uuid, tenant_id uuid, subscriber_id uuid, revision integer, url text, description text",
    "event_types text[], headers bytea, tls bytea, authorization bytea, signing text, state text",
    "state_reason text, state_changed_at timestamptz, ordering text, slots integer, rate float8",
    "deadline float8, schedule float8[], maintenance_from timestamptz, maintenance_until timestamptz",
    "created_at timestamptz, updated_at timestamptz, deleted_at timestamptz, content jsonb, filter bytea",
    "filter_digest bytea, url_query bytea, host_changed_at timestamptz, cut_off_at timestamptz",
    "state_changed_by text, name text",
)

endpoint_secrets = _table(
    "endpoint_secrets",
    "id uuid, tenant_id uuid, endpoint_id uuid, secret bytea, created_at timestamptz",
    "expires_at timestamptz",
)

endpoint_health = _table(
    "endpoint_health",
    "endpoint_id uuid, tenant_id uuid, failures_in_a_row integer, failing_since timestamptz",
    "failing_days integer, open_until timestamptz, openings integer, held_until timestamptz",
    "changed_at timestamptz, forward_at timestamptz, forwarded_at timestamptz, forwarded_due_at timestamptz",
    "forwarded_id uuid",
)

jobs = _table(
    "jobs",
    "id uuid, tenant_id uuid, kind text, filter jsonb, state text, cursor uuid, total bigint, done bigint",
    "created_at timestamptz, finished_at timestamptz, missing bigint, due_at timestamptz",
)

events = _table(
    "events",
    "id uuid, tenant_id uuid, type text, occurred_at timestamptz, accepted_at timestamptz, size integer",
    "body bytea, addressees uuid[], ordering_key bigint",
)

kept_bodies = _table(
    "kept_bodies",
    "id uuid, tenant_id uuid, type text, occurred_at timestamptz, accepted_at timestamptz, size integer",
    "body bytea, addressees uuid[]",
)

outbox = _table(
    "outbox",
    "sequence bigint, tenant_id uuid, event_id uuid, type text, ordering_key bigint, endpoint_id uuid",
    "delivery_id uuid, reason text, addressees uuid[]",
)

deliveries = _table(
    "deliveries",
    "id uuid, tenant_id uuid, endpoint_id uuid, event_id uuid, type text, sequence bigint",
    "ordering_key bigint, due_at timestamptz, attempt integer, lease_id uuid, skipped_event_id uuid",
    "reason text, created_at timestamptz, forwarded_from timestamptz, not_before timestamptz",
    "unfiltered boolean, lapsed integer",
)

finished_deliveries = _table(
    "finished_deliveries",
    "id uuid, tenant_id uuid, endpoint_id uuid, event_id uuid, type text, sequence bigint",
    "ordering_key bigint, attempt integer, state text, state_reason text, reason text",
    "created_at timestamptz, finished_at timestamptz, replayed_as uuid, lapsed integer",
)

attempts = _table(
    "attempts",
    "delivery_id uuid, id uuid, tenant_id uuid, attempt integer, started_at timestamptz, duration real",
    "phase text, outcome text, status smallint, detail text, tls_version text, response_length integer",
    "response_type text, response_sha256 bytea, response_excerpt bytea, sends smallint",
    "response_digest bytea, revision integer, body_digest bytea",
)

held_keys = _table(
    "held_keys",
    "endpoint_id uuid, ordering_key bigint, tenant_id uuid, delivery_id uuid, event_id uuid",
    "held_at timestamptz",
)

audit_log = _table(
    "audit_log",
    "tenant_id uuid, sequence bigint, at timestamptz, actor text, source text, action text, target text",
    "before jsonb, after jsonb, previous_hash bytea, hash bytea",
)
