"""A data key that signs: the heads of a tenant's audit log."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _allow("'seal', 'index', 'audit'")


def downgrade() -> None:
    op.execute("DELETE FROM data_keys WHERE purpose = 'audit'")
    _allow("'seal', 'index'")


def _allow(purposes: str) -> None:
    op.execute(f"""
        ALTER TABLE data_keys
            DROP CONSTRAINT data_keys_purpose_check,
            ADD CONSTRAINT data_keys_purpose_check CHECK (purpose IN ({purposes}))
    """)
