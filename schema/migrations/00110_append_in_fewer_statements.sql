-- Appending, in as few statements as it takes: each costs the server as much as it takes over one event, whatever the size of
-- the batch. Where the ledger ends, whether anything is archived and how far its partitions reach is one; looking up and inserting is
-- another. What a batch means, and what comes back, is as it was: see 00081.
--
-- The look-ups are scalar subqueries on purpose: plpgsql plans once, perhaps on an empty table, and a NOT EXISTS would be
-- frozen as a hash join over a sequential scan. What is looked up is materialized, because the verdict over all of it decides
-- whether any of it is inserted.

-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION append(
    ids uuid[], types text[], streams text[], ranks int[], expected bigint[], subjects uuid[],
    channels text[], purposes text[], states text[], targets text[], deliveries uuid[],
    occurred timestamptz[], actors text[], sources text[], correlations uuid[], causations uuid[],
    datas json[], seals bytea[], digests bytea[]
) RETURNS TABLE (item int, outcome int, at_position bigint, versions bigint[], at_time timestamptz)
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    n         int := cardinality(ids);
    head      bigint;
    past      bigint;
    stamp     timestamptz;
    stamp_be  bytea;
    archive   boolean;
    old_ids   bigint[]; -- where an item's id stands in the archives
    old_tops  bigint[]; -- the version that its stream reached there
    priors    bigint[]; -- where an item's id stands already
    tops      bigint[]; -- the version that its stream is at
    numbers   bigint[]; -- the version that an item gets
    fresh     boolean;
BEGIN
    -- An expression, unlike PERFORM, is evaluated without a query's machinery.
    IF pg_advisory_xact_lock(hashtextextended(current_schema() || '.append', 0)) IS NULL THEN
        RETURN; -- never: it waits, or fails
    END IF;

    SELECT coalesce(l.position, 0), greatest(clock_timestamp(), l.recorded_at),
           EXISTS (SELECT FROM archived_events), (SELECT max(p.past) FROM partitions p)
    INTO head, stamp, archive, past
    FROM (VALUES (0)) AS always
    LEFT JOIN LATERAL (SELECT e.position, e.recorded_at FROM events e ORDER BY e.position DESC LIMIT 1) l ON true;
    stamp_be := int8send((extract(epoch FROM stamp) * 1000000)::bigint);

    IF archive THEN
        SELECT array_agg((SELECT a.position FROM archived_events a WHERE a.id = ids[i])),
               array_agg((SELECT a.version FROM archived_events a WHERE a.stream = streams[i] ORDER BY a.version DESC LIMIT 1))
        INTO old_ids, old_tops
        FROM generate_series(1, n) AS i;
    END IF;
    IF head + n >= past THEN
        PERFORM ensure_partitions(head + n);
    END IF;

    WITH found AS MATERIALIZED (
        SELECT i,
               coalesce((SELECT e.position FROM events e WHERE e.id = ids[i]), old_ids[i]) AS prior,
               coalesce((SELECT e.version FROM events e WHERE e.stream = streams[i] ORDER BY e.version DESC LIMIT 1), old_tops[i], 0) AS top
        FROM generate_series(1, n) AS i
    ), verdict AS MATERIALIZED (
        SELECT bool_and(f.prior IS NULL AND coalesce(expected[f.i] = f.top, true)) AS fresh FROM found f
    ), added AS (
        INSERT INTO events (position, id, type, stream, version, subject, channel, purpose, state, target, delivery_id,
                            occurred_at, recorded_at, actor, source, correlation_id, causation_id, data, sealed, leaf)
        SELECT head + i, ids[i], types[i], streams[i], top + ranks[i] + 1, subjects[i], channels[i], purposes[i], states[i], targets[i], deliveries[i],
               occurred[i], stamp, actors[i], sources[i], correlations[i], causations[i], datas[i], seals[i],
               leaf_of(digests[i], head + i, top + ranks[i] + 1, stamp_be)
        FROM found WHERE (SELECT v.fresh FROM verdict v)
    )
    SELECT array_agg(f.prior), array_agg(f.top), array_agg(f.top + ranks[f.i] + 1), (SELECT v.fresh FROM verdict v)
    INTO priors, tops, numbers, fresh
    FROM found f;

    IF NOT fresh THEN
        RETURN QUERY SELECT * FROM append_obstacles(ids, types, streams, expected, datas, seals, priors, tops);
        RETURN;
    END IF;
    IF pg_notify(current_schema() || '_appended', (head + n)::text) IS NULL THEN
        RETURN; -- never
    END IF;
    item := 0;
    outcome := 0;
    at_position := head + 1;
    versions := numbers;
    at_time := stamp;
    RETURN NEXT;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$
DECLARE f text := 'append(uuid[],text[],text[],int[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],json[],bytea[],bytea[])';
BEGIN -- making it anew took them off
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', f);
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION append(
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
BEGIN -- making it anew took them off
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', f);
END $$;
-- +goose StatementEnd
