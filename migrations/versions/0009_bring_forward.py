"""What waits for a retry is brought forward when its endpoint answers again."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without defaults, so that no row is written: the version before knows none of these, and needs to know none.
    op.execute("""
        ALTER TABLE endpoint_health
            ADD COLUMN forward_at timestamptz,
            ADD COLUMN forwarded_at timestamptz,
            ADD COLUMN forwarded_due_at timestamptz,
            ADD COLUMN forwarded_id uuid
    """)
    # A row an endpoint, so it is made in a moment.
    op.execute("CREATE INDEX endpoint_health_forward ON endpoint_health (forward_at) WHERE forward_at IS NOT NULL")
    op.execute("ALTER TABLE deliveries ADD COLUMN forwarded_from timestamptz, ADD COLUMN not_before timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE deliveries DROP COLUMN forwarded_from, DROP COLUMN not_before")
    op.execute("""
        ALTER TABLE endpoint_health
            DROP COLUMN forward_at, DROP COLUMN forwarded_at, DROP COLUMN forwarded_due_at, DROP COLUMN forwarded_id
    """)
