"""Links to a partner's portal, and who looks at it with a partner's eyes."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A link is a session that has capabilities, and no scopes: to the version before it may do nothing.
    op.execute("ALTER TABLE sessions ADD COLUMN capabilities text[], ADD COLUMN viewing uuid")


def downgrade() -> None:
    op.execute("DELETE FROM sessions WHERE capabilities IS NOT NULL")
    op.execute("ALTER TABLE sessions DROP COLUMN viewing, DROP COLUMN capabilities")
