"""What died or was cancelled, newest first, with all that lists filter it by."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

INDEX = "finished_deliveries_not_delivered_by_id"
# What was delivered isn't in it, so it costs that next to nothing.
OF = "(tenant_id, id, endpoint_id, type, state, state_reason) WHERE state <> 'delivered'"
PARTITIONS = f"""
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'finished_deliveries'::regclass
  AND NOT EXISTS (SELECT FROM pg_inherits a JOIN pg_index x ON x.indexrelid = a.inhrelid
                  WHERE a.inhparent = '{INDEX}'::regclass AND x.indrelid = c.oid)
"""


def upgrade() -> None:
    # Partition by partition, each while it is written to; what is broken off is gone on with by the next try.
    as_sql = op.get_context().as_sql
    op.execute(f"CREATE INDEX IF NOT EXISTS {INDEX} ON {'' if as_sql else 'ONLY'} finished_deliveries {OF}")
    if as_sql:
        return
    with op.get_context().autocommit_block():
        for (name,) in op.get_bind().exec_driver_sql(PARTITIONS).fetchall():
            index = f"{name}_not_delivered_by_id"
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
            op.execute(f"CREATE INDEX CONCURRENTLY {index} ON {name} {OF}")
            op.execute(f"ALTER INDEX {INDEX} ATTACH PARTITION {index}")


def downgrade() -> None:
    op.execute(f"DROP INDEX {INDEX}")
