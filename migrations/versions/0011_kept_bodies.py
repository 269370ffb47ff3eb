"""Bodies of open deliveries are kept apart when their day goes, and answers are found when they are to go."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

KEPT_BODIES = """
CREATE TABLE IF NOT EXISTS kept_bodies (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    type text NOT NULL,
    occurred_at timestamptz NOT NULL,
    accepted_at timestamptz NOT NULL,
    size integer NOT NULL,
    body bytea NOT NULL,
    addressees uuid[]
)
"""

PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'attempts'::regclass
  AND NOT EXISTS (SELECT FROM pg_inherits a JOIN pg_index x ON x.indexrelid = a.inhrelid
                  WHERE a.inhparent = 'attempts_answers'::regclass AND x.indrelid = c.oid)
"""


def upgrade() -> None:
    op.execute(KEPT_BODIES)
    op.execute("ALTER TABLE kept_bodies ALTER COLUMN body SET STORAGE EXTERNAL")
    # A keyed hash takes the place of response_sha256, which the version before goes on writing until it is gone.
    op.execute("ALTER TABLE attempts ADD COLUMN IF NOT EXISTS response_digest bytea")
    # Partition by partition, each while it is written to; those made meanwhile get theirs when they are attached. What
    # is broken off here is gone on with by the next try.
    as_sql = op.get_context().as_sql
    op.execute(
        f"CREATE INDEX IF NOT EXISTS attempts_answers ON {'' if as_sql else 'ONLY'} attempts (delivery_id) "
        "WHERE response_excerpt IS NOT NULL"
    )
    if as_sql:
        return
    with op.get_context().autocommit_block():
        for (name,) in op.get_bind().exec_driver_sql(PARTITIONS).fetchall():
            index = f"{name}_answers"
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
            op.execute(f"CREATE INDEX CONCURRENTLY {index} ON {name} (delivery_id) WHERE response_excerpt IS NOT NULL")
            op.execute(f"ALTER INDEX attempts_answers ATTACH PARTITION {index}")


def downgrade() -> None:
    op.execute("DROP INDEX attempts_answers")
    op.execute("ALTER TABLE attempts DROP COLUMN response_digest")
    op.execute("DROP TABLE kept_bodies")
