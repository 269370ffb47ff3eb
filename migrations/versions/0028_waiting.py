"""Deliveries that wait behind others, by endpoint: looked for without what has gone from those with an ordering key."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Beside the gateway at work. What is due isn't in it, so most deliveries never are.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_waiting")
        op.execute("CREATE INDEX CONCURRENTLY deliveries_waiting ON deliveries (endpoint_id) WHERE due_at IS NULL")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_waiting")
