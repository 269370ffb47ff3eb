"""Who is signed in to the console, and the one-time codes by which somebody may."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A code is a session that has not begun. Both are known by their hashes only. With a key, the session has the
    # key's rights as they are; else its own scopes.
    op.execute(
        """
        CREATE TABLE sessions (
            id uuid PRIMARY KEY,
            tenant_id uuid NOT NULL REFERENCES tenants,
            actor text NOT NULL,
            key_id uuid REFERENCES api_keys,
            scopes text[],
            subscriber_id uuid REFERENCES subscribers,
            source text,
            code_hash bytea UNIQUE,
            code_expires_at timestamptz,
            hash bytea UNIQUE,
            created_at timestamptz NOT NULL DEFAULT now(),
            seen_at timestamptz,
            expires_at timestamptz NOT NULL,
            ended_at timestamptz
        )
        """
    )
    op.execute("CREATE INDEX sessions_by_tenant ON sessions (tenant_id, id)")


def downgrade() -> None:
    op.execute("DROP TABLE sessions")
