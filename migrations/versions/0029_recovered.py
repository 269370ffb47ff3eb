"""Whether PostgreSQL has recovered from a crash: it may have lost a fan-out, which need not wait for the disk."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Unlogged for what follows from it: a recovery empties it, and a stop in order doesn't.
    op.execute("CREATE UNLOGGED TABLE recovered (up_to bigint NOT NULL)")
    op.execute("INSERT INTO recovered VALUES (0)")


def downgrade() -> None:
    op.execute("DROP TABLE recovered")
