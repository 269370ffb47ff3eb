"""What attempts came to, by endpoint and outcome."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# A span of 0 is what a worker has added, within a minute; others are the minute or hour, in seconds, that rows were
# merged into. What a row is about is an endpoint, or the tenant for all of its endpoints together.
TABLE = """
CREATE TABLE IF NOT EXISTS attempt_stats (
    span integer NOT NULL,
    begins timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    about_id uuid NOT NULL,
    outcome text NOT NULL,
    status smallint,
    detail text,
    id uuid NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    delivery_id uuid NOT NULL,
    durations integer[] NOT NULL,
    attempts integer NOT NULL,
    died integer NOT NULL,
    PRIMARY KEY (span, begins, id)
)
"""


def upgrade() -> None:
    op.execute(TABLE)
    op.execute(
        "CREATE INDEX IF NOT EXISTS attempt_stats_of_one ON attempt_stats (tenant_id, about_id, begins, outcome)"
    )


def downgrade() -> None:
    op.execute("DROP TABLE attempt_stats")
