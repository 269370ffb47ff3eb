"""What an endpoint asks for beside a signature: TLS of its own, an Authorization header, or another kind of key."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without a default or with a constant one, a column is added without rewriting the table.
    op.execute("""
        ALTER TABLE endpoints
            ADD COLUMN tls bytea,
            ADD COLUMN "authorization" bytea,
            ADD COLUMN signing text NOT NULL DEFAULT 'hmac' CHECK (signing IN ('hmac', 'ed25519'))
    """)


def downgrade() -> None:
    op.execute('ALTER TABLE endpoints DROP COLUMN tls, DROP COLUMN "authorization", DROP COLUMN signing')
