"""A lone event is stored by one part of its function, whether its deliveries are made at once or not."""

from alembic import context, op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

# As it was (0030), in fewer statements and parts: each that begins costs as much as a row. Where the locks can't be had
# no version is `known`, and nothing is made. What makes none is put into the outbox by a statement of its own.
APPEND_ONE = """
CREATE OR REPLACE FUNCTION append_one(
    event_id uuid, tenant uuid, event_type text, occurred timestamptz, event_key bigint, event_size int, sealed bytea,
    idempotency bytea, event_fingerprint bytea, looked_up uuid[],
    may boolean, id_begins text, id_ends bigint, new_lease uuid, channel text, word text
) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    heard_on text;
    known bigint;
    above bigint;
    endpoint_ids uuid[];
    chances bigint[];
    have_order boolean[];
    leases float8[];
    done record;
BEGIN
    IF $8 IS NOT NULL THEN
        INSERT INTO idempotency_keys (tenant_id, key, fingerprint, event_id) VALUES ($2, $8, $9, $1)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    SELECT o.heard_on, o.version, w.outbox_above, o.endpoint_ids, o.chances, o.in_order, o.leases
    INTO heard_on, known, above, endpoint_ids, chances, have_order, leases
    FROM offers o JOIN workers w ON w.id = o.worker_id
    WHERE $11 AND o.tenant_id = $2 AND o.type = $3 AND w.outbox_above >= 0 AND w.seen_at > now() - interval '5 seconds';
    IF FOUND AND (pg_try_advisory_xact_lock(hashtextextended(heard_on, 0))
                  OR NOT pg_try_advisory_xact_lock(hashtextextended('webhook_gateway.append', 0))) THEN
        known := NULL;
    END IF;
    WITH stored AS (
        INSERT INTO events (id, tenant_id, type, occurred_at, size, body, ordering_key)
        VALUES ($1, $2, $3, coalesce($4, now()), $6, $7, $5)
    ), found AS (
        INSERT INTO lookups (key, event_id) SELECT unnest($10), $1
    ), wanted AS MATERIALIZED (
        SELECT w.*, earlier.id AS behind, earlier.is_held
        FROM unnest(endpoint_ids, chances, have_order, leases) AS w(endpoint_id, chance, in_order, lease)
        LEFT JOIN LATERAL (
            SELECT last.id, EXISTS (SELECT FROM deliveries WHERE id = last.id FOR KEY SHARE SKIP LOCKED) AS is_held
            FROM (SELECT id FROM deliveries WHERE endpoint_id = w.endpoint_id AND ordering_key = $5
                  ORDER BY sequence DESC LIMIT 1) AS last
        ) AS earlier ON w.in_order
        WHERE (SELECT version FROM configuration) <= known
              AND NOT EXISTS (SELECT FROM outbox WHERE sequence > above)
    ), made AS (
        INSERT INTO deliveries AS d (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at,
                                     attempt, lease_id)
        SELECT ($12 || to_hex($13 # chance))::uuid, $2, endpoint_id, $1, $3, nextval('fan_out'),
               CASE WHEN in_order THEN $5 END,
               CASE WHEN behind IS NULL THEN now() + make_interval(secs => lease) END,
               (behind IS NULL)::int, CASE WHEN behind IS NULL THEN $14 END
        FROM wanted WHERE NOT EXISTS (SELECT FROM wanted WHERE NOT is_held)
        RETURNING d.endpoint_id, d.lease_id
    )
    SELECT count(*) AS of_all, CASE WHEN count(*) > 0 THEN pg_notify(heard_on, concat_ws(
        ' ', 'leased', $14, extract(epoch FROM now()), count(*),
        coalesce(string_agg(endpoint_id::text, ',') FILTER (WHERE lease_id IS NOT NULL), '-'), $2, $1, $3,
        coalesce($5::text, '-'),
        CASE WHEN octet_length($7) <= 5000 AND count(lease_id) > 0 THEN encode($7, 'base64') END)) END
    INTO done FROM made;
    IF done.of_all = 0 THEN
        INSERT INTO outbox AS o (tenant_id, event_id, type, ordering_key) VALUES ($2, $1, $3, $5)
        RETURNING pg_notify($15, concat_ws(' ', $16, o.sequence, $2, $1, $3, $5)) INTO done;
    END IF;
    RETURN now();
END $$
"""


def upgrade() -> None:
    op.execute(APPEND_ONE)


def downgrade() -> None:
    before = context.script.get_revision("0030").module.APPEND_ONE
    op.execute(before.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
