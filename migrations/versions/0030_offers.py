"""A lone event's deliveries are made by the statement that stores it, for the worker that has offered to send them."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

# `outbox_above`: the worker's low-water mark of the outbox; -1 where a look above it might be slow. Older workers have
# none, and don't wait for appends.
WORKERS = "ALTER TABLE workers ADD COLUMN outbox_above bigint"

# For whom events of a type are, by one version of the configuration, and which worker sends them at once. `heard_on` is
# the channel on which it alone hears of them, and the name of a lock that it has as long as it does. `chances` are the
# ends of the endpoints' ids, of which delivery ids are made.
OFFERS = """
CREATE TABLE offers (
    tenant_id uuid NOT NULL,
    type text NOT NULL,
    worker_id uuid NOT NULL REFERENCES workers ON DELETE CASCADE,
    heard_on text NOT NULL,
    version bigint NOT NULL,
    endpoint_ids uuid[] NOT NULL,
    chances bigint[] NOT NULL,
    in_order boolean[] NOT NULL,
    leases float8[] NOT NULL,
    PRIMARY KEY (tenant_id, type)
)
"""

# A function, since what comes after the locks has a snapshot from after them: all that fan-outs before have committed.
# Only one append at a time makes deliveries, and fan-out waits for its end: it looks at the last delivery of a key, and
# must see ours. The event goes into the outbox, and workers are told, where nobody alive has made an offer, where the
# configuration is newer than that, where anything waits in the outbox, which goes first, and where a key's last
# delivery is just being ended: nobody's post waits for what others lock. It returns the time of acceptance, or null
# where the idempotency key is taken.
APPEND_ONE = """
CREATE FUNCTION append_one(
    event_id uuid, tenant uuid, event_type text, occurred timestamptz, event_key bigint, event_size int, sealed bytea,
    idempotency bytea, event_fingerprint bytea, looked_up uuid[],
    may boolean, id_begins text, id_ends bigint, new_lease uuid, channel text, word text
) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    offer record;
    done record;
BEGIN
    IF $8 IS NOT NULL THEN
        INSERT INTO idempotency_keys (tenant_id, key, fingerprint, event_id) VALUES ($2, $8, $9, $1)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    SELECT o.*, w.outbox_above INTO offer FROM offers o JOIN workers w ON w.id = o.worker_id
    WHERE $11 AND o.tenant_id = $2 AND o.type = $3 AND w.outbox_above >= 0 AND w.seen_at > now() - interval '5 seconds';
    IF FOUND AND NOT pg_try_advisory_xact_lock(hashtextextended(offer.heard_on, 0))
             AND pg_try_advisory_xact_lock(hashtextextended('webhook_gateway.append', 0)) THEN
        WITH stored AS (
            INSERT INTO events (id, tenant_id, type, occurred_at, size, body, ordering_key)
            VALUES ($1, $2, $3, coalesce($4, now()), $6, $7, $5)
        ), found AS (
            INSERT INTO lookups (key, event_id) SELECT unnest($10), $1
        ), wanted AS MATERIALIZED (
            SELECT w.*, earlier.id AS behind, earlier.is_held
            FROM unnest(offer.endpoint_ids, offer.chances, offer.in_order, offer.leases)
                AS w(endpoint_id, chance, in_order, lease)
            LEFT JOIN LATERAL (
                SELECT last.id, EXISTS (SELECT FROM deliveries WHERE id = last.id FOR KEY SHARE SKIP LOCKED) AS is_held
                FROM (SELECT id FROM deliveries WHERE endpoint_id = w.endpoint_id AND ordering_key = $5
                      ORDER BY sequence DESC LIMIT 1) AS last
            ) AS earlier ON w.in_order
            ORDER BY w.endpoint_id
        ), state AS MATERIALIZED (
            SELECT (SELECT version FROM configuration) <= offer.version
                   AND NOT EXISTS (SELECT FROM outbox WHERE sequence > offer.outbox_above)
                   AND NOT EXISTS (SELECT FROM wanted WHERE NOT is_held) AS is_as_known
        ), made AS (
            INSERT INTO deliveries AS d (id, tenant_id, endpoint_id, event_id, type, sequence, ordering_key, due_at,
                                         attempt, lease_id)
            SELECT ($12 || to_hex($13 # chance))::uuid, $2, endpoint_id, $1, $3, nextval('fan_out'),
                   CASE WHEN in_order THEN $5 END,
                   CASE WHEN behind IS NULL THEN now() + make_interval(secs => lease) END,
                   (behind IS NULL)::int, CASE WHEN behind IS NULL THEN $14 END
            FROM wanted WHERE (SELECT is_as_known FROM state)
            RETURNING d.endpoint_id, d.lease_id
        ), waits AS (
            INSERT INTO outbox AS o (tenant_id, event_id, type, ordering_key)
            SELECT $2, $1, $3, $5 FROM state WHERE is_as_known IS NOT TRUE
            RETURNING pg_notify($15, concat_ws(' ', $16, o.sequence, $2, $1, $3, $5)) AS told
        )
        SELECT count(endpoint_id) AS of_all, string_agg(endpoint_id::text, ',') FILTER (WHERE lease_id IS NOT NULL) AS
               leased, (SELECT count(*) FROM waits) INTO done FROM made;
        IF done.of_all > 0 THEN
            PERFORM pg_notify(offer.heard_on, concat_ws(
                ' ', 'leased', $14, extract(epoch FROM now()), done.of_all, coalesce(done.leased, '-'), $2, $1, $3,
                coalesce($5::text, '-'),
                CASE WHEN octet_length($7) <= 5000 AND done.leased IS NOT NULL THEN encode($7, 'base64') END));
        END IF;
    ELSE
        WITH stored AS (
            INSERT INTO events (id, tenant_id, type, occurred_at, size, body, ordering_key)
            VALUES ($1, $2, $3, coalesce($4, now()), $6, $7, $5)
        ), found AS (
            INSERT INTO lookups (key, event_id) SELECT unnest($10), $1
        ), waits AS (
            INSERT INTO outbox AS o (tenant_id, event_id, type, ordering_key) VALUES ($2, $1, $3, $5)
            RETURNING pg_notify($15, concat_ws(' ', $16, o.sequence, $2, $1, $3, $5)) AS told
        )
        SELECT count(*) INTO done FROM waits;
    END IF;
    RETURN now();
END $$
"""

# As it was (0024), but that it waits for an append that makes deliveries.
FAN_OUT = """
CREATE OR REPLACE FUNCTION fan_out_told(known_version bigint, after bigint, told bigint[], told_of bigint[], ids uuid[],
                                        endpoint_ids uuid[], in_order boolean[], leases float8[], new_lease uuid)
RETURNS SETOF deliveries LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('webhook_gateway.fan_out', 0)) THEN
        RETURN;
    END IF;
    {waits}RETURN QUERY
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
WAITS = """PERFORM pg_advisory_xact_lock(hashtextextended('webhook_gateway.append', 0));
    """


def upgrade() -> None:
    for statement in (WORKERS, OFFERS, APPEND_ONE, FAN_OUT.format(waits=WAITS)):
        op.execute(statement)


def downgrade() -> None:
    op.execute(FAN_OUT.format(waits=""))
    op.execute("DROP FUNCTION append_one")
    op.execute("DROP TABLE offers")
    op.execute("ALTER TABLE workers DROP COLUMN outbox_above")
