"""The tables, as SQLAlchemy sees them. The migrations make them; a test holds the two equal."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    Column,
    Date,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.types import TypeEngine

metadata = MetaData()

_Time = TIMESTAMP(timezone=True)


def _id(name: str = "id") -> Column[Any]:
    return Column(name, Uuid, primary_key=True)


def _required(name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]]) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _now(name: str) -> Column[Any]:
    return Column(name, _Time, nullable=False, server_default=func.now())


tenants = Table("tenants", metadata, _id(), _required("name", Text), _now("created_at"))

configuration = Table(
    "configuration",
    metadata,
    Column("only", Boolean, primary_key=True),
    _required("version", BigInteger),
    Column("worker_protocol", SmallInteger, nullable=False, server_default="0"),
)

data_keys = Table(
    "data_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    _required("tenant_id", Uuid),
    _required("purpose", Text),
    _required("master_key", Text),
    _required("wrapped", LargeBinary),
    _now("created_at"),
)

subscribers = Table(
    "subscribers",
    metadata,
    _id(),
    _required("tenant_id", Uuid),
    _required("name", Text),
    Column("description", Text, nullable=False, server_default=""),
    _now("created_at"),
    _now("updated_at"),
    Column("deleted_at", _Time),
    Column("event_types", ARRAY(Text), nullable=False, server_default="{}"),
    Column("content", JSONB, nullable=False, server_default='{"level": "thin", "subject": false}'),
    Column("external_id", Text),
    Column("permission_by_migration", Boolean, nullable=False, server_default="false"),
)

api_keys = Table(
    "api_keys",
    metadata,
    _id(),
    _required("tenant_id", Uuid),
    _required("name", Text),
    _required("prefix", Text),
    _required("hash", LargeBinary),
    _required("scopes", ARRAY(Text)),
    Column("subscriber_id", Uuid),
    Column("event_types", ARRAY(Text)),
    Column("networks", ARRAY(Text)),
    _now("created_at"),
    Column("expires_at", _Time),
    Column("last_used_at", _Time),
    Column("revoked_at", _Time),
)

event_types = Table(
    "event_types",
    metadata,
    _id("tenant_id"),
    Column("name", Text, primary_key=True),
    Column("description", Text, nullable=False, server_default=""),
    _required("schema", JSONB),
    _required("example", JSONB),
    Column("ordering_key", Text),
    _now("created_at"),
    _now("updated_at"),
    Column("thin", ARRAY(Text), nullable=False, server_default="{}"),
    Column("patient", Text),
)

endpoints = Table(
    "endpoints",
    metadata,
    _id(),
    _required("tenant_id", Uuid),
    _required("subscriber_id", Uuid),
    Column("revision", Integer, nullable=False, server_default="1"),
    _required("url", Text),
    Column("description", Text, nullable=False, server_default=""),
    _required("event_types", ARRAY(Text)),
    Column("headers", LargeBinary),
    Column("tls", LargeBinary),
    Column("authorization", LargeBinary),
    Column("signing", Text, nullable=False, server_default="hmac"),
    Column("state", Text, nullable=False, server_default="enabled"),
    Column("state_reason", Text),
    _now("state_changed_at"),
    Column("ordering", Text, nullable=False, server_default="relaxed"),
    Column("slots", Integer, nullable=False, server_default="10"),
    Column("rate", Double),
    Column("deadline", Double, nullable=False, server_default="15"),
    Column("schedule", ARRAY(Double)),
    Column("maintenance_from", _Time),
    Column("maintenance_until", _Time),
    _now("created_at"),
    _now("updated_at"),
    Column("deleted_at", _Time),
    Column("content", JSONB),
    Column("filter", LargeBinary),
    Column("filter_digest", LargeBinary),
    Column("url_query", LargeBinary),
    Column("host_changed_at", _Time),
    Column("cut_off_at", _Time),
)

endpoint_secrets = Table(
    "endpoint_secrets",
    metadata,
    _id(),
    _required("tenant_id", Uuid),
    _required("endpoint_id", Uuid),
    _required("secret", LargeBinary),
    _now("created_at"),
    Column("expires_at", _Time),
)

endpoint_health = Table(
    "endpoint_health",
    metadata,
    _id("endpoint_id"),
    _required("tenant_id", Uuid),
    Column("failures_in_a_row", Integer, nullable=False, server_default="0"),
    Column("failing_since", _Time),
    Column("failing_days", Integer, nullable=False, server_default="0"),
    Column("open_until", _Time),
    Column("openings", Integer, nullable=False, server_default="0"),
    Column("held_until", _Time),
    _now("changed_at"),
)

jobs = Table(
    "jobs",
    metadata,
    _id(),
    _required("tenant_id", Uuid),
    _required("kind", Text),
    _required("filter", JSONB),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("cursor", Uuid),
    Column("total", BigInteger),
    Column("done", BigInteger, nullable=False, server_default="0"),
    _now("created_at"),
    Column("finished_at", _Time),
)

partner_usage = Table(
    "partner_usage",
    metadata,
    _id("subscriber_id"),
    Column("kind", Text, primary_key=True),
    _required("day", Date),
    _required("used", BigInteger),
)

workers = Table(
    "workers",
    metadata,
    _id(),
    _required("name", Text),
    _now("started_at"),
    _now("seen_at"),
    Column("protocol", SmallInteger, nullable=False, server_default="0"),
)

events = Table(
    "events",
    metadata,
    _id(),
    _required("tenant_id", Uuid),
    _required("type", Text),
    _required("occurred_at", _Time),
    _now("accepted_at"),
    _required("size", Integer),
    _required("body", LargeBinary),
    Column("addressees", ARRAY(Uuid)),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _id("tenant_id"),
    Column("key", LargeBinary, primary_key=True),
    _required("fingerprint", LargeBinary),
    _required("event_id", Uuid),
    _now("created_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("sequence", BigInteger, primary_key=True),
    _required("tenant_id", Uuid),
    _required("event_id", Uuid),
    _required("type", Text),
    Column("ordering_key", BigInteger),
    Column("endpoint_id", Uuid),
    Column("delivery_id", Uuid),
    Column("reason", Text),
    Column("addressees", ARRAY(Uuid)),
)

deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    _required("tenant_id", Uuid),
    _required("endpoint_id", Uuid),
    _required("event_id", Uuid),
    _required("type", Text),
    _required("sequence", BigInteger),
    Column("ordering_key", BigInteger),
    Column("due_at", _Time),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("lease_id", Uuid),
    Column("skipped_event_id", Uuid),
    Column("reason", Text),
    _now("created_at"),
)

finished_deliveries = Table(
    "finished_deliveries",
    metadata,
    _id(),
    _required("tenant_id", Uuid),
    _required("endpoint_id", Uuid),
    _required("event_id", Uuid),
    _required("type", Text),
    _required("sequence", BigInteger),
    Column("ordering_key", BigInteger),
    _required("attempt", Integer),
    _required("state", Text),
    Column("state_reason", Text),
    Column("reason", Text),
    _required("created_at", _Time),
    _now("finished_at"),
)

attempts = Table(
    "attempts",
    metadata,
    _id("delivery_id"),
    _id("id"),
    _required("tenant_id", Uuid),
    _required("attempt", Integer),
    _required("started_at", _Time),
    _required("duration", REAL),
    _required("phase", Text),
    _required("outcome", Text),
    Column("status", SmallInteger),
    Column("detail", Text),
    Column("tls_version", Text),
    Column("response_length", Integer),
    Column("response_type", Text),
    Column("response_sha256", LargeBinary),
    Column("response_excerpt", LargeBinary),
    Column("sends", SmallInteger, nullable=False, server_default="1"),
)

held_keys = Table(
    "held_keys",
    metadata,
    _id("endpoint_id"),
    Column("ordering_key", BigInteger, primary_key=True),
    _required("tenant_id", Uuid),
    _required("delivery_id", Uuid),
    _required("event_id", Uuid),
    _now("held_at"),
)

audit_log = Table(
    "audit_log",
    metadata,
    _id("tenant_id"),
    Column("sequence", BigInteger, primary_key=True),
    _required("at", _Time),
    _required("actor", Text),
    _required("source", Text),
    _required("action", Text),
    _required("target", Text),
    Column("before", JSONB),
    Column("after", JSONB),
    _required("previous_hash", LargeBinary),
    _required("hash", LargeBinary),
)
