"""Sending as a whole may be paused, and is in a copy of the database until somebody says so; the audit log by time."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # identity is which database this is: the cluster's identifier and the database's oid, as its first worker found
    # them. Where they are others than is written down, it was restored from a dump, or moved.
    op.execute(
        "ALTER TABLE configuration ADD COLUMN IF NOT EXISTS paused_at timestamptz, "
        "ADD COLUMN IF NOT EXISTS paused_reason text, ADD COLUMN IF NOT EXISTS identity text"
    )
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS audit_log_by_time")
        op.execute("CREATE INDEX CONCURRENTLY audit_log_by_time ON audit_log (tenant_id, at, sequence)")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS audit_log_by_time")
    op.execute("ALTER TABLE configuration DROP COLUMN identity, DROP COLUMN paused_reason, DROP COLUMN paused_at")
