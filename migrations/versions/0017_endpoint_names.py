"""A name for an endpoint, its own among its subscriber's: what a file of partners knows it by when its URL changes."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE endpoints ADD COLUMN name text")
    # No endpoint has one yet, so there is nothing to read for the index.
    op.execute(
        "CREATE UNIQUE INDEX endpoints_by_name ON endpoints (subscriber_id, name)"
        " WHERE name IS NOT NULL AND deleted_at IS NULL"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE endpoints DROP COLUMN name")
