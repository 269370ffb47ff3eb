"""What operators are told of by mail."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# `new` is to be told, `told` goes on, of what is `over` the end is to be told.
NOTICES = """
CREATE TABLE IF NOT EXISTS notices (
    trouble text NOT NULL,
    subject_id uuid NOT NULL,
    about_id uuid NOT NULL,
    label text NOT NULL,
    at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'told', 'over')),
    claimed_until timestamptz,
    PRIMARY KEY (trouble, subject_id)
)
"""


def upgrade() -> None:
    op.execute(NOTICES)
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS attempt_stats_died")
        op.execute("CREATE INDEX CONCURRENTLY attempt_stats_died ON attempt_stats (begins) WHERE died > 0")


def downgrade() -> None:
    op.execute("DROP INDEX attempt_stats_died")
    op.execute("DROP TABLE notices")
