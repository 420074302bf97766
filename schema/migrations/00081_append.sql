-- Appending, split so that the next change replaces only its part, and in fewer steps of the server's.
--
-- Its statements were planned anew at each call, because a plan for any batch was estimated to cost more than one for the batch
-- at hand: a third of all that a call took. Now they are planned once in a session. An array that unnest() reads is copied
-- through a tuplestore, nineteen of them; and each event came back as a row. Now elements are read where they lie, and a batch
-- is answered with one row.

-- +goose Up

DROP FUNCTION append(uuid[],text[],text[],int[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],text[],bytea[],bytea[]);

-- leaf_of is an event's leaf in the Merkle tree; domain.Leaf says the same in Go. Its time travels as microseconds since 1970.
CREATE FUNCTION leaf_of(digest bytea, at_position bigint, at_version bigint, microseconds bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256('\x00'::bytea || digest || int8send(at_position) || int8send(at_version) || microseconds)
$$;

-- append_obstacles says what keeps a batch from being appended: see append(). Nothing stands in the way of most batches.
--
-- priors and tops are what append() found: where each item's id stands already, and the version that its stream is at.
-- +goose StatementBegin
CREATE FUNCTION append_obstacles(ids uuid[], types text[], streams text[], expected bigint[], datas json[], seals bytea[], priors bigint[], tops bigint[])
RETURNS TABLE (item int, outcome int, at_position bigint, versions bigint[], at_time timestamptz) LANGUAGE sql STABLE AS $$
    SELECT i, CASE WHEN prior IS NULL THEN 3
                   WHEN coalesce(e.type = types[i] AND e.stream = streams[i] AND e.data::text = datas[i]::text AND e.sealed IS NOT DISTINCT FROM seals[i],
                                 a.content = archived_content(types[i], streams[i], datas[i]::text, seals[i])) THEN 1
                   ELSE 2 END,
           prior, ARRAY[coalesce(e.version, a.version, tops[i])], coalesce(e.recorded_at, a.recorded_at, clock_timestamp())
    FROM generate_series(1, cardinality(ids)) AS i
    CROSS JOIN LATERAL (SELECT priors[i] AS prior OFFSET 0) p
    LEFT JOIN LATERAL (SELECT * FROM events e WHERE e.position = prior OFFSET 0) e ON true
    LEFT JOIN LATERAL (SELECT * FROM archived_events a WHERE a.position = prior OFFSET 0) a ON true
    WHERE prior IS NOT NULL OR expected[i] <> tops[i]
    ORDER BY i
$$;
-- +goose StatementEnd

-- append is the only way into the ledger: one round trip that locks, checks, numbers and inserts a batch.
--
-- The arrays are parallel, one element an item, in order. ranks is an item's place among those of its stream in
-- this call, from 0. No id may repeat within one call, and a stream for which a version is expected may occur once:
-- the caller (schema.Ledger) sees to both.
--
-- All or nothing. When every item is fresh, all are appended and one row comes back, outcome 0: where the first of them
-- stands, the version of each, and when. When one is not, nothing is, and a row comes back for each that stands in the way:
--   1 a repeat of what stands at the position returned · 2 the id stands there with other content
--   3 the stream is at the version returned, not at the expected one
-- The caller answers those and calls again with the rest, so that one caller's stale version or repeat does not
-- fail the strangers it travels with.
--
-- The look-ups are scalar subqueries on purpose: plpgsql plans once, perhaps on an empty table, and a NOT EXISTS
-- would be frozen as a hash join over a sequential scan; a scalar subquery stays an index probe. Elements are read by their
-- number, which plpgsql does in one step, and not with unnest(), which copies each array as rows of its own.
-- +goose StatementBegin
CREATE FUNCTION append(
    ids uuid[], types text[], streams text[], ranks int[], expected bigint[], subjects uuid[],
    channels text[], purposes text[], states text[], targets text[], deliveries uuid[],
    occurred timestamptz[], actors text[], sources text[], correlations uuid[], causations uuid[],
    datas json[], seals bytea[], digests bytea[]
) RETURNS TABLE (item int, outcome int, at_position bigint, versions bigint[], at_time timestamptz)
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    n        int := cardinality(ids);
    head     bigint;
    last_at  timestamptz;
    stamp    timestamptz;
    stamp_be bytea;
    priors   bigint[]; -- where an item's id stands already
    tops     bigint[]; -- the version that its stream is at
    fresh    boolean;
    archive  boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.append', 0));
    archive := EXISTS (SELECT FROM archived_events);
    SELECT e.position, e.recorded_at INTO head, last_at FROM events e ORDER BY e.position DESC LIMIT 1;
    head := coalesce(head, 0);
    stamp := greatest(clock_timestamp(), coalesce(last_at, '-infinity'));
    stamp_be := int8send((extract(epoch FROM stamp) * 1000000)::bigint);

    SELECT array_agg(t.prior), array_agg(t.top), bool_and(t.prior IS NULL AND coalesce(expected[t.i] = t.top, true))
    INTO priors, tops, fresh
    FROM (
        SELECT i,
               coalesce((SELECT e.position FROM events e WHERE e.id = ids[i]),
                        CASE WHEN archive THEN (SELECT a.position FROM archived_events a WHERE a.id = ids[i]) END) AS prior,
               coalesce((SELECT e.version FROM events e WHERE e.stream = streams[i] ORDER BY e.version DESC LIMIT 1),
                        CASE WHEN archive THEN (SELECT a.version FROM archived_events a WHERE a.stream = streams[i] ORDER BY a.version DESC LIMIT 1) END, 0) AS top
        FROM generate_series(1, n) AS i
    ) t;

    IF NOT fresh THEN
        RETURN QUERY SELECT * FROM append_obstacles(ids, types, streams, expected, datas, seals, priors, tops);
        RETURN;
    END IF;

    IF head + n >= (SELECT max(p.past) FROM partitions p) THEN
        PERFORM ensure_partitions(head + n);
    END IF;

    INSERT INTO events (position, id, type, stream, version, subject, channel, purpose, state, target, delivery_id,
                        occurred_at, recorded_at, actor, source, correlation_id, causation_id, data, sealed, leaf)
    SELECT head + i, ids[i], types[i], streams[i], tops[i] + ranks[i] + 1, subjects[i], channels[i], purposes[i], states[i], targets[i], deliveries[i],
           occurred[i], stamp, actors[i], sources[i], correlations[i], causations[i], datas[i], seals[i],
           leaf_of(digests[i], head + i, tops[i] + ranks[i] + 1, stamp_be)
    FROM generate_series(1, n) AS i;

    PERFORM pg_notify(current_schema() || '_appended', (head + n)::text);
    RETURN QUERY SELECT 0, 0, head + 1, (SELECT array_agg(tops[i] + ranks[i] + 1) FROM generate_series(1, n) AS i), stamp;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE f text := 'append(uuid[],text[],text[],int[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],json[],bytea[],bytea[])';
BEGIN
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', f);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO ledger_service', f);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION append(uuid[],text[],text[],int[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],json[],bytea[],bytea[]);
DROP FUNCTION append_obstacles(uuid[],text[],text[],bigint[],json[],bytea[],bigint[],bigint[]);
DROP FUNCTION leaf_of(bytea,bigint,bigint,bytea);
-- +goose StatementBegin
CREATE FUNCTION append(
    ids uuid[], types text[], streams text[], ranks int[], expected bigint[], subjects uuid[],
    channels text[], purposes text[], states text[], targets text[], deliveries uuid[],
    occurred timestamptz[], actors text[], sources text[], correlations uuid[], causations uuid[],
    datas text[], seals bytea[], digests bytea[]
) RETURNS TABLE (item int, outcome int, at_position bigint, at_version bigint, at_time timestamptz)
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    head     bigint;
    last_at  timestamptz;
    stamp    timestamptz;
    stamp_be bytea;
    tops     bigint[];
    fresh    boolean;
    n        int := cardinality(ids);
    archive  boolean := EXISTS (SELECT FROM archived_events);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.append', 0));
    SELECT e.position, e.recorded_at INTO head, last_at FROM events e ORDER BY e.position DESC LIMIT 1;
    head := coalesce(head, 0);
    stamp := greatest(clock_timestamp(), coalesce(last_at, '-infinity'));

    SELECT array_agg(t.top ORDER BY t.ord), bool_and(t.prior IS NULL AND coalesce(t.expect = t.top, true))
    INTO tops, fresh
    FROM (
        SELECT u.ord, u.expect,
               coalesce((SELECT e.position FROM events e WHERE e.id = u.id),
                        CASE WHEN archive THEN (SELECT a.position FROM archived_events a WHERE a.id = u.id) END) AS prior,
               coalesce((SELECT e.version FROM events e WHERE e.stream = u.stream ORDER BY e.version DESC LIMIT 1),
                        CASE WHEN archive THEN (SELECT a.version FROM archived_events a WHERE a.stream = u.stream ORDER BY a.version DESC LIMIT 1) END, 0) AS top
        FROM unnest(ids, streams, expected) WITH ORDINALITY AS u (id, stream, expect, ord)
    ) t;

    IF NOT fresh THEN
        RETURN QUERY
        SELECT g.ord::int,
               CASE WHEN g.prior IS NULL THEN 3
                    WHEN coalesce((SELECT e.type = g.type AND e.stream = g.stream AND e.data::text = g.data
                                          AND e.sealed IS NOT DISTINCT FROM g.sealed
                                   FROM events e WHERE e.position = g.prior),
                                  (SELECT a.content = archived_content(g.type, g.stream, g.data, g.sealed)
                                   FROM archived_events a WHERE a.position = g.prior)) THEN 1
                    ELSE 2 END,
               g.prior,
               CASE WHEN g.prior IS NULL THEN g.top
                    ELSE coalesce((SELECT e.version FROM events e WHERE e.position = g.prior), (SELECT a.version FROM archived_events a WHERE a.position = g.prior)) END,
               CASE WHEN g.prior IS NULL THEN stamp
                    ELSE coalesce((SELECT e.recorded_at FROM events e WHERE e.position = g.prior), (SELECT a.recorded_at FROM archived_events a WHERE a.position = g.prior)) END
        FROM (
            SELECT u.*, coalesce((SELECT e.position FROM events e WHERE e.id = u.id),
                                CASE WHEN archive THEN (SELECT a.position FROM archived_events a WHERE a.id = u.id) END) AS prior
            FROM unnest(ids, types, streams, expected, datas, seals, tops)
                 WITH ORDINALITY AS u (id, type, stream, expect, data, sealed, top, ord)
        ) g
        WHERE g.prior IS NOT NULL OR g.expect <> g.top
        ORDER BY g.ord;
        RETURN;
    END IF;

    PERFORM ensure_partitions(head + n);
    stamp_be := int8send((extract(epoch FROM stamp) * 1000000)::bigint);

    RETURN QUERY
    INSERT INTO events AS e (position, id, type, stream, version, subject, channel, purpose, state, target, delivery_id,
                             occurred_at, recorded_at, actor, source, correlation_id, causation_id, data, sealed, leaf)
    SELECT head + u.ord, u.id, u.type, u.stream, u.top + u.rank + 1, u.subject, u.channel, u.purpose, u.state, u.target, u.delivery_id,
           u.occurred_at, stamp, u.actor, u.source, u.correlation_id, u.causation_id, u.data::json, u.sealed,
           sha256('\x00'::bytea || u.digest || int8send(head + u.ord) || int8send(u.top + u.rank + 1) || stamp_be)
    FROM unnest(ids, types, streams, ranks, tops, subjects, channels, purposes, states, targets, deliveries,
                occurred, actors, sources, correlations, causations, datas, seals, digests)
         WITH ORDINALITY AS u (id, type, stream, rank, top, subject, channel, purpose, state, target, delivery_id,
                occurred_at, actor, source, correlation_id, causation_id, data, sealed, digest, ord)
    RETURNING (e.position - head)::int, 0, e.position, e.version, e.recorded_at;

    PERFORM pg_notify(current_schema() || '_appended', (head + n)::text);
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$
DECLARE f text := 'append(uuid[],text[],text[],int[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],text[],bytea[],bytea[])';
BEGIN
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO ledger_service', f);
END $$;
-- +goose StatementEnd
