"""A few events of which notifications told become deliveries by one statement."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# A function, since what is in there has a snapshot from after the lock: all that fan-outs before have committed. It
# takes nothing, and says so by an empty row, where the configuration is newer than what the caller matched by, or where
# older events wait, which go first. Without the lock there is no row: another process is at it. What the DELETE returns
# is ours; others' tries find nothing. A key may occur once, so that only an open delivery can stand before a new one:
# its lock makes the settle of that one wait for us (docs/decisions/0003-order-by-locking-rows.md).
FAN_OUT = """
CREATE FUNCTION fan_out_told(known_version bigint, after bigint, told bigint[], told_of bigint[], ids uuid[],
                             endpoint_ids uuid[], in_order boolean[], leases float8[], new_lease uuid)
RETURNS SETOF deliveries LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('webhook_gateway.fan_out', 0)) THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH state AS MATERIALIZED (
        SELECT (SELECT version FROM configuration) <= $1 AND NOT EXISTS (
            SELECT FROM outbox WHERE sequence > $2 AND sequence < $3[cardinality($3)] AND sequence <> ALL ($3)
        ) AS is_as_told
    ), taken AS (
        DELETE FROM outbox o WHERE (SELECT is_as_told FROM state) AND o.sequence = ANY ($3)
        RETURNING o.*
    ), made AS (
        INSERT INTO deliveries AS d (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at,
                                     attempt, lease_id)
        SELECT n.id, n.tenant_id, n.endpoint_id, n.event_id, n.type, nextval('fan_out'), n.ordering_key,
               CASE WHEN tail.is_busy IS NULL THEN now() + make_interval(secs => coalesce(n.lease, 0)) END,
               (tail.is_busy IS NULL AND n.lease IS NOT NULL)::int,
               CASE WHEN tail.is_busy IS NULL AND n.lease IS NOT NULL THEN $9 END
        FROM (
            SELECT u.id, t.tenant_id, u.endpoint_id, t.event_id, t.type, u.lease,
                   CASE WHEN u.in_order THEN t.ordering_key END AS ordering_key
            FROM taken t CROSS JOIN LATERAL (
                SELECT * FROM unnest($4, $5, $6, $7, $8) AS w(of, id, endpoint_id, in_order, lease)
                WHERE w.of = t.sequence OFFSET 0
            ) AS u
            ORDER BY u.endpoint_id, t.ordering_key
        ) AS n
        LEFT JOIN LATERAL (
            SELECT true AS is_busy FROM deliveries b
            WHERE b.endpoint_id = n.endpoint_id AND b.ordering_key = n.ordering_key
            ORDER BY b.sequence DESC LIMIT 1 FOR KEY SHARE
        ) AS tail ON true
        RETURNING d.*
    )
    SELECT * FROM made UNION ALL SELECT (NULL::deliveries).* FROM state WHERE is_as_told IS NOT TRUE;
END $$
"""


def upgrade() -> None:
    op.execute(FAN_OUT)


def downgrade() -> None:
    op.execute("DROP FUNCTION fan_out_told")
