"""What follows of an ordering key goes on by the statement that ends the one before it."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# A function, since each of its statements has a snapshot of its own: it sees what a fan-out has committed for which the
# statement that calls it had to wait. The sequence is that of the delivery before: the probe starts there, so that a
# key with many finished deliveries stays cheap. The lock walks on past one that is just being cancelled.
RELEASE = """
CREATE FUNCTION release_next(endpoint_ids uuid[], ordering_keys bigint[], after bigint[], skipped uuid[],
                             leases float8[], new_lease uuid, at timestamptz)
RETURNS SETOF deliveries LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    UPDATE deliveries d
    SET due_at = $7 + make_interval(secs => coalesce(next.lease, 0)),
        skipped_event_id = next.skipped,
        lease_id = CASE WHEN next.lease IS NOT NULL THEN $6 END,
        attempt = d.attempt + (next.lease IS NOT NULL)::int
    FROM (
        SELECT n.ctid, k.skipped, k.lease
        FROM unnest($1, $2, $3, $4, $5) AS k(endpoint_id, ordering_key, after, skipped, lease)
        CROSS JOIN LATERAL (
            SELECT o.ctid, o.due_at FROM deliveries o
            WHERE o.endpoint_id = k.endpoint_id AND o.ordering_key = k.ordering_key AND o.sequence > k.after
            ORDER BY o.sequence LIMIT 1 FOR NO KEY UPDATE
        ) AS n
        WHERE n.due_at IS NULL
    ) AS next
    WHERE d.ctid = next.ctid
    RETURNING d.*;
END $$
"""


def upgrade() -> None:
    op.execute(RELEASE)


def downgrade() -> None:
    op.execute("DROP FUNCTION release_next")
