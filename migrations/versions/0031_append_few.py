"""Deliveries of a few events that come together are made by the statement that stores them, too."""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

# As `append_one` (0030), for events of which no two share an ordering key. The deliveries of all are made, or all wait
# in the outbox. `stored` names those whose idempotency key was free, unless that is all of them.
APPEND_FEW = """
CREATE FUNCTION append_few(
    ids uuid[], tenants uuid[], types text[], occurred timestamptz[], event_keys bigint[], sizes int[], sealed bytea[],
    idempotency bytea[], fingerprints bytea[], looked_up text[],
    may boolean, ids_begin text[], ids_end bigint[], new_lease uuid, channel text, word text,
    OUT accepted_at timestamptz, OUT stored uuid[]
) LANGUAGE plpgsql AS $$
DECLARE
    offered offers[];
    above bigint;
    known bigint;
    said bigint;
BEGIN
    SELECT array_agg(o.offer ORDER BY n), min(o.outbox_above), min((o.offer).version) INTO offered, above, known
    FROM unnest($2, $3) WITH ORDINALITY AS i(tenant_id, type, n)
    LEFT JOIN LATERAL (
        SELECT offers AS offer, outbox_above FROM offers JOIN workers w ON w.id = worker_id
        WHERE $11 AND tenant_id = i.tenant_id AND offers.type = i.type
              AND outbox_above >= 0 AND seen_at > now() - interval '5 seconds' LIMIT 1
    ) AS o ON true
    HAVING bool_and(o.outbox_above IS NOT NULL
                    AND NOT pg_try_advisory_xact_lock(hashtextextended((o.offer).heard_on, 0)));
    IF offered IS NOT NULL AND NOT pg_try_advisory_xact_lock(hashtextextended('webhook_gateway.append', 0)) THEN
        offered := NULL;
    END IF;
    WITH incoming AS MATERIALIZED (
        SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $12, $13, offered) WITH ORDINALITY
            AS i(id, tenant_id, type, occurred_at, ordering_key, size, body, key, fingerprint, lookups, begins, ends,
                 of_tenant, of_type, worker_id, heard_on, version, endpoint_ids, chances, in_order, leases, n)
    ), claimed AS (
        INSERT INTO idempotency_keys (tenant_id, key, fingerprint, event_id)
        SELECT tenant_id, key, fingerprint, id FROM incoming WHERE key IS NOT NULL ORDER BY tenant_id, key, n
        ON CONFLICT DO NOTHING
        RETURNING event_id
    ), fresh AS MATERIALIZED (
        SELECT * FROM incoming WHERE key IS NULL OR id IN (SELECT event_id FROM claimed)
    ), kept AS (
        INSERT INTO events (id, tenant_id, type, occurred_at, size, body, ordering_key)
        SELECT id, tenant_id, type, coalesce(occurred_at, now()), size, body, ordering_key FROM fresh
    ), found AS (
        INSERT INTO lookups (key, event_id) SELECT unnest(lookups::uuid[]) AS key, id FROM fresh ORDER BY key, id
    ), wanted AS MATERIALIZED (
        SELECT i.n, i.id, tenant_id, type, ordering_key, begins, ends, w.*, earlier.id AS behind, earlier.is_held
        FROM fresh i
        CROSS JOIN LATERAL unnest(endpoint_ids, chances, i.in_order, leases) AS w(endpoint_id, chance, in_order, lease)
        LEFT JOIN LATERAL (
            SELECT last.id, EXISTS (SELECT FROM deliveries WHERE id = last.id FOR KEY SHARE SKIP LOCKED) AS is_held
            FROM (SELECT id FROM deliveries WHERE endpoint_id = w.endpoint_id AND ordering_key = i.ordering_key
                  ORDER BY sequence DESC LIMIT 1) AS last
        ) AS earlier ON w.in_order
    ), state AS MATERIALIZED (
        SELECT offered IS NOT NULL AND (SELECT version FROM configuration) <= known
               AND NOT EXISTS (SELECT FROM outbox WHERE sequence > above)
               AND NOT EXISTS (SELECT FROM wanted WHERE NOT is_held) AS is_as_known
    ), made AS (
        INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, attempt,
                                lease_id)
        SELECT (begins || to_hex(ends # chance))::uuid, tenant_id, endpoint_id, id, type, nextval('fan_out'),
               CASE WHEN in_order THEN ordering_key END,
               CASE WHEN behind IS NULL THEN now() + make_interval(secs => lease) END,
               (behind IS NULL)::int, CASE WHEN behind IS NULL THEN $14 END
        FROM wanted WHERE (SELECT is_as_known FROM state)
    ), handed AS (
        SELECT pg_notify(heard_on, concat_ws(
            ' ', 'leased', $14, extract(epoch FROM now()), of_all, coalesce(leased, '-'), tenant_id, id, type,
            coalesce(ordering_key::text, '-'),
            CASE WHEN octet_length(body) <= 5000 AND leased IS NOT NULL THEN encode(body, 'base64') END))
        FROM fresh CROSS JOIN LATERAL (
            SELECT count(*) AS of_all, string_agg(endpoint_id::text, ',') FILTER (WHERE behind IS NULL) AS leased
            FROM wanted WHERE n = fresh.n
        ) AS each WHERE (SELECT is_as_known FROM state)
    ), waits AS (
        INSERT INTO outbox AS o (tenant_id, event_id, type, ordering_key)
        SELECT tenant_id, id, type, ordering_key FROM fresh WHERE (SELECT is_as_known FROM state) IS NOT TRUE ORDER BY n
        RETURNING pg_notify($15, concat_ws(' ', $16, o.sequence, tenant_id, event_id, type, ordering_key))
    )
    SELECT now(), CASE WHEN count(*) < cardinality($1) THEN coalesce(array_agg(id), '{}') END,
           (SELECT count(*) FROM handed)
    INTO accepted_at, stored, said FROM fresh;
END $$
"""


def upgrade() -> None:
    op.execute(APPEND_FEW)


def downgrade() -> None:
    op.execute("DROP FUNCTION append_few")
