"""A tenant's events in the outbox, and in its audit log what one actor did, and what was done to one thing."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEXES = {
    "outbox_of_tenant": "outbox (tenant_id, sequence)",
    "audit_log_of_target": "audit_log (tenant_id, target, (-sequence))",
    "audit_log_of_actor": "audit_log (tenant_id, actor, (-sequence))",
}


def upgrade() -> None:
    # Beside the gateway at work. One that was given up is there, and invalid: it is made anew.
    with op.get_context().autocommit_block():
        for name, of in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {of}")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
