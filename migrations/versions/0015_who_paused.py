"""With what an endpoint came to its state, and endpoints of a tenant or a subscriber with those that were deleted."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INDEXES = {"endpoints_ever_of_tenant": "tenant_id", "endpoints_ever_of_subscriber": "subscriber_id"}


def upgrade() -> None:
    # What was used for it; NULL: the gateway did it, or the version before.
    op.execute("ALTER TABLE endpoints ADD COLUMN IF NOT EXISTS state_changed_by text")
    with op.get_context().autocommit_block():
        for name, column in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON endpoints ({column}, id)")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute("ALTER TABLE endpoints DROP COLUMN state_changed_by")
