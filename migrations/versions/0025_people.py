"""What the hospital's identity provider calls somebody who is signed in: the actor is an id of its own."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE sessions ADD COLUMN person text")


def downgrade() -> None:
    op.execute("ALTER TABLE sessions DROP COLUMN person")
