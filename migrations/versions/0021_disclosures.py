"""Who got what: the revisions of endpoints, what was sent by which, and leases that ended without a word."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

REVISIONS = """
CREATE TABLE endpoint_revisions (
    endpoint_id uuid NOT NULL,
    revision integer NOT NULL,
    tenant_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    subscriber text NOT NULL,
    host text NOT NULL,
    permitted_types text[] NOT NULL,
    event_types text[] NOT NULL,
    permitted_content jsonb NOT NULL,
    content jsonb,
    filter_digest bytea,
    PRIMARY KEY (endpoint_id, revision)
)
"""

# What they are now, the deleted ones, too: attempts of before name no revision.
FIRST = """
INSERT INTO endpoint_revisions (endpoint_id, revision, tenant_id, subscriber, host, permitted_types, event_types,
                                permitted_content, content, filter_digest)
SELECT e.id, 1, e.tenant_id, s.name, split_part(split_part(e.url, '/', 3), '?', 1), s.event_types, e.event_types,
       s.content, e.content, e.filter_digest
FROM endpoints e JOIN subscribers s ON s.id = e.subscriber_id
"""

APPEND_ONLY = (
    """
    CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'revisions of endpoints can only be appended to'; END $$
    """,
    """
    CREATE TRIGGER endpoint_revisions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON endpoint_revisions
        EXECUTE FUNCTION refuse_rewriting()
    """,
)

# body_digest is empty where something may have left and there was no key for it, NULL where nothing left, and of
# attempts before.
ATTEMPTS = "ALTER TABLE attempts ADD COLUMN revision integer, ADD COLUMN body_digest bytea"
LAPSED = (
    "ALTER TABLE deliveries ADD COLUMN lapsed integer NOT NULL DEFAULT 0",
    "ALTER TABLE finished_deliveries ADD COLUMN lapsed integer NOT NULL DEFAULT 0",
)


def upgrade() -> None:
    for statement in (REVISIONS, FIRST, *APPEND_ONLY, ATTEMPTS, *LAPSED):
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE finished_deliveries DROP COLUMN lapsed")
    op.execute("ALTER TABLE deliveries DROP COLUMN lapsed")
    op.execute("ALTER TABLE attempts DROP COLUMN revision, DROP COLUMN body_digest")
    op.execute("DROP TABLE endpoint_revisions")
    op.execute("DROP FUNCTION refuse_rewriting")
