"""A lone event's deliveries are made by small statements, not by one of many parts."""

from alembic import context, op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

# As it was (0030, 0032), step by step: a part of a statement costs more to set up each time than a small statement, and
# what an event that is for one endpoint needs are rows of values. What may have changed since the offer is looked at
# before the locks are asked for, the outbox first of all: what fan-out takes from there in between is among the
# deliveries, or its lock is taken.
APPEND_ONE = """
CREATE OR REPLACE FUNCTION append_one(
    event_id uuid, tenant uuid, event_type text, occurred timestamptz, event_key bigint, event_size int, sealed bytea,
    idempotency bytea, event_fingerprint bytea, looked_up uuid[],
    may boolean, id_begins text, id_ends bigint, new_lease uuid, channel text, word text
) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    heard_on text;
    endpoint_ids uuid[];
    chances bigint[];
    have_order boolean[];
    leases float8[];
    earlier uuid;
    behind uuid[];
    leased text;
    said text;
BEGIN
    IF $8 IS NOT NULL THEN
        INSERT INTO idempotency_keys (tenant_id, key, fingerprint, event_id) VALUES ($2, $8, $9, $1)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO events (id, tenant_id, type, occurred_at, size, body, ordering_key)
    VALUES ($1, $2, $3, coalesce($4, now()), $6, $7, $5);
    INSERT INTO lookups (key, event_id) SELECT unnest($10), $1;
    SELECT o.heard_on, o.endpoint_ids, o.chances, o.in_order, o.leases
    INTO heard_on, endpoint_ids, chances, have_order, leases
    FROM offers o JOIN workers w ON w.id = o.worker_id
    WHERE $11 AND o.tenant_id = $2 AND o.type = $3 AND w.outbox_above >= 0 AND w.seen_at > now() - interval '5 seconds'
          AND o.version >= (SELECT version FROM configuration)
          AND NOT EXISTS (SELECT FROM outbox WHERE sequence > w.outbox_above);
    IF FOUND AND (pg_try_advisory_xact_lock(hashtextextended(heard_on, 0))
                  OR NOT pg_try_advisory_xact_lock(hashtextextended('webhook_gateway.append', 0))) THEN
        endpoint_ids := NULL;
    END IF;
    IF $5 IS NOT NULL THEN
        FOR n IN 1 .. coalesce(cardinality(endpoint_ids), 0) LOOP
            CONTINUE WHEN NOT have_order[n];
            SELECT id INTO earlier FROM deliveries
            WHERE endpoint_id = endpoint_ids[n] AND ordering_key = $5 ORDER BY sequence DESC LIMIT 1;
            CONTINUE WHEN NOT FOUND;
            PERFORM FROM deliveries WHERE id = earlier FOR KEY SHARE SKIP LOCKED;
            IF NOT FOUND THEN
                endpoint_ids := NULL;
                EXIT;
            END IF;
            behind := array_append(behind, endpoint_ids[n]);
        END LOOP;
    END IF;
    IF endpoint_ids IS NULL THEN
        INSERT INTO outbox AS o (tenant_id, event_id, type, ordering_key) VALUES ($2, $1, $3, $5)
        RETURNING pg_notify($15, concat_ws(' ', $16, o.sequence, $2, $1, $3, $5)) INTO said;
        RETURN now();
    END IF;
    IF cardinality(endpoint_ids) = 1 AND behind IS NULL THEN
        INSERT INTO deliveries (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at, attempt,
                                lease_id)
        VALUES (($12 || to_hex($13 # chances[1]))::uuid, $2, endpoint_ids[1], $1, $3, nextval('fan_out'),
                CASE WHEN have_order[1] THEN $5 END, now() + leases[1] * interval '1 second', 1, $14);
        leased := endpoint_ids[1];
    ELSE
        WITH made AS (
            INSERT INTO deliveries AS d (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at,
                                         attempt, lease_id)
            SELECT ($12 || to_hex($13 # chance))::uuid, $2, endpoint_id, $1, $3, nextval('fan_out'),
                   CASE WHEN in_order THEN $5 END,
                   CASE WHEN waits IS NOT TRUE THEN now() + lease * interval '1 second' END,
                   (waits IS NOT TRUE)::int, CASE WHEN waits IS NOT TRUE THEN $14 END
            FROM unnest(endpoint_ids, chances, have_order, leases) AS w(endpoint_id, chance, in_order, lease)
            CROSS JOIN LATERAL (SELECT endpoint_id = ANY(behind)) AS b(waits)
            RETURNING d.endpoint_id, d.lease_id
        )
        SELECT string_agg(endpoint_id::text, ',') FILTER (WHERE lease_id IS NOT NULL) INTO leased FROM made;
    END IF;
    said := pg_notify(heard_on, concat_ws(
        ' ', 'leased', $14, extract(epoch FROM now()), cardinality(endpoint_ids), coalesce(leased, '-'), $2, $1, $3,
        coalesce($5::text, '-'),
        CASE WHEN octet_length($7) <= 5000 AND leased IS NOT NULL THEN encode($7, 'base64') END));
    RETURN now();
END $$
"""


def upgrade() -> None:
    op.execute(APPEND_ONE)


def downgrade() -> None:
    op.execute(context.script.get_revision("0032").module.APPEND_ONE)
