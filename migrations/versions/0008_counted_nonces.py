"""How many records each data key has sealed: with random nonces a key may seal 2³² (NIST SP 800-38D, section 8.3)."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # How many were sealed before isn't known: every event that was ever accepted is more than enough for most.
    op.execute("ALTER TABLE data_keys ADD COLUMN sealed bigint NOT NULL DEFAULT 0")
    op.execute("UPDATE data_keys SET sealed = nextval('outbox_sequence_seq') WHERE purpose = 'seal'")


def downgrade() -> None:
    op.execute("ALTER TABLE data_keys DROP COLUMN sealed")
