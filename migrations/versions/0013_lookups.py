"""Events are found by keyed hashes of what they came with, from now on."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Cut by day, like events, so that each new row goes into an index that is small; dropped with what is kept longest.
LOOKUPS = "CREATE TABLE lookups (key uuid NOT NULL, event_id uuid NOT NULL) PARTITION BY RANGE (event_id)"

# What was accepted before is not among them, nor what the version before accepts during the upgrade: whoever asks is
# told since when to look for something here.
SINCE = "ALTER TABLE configuration ADD COLUMN indexed_since timestamptz NOT NULL DEFAULT now()"


def upgrade() -> None:
    op.execute(LOOKUPS)
    op.execute("CREATE INDEX lookups_by_key ON lookups (key, event_id)")
    op.execute("CREATE TABLE lookups_default PARTITION OF lookups DEFAULT")
    op.execute(SINCE)


def downgrade() -> None:
    op.execute("ALTER TABLE configuration DROP COLUMN indexed_since")
    op.execute("DROP TABLE lookups")
