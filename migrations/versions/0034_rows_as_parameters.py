"""Rows that a statement takes are one parameter: an array of a composite type."""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

# Processes know their attributes by heart: what needs others is another type.
TYPES = {
    "appended": """id uuid, tenant_id uuid, type text, occurred_at timestamptz, ordering_key bigint, size int,
                   body bytea, key bytea, fingerprint bytea, addressees text, lookups text""",
    "new_delivery": """id uuid, tenant_id uuid, endpoint_id uuid, event_id uuid, type text, sequence bigint,
                       ordering_key bigint, due bool, lease float8, reason text, unfiltered bool""",
    "made_attempt": "delivery_id uuid, id uuid, began float8, duration real, body_digest bytea",
    "alike_attempts": """tenant_id uuid, attempt int, revision int, phase text, outcome text, status smallint,
                         detail text, tls_version text, sends smallint, response_length int, response_type text,
                         response_digest bytea, response_excerpt bytea, made made_attempt[]""",
    "ended": """delivery_id uuid, leased_by uuid, skipped uuid, state text, state_reason text, lease float8,
                goes_on bool""",
}


def upgrade() -> None:
    for name, attributes in TYPES.items():
        op.execute(f"CREATE TYPE {name} AS ({attributes})")


def downgrade() -> None:
    for name in reversed(TYPES):
        op.execute(f"DROP TYPE {name}")
