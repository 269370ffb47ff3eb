"""How often an attempt's request was sent: twice where a kept connection turned out closed."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE attempts ADD COLUMN sends smallint NOT NULL DEFAULT 1")


def downgrade() -> None:
    op.execute("ALTER TABLE attempts DROP COLUMN sends")
