"""What partners have used up of their quotas: a row for each kind, begun anew each day."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE partner_usage (
            subscriber_id uuid NOT NULL REFERENCES subscribers,
            kind text NOT NULL,
            day date NOT NULL,
            used bigint NOT NULL,
            PRIMARY KEY (subscriber_id, kind)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE partner_usage")
