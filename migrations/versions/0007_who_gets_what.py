"""Who gets what: what each subscriber may have, addressed events, and what an endpoint keeps back or hides."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Closed: what the version before inserts during an upgrade gets nothing until somebody says what it may have.
# content is {"level": "full" | "fields" | "thin", "pointers": [...] with fields, "subject": true | false}.
SUBSCRIBERS = """
ALTER TABLE subscribers
    ADD COLUMN event_types text[] NOT NULL DEFAULT '{}',
    ADD COLUMN content jsonb NOT NULL DEFAULT '{"level": "thin", "subject": false}',
    ADD COLUMN external_id text CHECK (left(external_id, 4) <> 'sub_'),
    ADD COLUMN permission_by_migration boolean NOT NULL DEFAULT false
"""

EXTERNAL_IDS = """
CREATE UNIQUE INDEX subscribers_by_external_id ON subscribers (tenant_id, external_id) WHERE deleted_at IS NULL
"""

# Those that are there keep what their endpoints have: nothing changes for anybody by the upgrade itself.
GIVE = """
UPDATE subscribers s
SET permission_by_migration = true, content = '{"level": "full", "subject": true}',
    event_types = ARRAY(SELECT DISTINCT pattern FROM endpoints e CROSS JOIN unnest(e.event_types) AS pattern
                        WHERE e.subscriber_id = s.id AND e.deleted_at IS NULL ORDER BY pattern)
WHERE deleted_at IS NULL
"""

# An endpoint inherits what its subscriber may have where its event_types are empty (an old worker sends
# nothing then) and its content is NULL; otherwise it gets what is in both.
# url_query is the sealed query of a URL, together with the rest of that URL, which alone stands in url then. Where url
# still has a query, or is not the URL that url_query names, the version before wrote it and it counts as it is. Such
# rows move once no worker of that version can start any more, see worker_protocol.
# cut_off_at is set while open deliveries of types that the endpoint may not have any more wait to be cancelled.
ENDPOINTS = """
ALTER TABLE endpoints
    ADD COLUMN content jsonb,
    ADD COLUMN filter bytea,
    ADD COLUMN filter_digest bytea,
    ADD COLUMN url_query bytea,
    ADD COLUMN host_changed_at timestamptz,
    ADD COLUMN cut_off_at timestamptz
"""

CUT_OFF = "CREATE INDEX endpoints_cut_off ON endpoints (id) WHERE cut_off_at IS NOT NULL"

# Of a tenant's own type: JSON Pointers into data, those that a thin body has, and those to ids of patients.
EVENT_TYPES = """
ALTER TABLE event_types ADD COLUMN thin text[] NOT NULL DEFAULT '{}', ADD COLUMN patient text[] NOT NULL DEFAULT '{}'
"""

# The subscribers that an addressed event is for; NULL: whoever wants it.
EVENTS = "ALTER TABLE events ADD COLUMN addressees uuid[]"
OUTBOX = "ALTER TABLE outbox ADD COLUMN addressees uuid[]"

# Set where the endpoint's filter couldn't be asked at fan-out: it is asked before the first attempt.
DELIVERIES = "ALTER TABLE deliveries ADD COLUMN unfiltered boolean"

# What a worker understands of the rows: 0 is the version before. Once anything is stored that such a worker would take
# for something else (it would send an addressed event to everybody), worker_protocol says so, and from then on none can
# join: without its first heartbeat a worker sends nothing.
PROTOCOL = (
    "ALTER TABLE workers ADD COLUMN protocol smallint NOT NULL DEFAULT 0",
    "ALTER TABLE configuration ADD COLUMN worker_protocol smallint NOT NULL DEFAULT 0",
    """
    CREATE FUNCTION refuse_old_worker() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- The lock lets whoever raises it see this worker, or this worker see that it was raised.
        IF NEW.protocol < (SELECT worker_protocol FROM configuration FOR SHARE) THEN
            RAISE EXCEPTION 'this worker is too old for what is stored: start one of the newer version';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER workers_not_too_old BEFORE INSERT ON workers FOR EACH ROW WHEN (NEW.protocol < 1)
        EXECUTE FUNCTION refuse_old_worker()
    """,
)


def upgrade() -> None:
    for statement in (
        SUBSCRIBERS,
        EXTERNAL_IDS,
        GIVE,
        ENDPOINTS,
        CUT_OFF,
        EVENT_TYPES,
        EVENTS,
        OUTBOX,
        DELIVERIES,
        *PROTOCOL,
    ):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TRIGGER workers_not_too_old ON workers")
    op.execute("DROP FUNCTION refuse_old_worker")
    op.execute("ALTER TABLE configuration DROP COLUMN worker_protocol")
    op.execute("ALTER TABLE workers DROP COLUMN protocol")
    op.execute("ALTER TABLE deliveries DROP COLUMN unfiltered")
    op.execute("ALTER TABLE outbox DROP COLUMN addressees")
    op.execute("ALTER TABLE events DROP COLUMN addressees")
    op.execute("ALTER TABLE event_types DROP COLUMN thin, DROP COLUMN patient")
    op.execute("""
        ALTER TABLE endpoints DROP COLUMN content, DROP COLUMN filter, DROP COLUMN filter_digest,
            DROP COLUMN url_query, DROP COLUMN host_changed_at, DROP COLUMN cut_off_at
    """)
    op.execute("""
        ALTER TABLE subscribers DROP COLUMN event_types, DROP COLUMN content, DROP COLUMN external_id,
            DROP COLUMN permission_by_migration
    """)
