"""The pipeline: outbox, deliveries, what became of them, and the configuration around it."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CONFIGURATION = """
CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One row. Its version moves with every change to what workers keep in memory, in the same transaction.
CREATE TABLE configuration (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    version bigint NOT NULL DEFAULT 1
);
INSERT INTO configuration DEFAULT VALUES;

CREATE TABLE data_keys (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants,
    purpose text NOT NULL CHECK (purpose IN ('seal', 'index')),
    master_key text NOT NULL,
    wrapped bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX data_keys_of_tenant ON data_keys (tenant_id, purpose, id);

CREATE TABLE subscribers (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX subscribers_by_name ON subscribers (tenant_id, name) WHERE deleted_at IS NULL;

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants,
    name text NOT NULL,
    prefix text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    scopes text[] NOT NULL,
    subscriber_id uuid REFERENCES subscribers,
    event_types text[],
    networks text[],
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz
);

CREATE TABLE event_types (
    tenant_id uuid NOT NULL REFERENCES tenants,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    schema jsonb NOT NULL,
    example jsonb NOT NULL,
    ordering_key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE endpoints (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants,
    subscriber_id uuid NOT NULL REFERENCES subscribers,
    revision integer NOT NULL DEFAULT 1,
    url text NOT NULL,
    description text NOT NULL DEFAULT '',
    event_types text[] NOT NULL,
    headers bytea,
    state text NOT NULL DEFAULT 'enabled' CHECK (state IN ('enabled', 'paused', 'disabled')),
    state_reason text,
    state_changed_at timestamptz NOT NULL DEFAULT now(),
    ordering text NOT NULL DEFAULT 'relaxed' CHECK (ordering IN ('none', 'relaxed', 'strict', 'latest')),
    slots integer NOT NULL DEFAULT 10 CHECK (slots > 0),
    rate double precision CHECK (rate > 0),
    deadline double precision NOT NULL DEFAULT 15 CHECK (deadline > 0),
    schedule double precision[],
    maintenance_from timestamptz,
    maintenance_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    CHECK (maintenance_until > maintenance_from)
);
CREATE INDEX endpoints_of_subscriber ON endpoints (subscriber_id) WHERE deleted_at IS NULL;
CREATE INDEX endpoints_of_tenant ON endpoints (tenant_id, id) WHERE deleted_at IS NULL;

CREATE TABLE endpoint_secrets (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants,
    endpoint_id uuid NOT NULL REFERENCES endpoints,
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE INDEX endpoint_secrets_of_endpoint ON endpoint_secrets (endpoint_id);

-- Written by workers at nearly every failure, hence apart from the configuration.
CREATE TABLE endpoint_health (
    endpoint_id uuid PRIMARY KEY REFERENCES endpoints,
    tenant_id uuid NOT NULL,
    failures_in_a_row integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    open_until timestamptz,
    openings integer NOT NULL DEFAULT 0,
    held_until timestamptz,
    changed_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants,
    kind text NOT NULL CHECK (kind IN ('replay')),
    filter jsonb NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'cancelled')),
    cursor uuid,
    total bigint,
    done bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX jobs_open ON jobs (id) WHERE state IN ('pending', 'running');

CREATE TABLE workers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);
"""

ROAD = """
-- Ids are UUIDv7, so a range of ids is a range of time: partitions are cut by id.
CREATE TABLE events (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    type text NOT NULL,
    occurred_at timestamptz NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    size integer NOT NULL,
    body bytea NOT NULL
) PARTITION BY RANGE (id);
-- The body is encrypted: trying to compress it is wasted time.
ALTER TABLE events ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE events_default PARTITION OF events DEFAULT;

CREATE TABLE idempotency_keys (
    tenant_id uuid NOT NULL,
    key bytea NOT NULL,
    fingerprint bytea NOT NULL,
    event_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys USING brin (created_at);

-- A row with an endpoint_id is a replay or a test, it goes to that endpoint only, as the delivery_id promised.
CREATE TABLE outbox (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    ordering_key bigint,
    endpoint_id uuid,
    delivery_id uuid,
    reason text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- The order of fan-out, which only one at a time does. The outbox's own sequence is not it: an event whose commit was
-- slow is seen after others that have higher numbers.
CREATE SEQUENCE fan_out;

-- Open deliveries only. due_at is when to attempt it, or while lease_id is set when the lease ends,
-- and NULL while an earlier delivery of the same ordering key is open.
CREATE TABLE deliveries (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    sequence bigint NOT NULL,
    ordering_key bigint,
    due_at timestamptz,
    attempt integer NOT NULL DEFAULT 0,
    lease_id uuid,
    skipped_event_id uuid,
    reason text,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.2,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX deliveries_due ON deliveries (endpoint_id, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_in_order ON deliveries (endpoint_id, ordering_key, sequence) WHERE ordering_key IS NOT NULL;
CREATE INDEX deliveries_of_event ON deliveries (event_id);

CREATE TABLE finished_deliveries (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    sequence bigint NOT NULL,
    ordering_key bigint,
    attempt integer NOT NULL,
    state text NOT NULL,
    state_reason text,
    reason text,
    created_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (id);
CREATE INDEX finished_deliveries_of_endpoint ON finished_deliveries (tenant_id, endpoint_id, id);
CREATE INDEX finished_deliveries_of_event ON finished_deliveries (event_id);
CREATE INDEX finished_deliveries_not_delivered ON finished_deliveries (tenant_id, finished_at)
    WHERE state <> 'delivered';
CREATE TABLE finished_deliveries_default PARTITION OF finished_deliveries DEFAULT;

-- Cut by delivery, so that the attempts of a delivery stand together and leave with it.
CREATE TABLE attempts (
    delivery_id uuid NOT NULL,
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    attempt integer NOT NULL,
    started_at timestamptz NOT NULL,
    duration real NOT NULL,
    phase text NOT NULL,
    outcome text NOT NULL,
    status smallint,
    detail text,
    tls_version text,
    response_length integer,
    response_type text,
    response_sha256 bytea,
    response_excerpt bytea,
    PRIMARY KEY (delivery_id, id)
) PARTITION BY RANGE (delivery_id);
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

-- Keys of strict endpoints whose delivery died: nothing of the key moves until an operator decides.
CREATE TABLE held_keys (
    endpoint_id uuid NOT NULL,
    ordering_key bigint NOT NULL,
    tenant_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    event_id uuid NOT NULL,
    held_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, ordering_key)
);
"""

AUDIT = """
CREATE TABLE audit_log (
    tenant_id uuid NOT NULL REFERENCES tenants,
    sequence bigint NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    source text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    before jsonb,
    after jsonb,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (tenant_id, sequence)
);
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit log can only be appended to'; END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    for part in (CONFIGURATION, ROAD, AUDIT):
        for statement in _statements(part):
            op.execute(statement)


def _statements(text: str) -> list[str]:
    """asyncpg prepares what it runs, and only single statements can be prepared."""
    return [statement for statement in (piece.strip() for piece in _split(text)) if statement]


def _split(text: str) -> list[str]:
    pieces, quoted, start = [], False, 0
    for at, character in enumerate(text):
        if text.startswith("$$", at):
            quoted = not quoted
        elif character == ";" and not quoted:
            pieces.append(text[start:at])
            start = at + 1
    return [*pieces, text[start:]]


def downgrade() -> None:
    raise NotImplementedError("the first revision has nothing before it: drop the database instead")
