"""Where API processes listen, on whichever machine: no worker sends there."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE listeners (
            address inet NOT NULL,
            port integer NOT NULL,
            seen_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (address, port)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE listeners")
