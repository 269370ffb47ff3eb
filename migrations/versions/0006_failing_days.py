"""On which days an endpoint has failed, so that two failures five days apart don't disable it."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A worker of the version before leaves it as it is, so a row of its own making may disable later, never earlier.
    op.execute("ALTER TABLE endpoint_health ADD COLUMN failing_days integer NOT NULL DEFAULT 0")


def downgrade() -> None:
    op.execute("ALTER TABLE endpoint_health DROP COLUMN failing_days")
