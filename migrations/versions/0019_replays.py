"""What was replayed names its replay, and what came before an endpoint is sent to it in the order of its keys."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The delivery that sends it again, and that speaks for it from then on.
    op.execute("ALTER TABLE finished_deliveries ADD COLUMN replayed_as uuid")
    # Null also in what was accepted before: a backfill of that is in no order.
    op.execute("ALTER TABLE events ADD COLUMN ordering_key bigint")
    # missing counts what a job left out since its body was gone; due_at is when it has its next turn.
    op.execute("ALTER TABLE jobs ADD COLUMN missing bigint NOT NULL DEFAULT 0, ADD COLUMN due_at timestamptz")
    op.execute("ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check")
    op.execute("ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('replay', 'backfill'))")


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE kind <> 'replay'")
    op.execute("ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check")
    op.execute("ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('replay'))")
    op.execute("ALTER TABLE jobs DROP COLUMN missing, DROP COLUMN due_at")
    op.execute("ALTER TABLE events DROP COLUMN ordering_key")
    op.execute("ALTER TABLE finished_deliveries DROP COLUMN replayed_as")
