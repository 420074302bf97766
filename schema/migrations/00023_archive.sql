-- Archives: the ledger's oldest partitions, written to files, proven from them, and detached.
--
-- What a detached event is still needed for stays: its leaf in the tiles, for proofs; its id, stream, version and the hash of
-- its content here, so that a repeat of it is recognised and its stream goes on counting.

-- +goose Up

CREATE TABLE archived_events (
    position    bigint      PRIMARY KEY,
    id          uuid        NOT NULL UNIQUE,
    stream      text COLLATE "C" NOT NULL,
    version     bigint      NOT NULL,
    recorded_at timestamptz NOT NULL,
    content     bytea       NOT NULL,   -- archived_content() of the event
    UNIQUE (stream, version)
);
GRANT SELECT ON archived_events TO ledger_service, ledger_reader;

-- archived_content is what a repeat of an event must equal: all that append() compares.
CREATE FUNCTION archived_content(type text, stream text, data text, sealed bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(convert_to(type || chr(31) || stream || chr(31) || data, 'UTF8') || coalesce('\x01'::bytea || sealed, '\x00'::bytea))
$$;

-- append() also looks where archived events left their traces, if there are any.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION append(
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

-- The service has no part in this: only the ledger's owner can detach, and each step says what it refuses.

-- remember_partition keeps what is needed of a partition's events. Nothing waits for it.
-- +goose StatementBegin
CREATE FUNCTION remember_partition(first_position bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO archived_events SELECT position, id, stream, version, recorded_at, archived_content(type, stream, data::text, sealed) FROM %I
                    ON CONFLICT DO NOTHING', 'events_' || first_position);
END $$;
-- +goose StatementEnd

-- detach_partition takes the oldest partition out of the ledger and drops it. It must be full, and remembered.
-- +goose StatementBegin
CREATE FUNCTION detach_partition(first_position bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    oldest record;
    part   text := 'events_' || first_position;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.append', 0));
    SELECT p.first, p.past INTO oldest FROM partitions p ORDER BY p.first LIMIT 1;
    IF oldest.first IS DISTINCT FROM first_position THEN
        RAISE EXCEPTION 'the oldest partition begins at %, not at %', oldest.first, first_position;
    END IF;
    IF NOT EXISTS (SELECT FROM events e WHERE e.position = oldest.past) THEN
        RAISE EXCEPTION 'the partition from % is still being written to', first_position;
    END IF;
    IF (SELECT count(*) FROM archived_events a WHERE a.position >= oldest.first AND a.position < oldest.past) <> oldest.past - oldest.first THEN
        RAISE EXCEPTION 'the events from % to % are not all remembered', oldest.first, oldest.past - 1;
    END IF;
    EXECUTE format('ALTER TABLE events DETACH PARTITION %I', part);
    EXECUTE format('DROP TABLE %I', part);
    DELETE FROM partitions WHERE first = first_position;
END $$;
-- +goose StatementEnd

-- make_restored makes a table for the events of a partition that comes back; attach_restored puts it in its place.
-- +goose StatementBegin
CREATE FUNCTION make_restored(first_position bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    part text := 'events_' || first_position;
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)', part);
    RETURN part;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION attach_restored(first_position bigint, past_position bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part text := 'events_' || first_position;
BEGIN
    IF (SELECT min(p.first) FROM partitions p) IS DISTINCT FROM past_position THEN
        RAISE EXCEPTION 'the ledger begins at %; the archive that ends before it comes first', (SELECT min(p.first) FROM partitions p);
    END IF;
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT bounds CHECK (position >= %s AND position < %s)', part, first_position, past_position);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id)', part || '_id', part);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (stream, version)', part || '_stream_version', part);
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', part);
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', part, first_position, past_position);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bounds', part);
    INSERT INTO partitions VALUES (first_position, past_position);
    DELETE FROM archived_events WHERE position >= first_position AND position < past_position;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE f regprocedure;
BEGIN
    FOREACH f IN ARRAY ARRAY['remember_partition(bigint)'::regprocedure, 'detach_partition(bigint)'::regprocedure,
        'make_restored(bigint)'::regprocedure, 'attach_restored(bigint, bigint)'::regprocedure] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    -- CREATE OR REPLACE took it off append().
    EXECUTE format('ALTER FUNCTION append(uuid[],text[],text[],int[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],text[],bytea[],bytea[]) SET search_path = %I, pg_temp', current_schema());
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION append(
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
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.append', 0));
    SELECT e.position, e.recorded_at INTO head, last_at FROM events e ORDER BY e.position DESC LIMIT 1;
    head := coalesce(head, 0);
    stamp := greatest(clock_timestamp(), coalesce(last_at, '-infinity'));

    SELECT array_agg(t.top ORDER BY t.ord), bool_and(t.prior IS NULL AND coalesce(t.expect = t.top, true))
    INTO tops, fresh
    FROM (
        SELECT u.ord, u.expect,
               (SELECT e.position FROM events e WHERE e.id = u.id) AS prior,
               coalesce((SELECT e.version FROM events e WHERE e.stream = u.stream ORDER BY e.version DESC LIMIT 1), 0) AS top
        FROM unnest(ids, streams, expected) WITH ORDINALITY AS u (id, stream, expect, ord)
    ) t;

    IF NOT fresh THEN
        RETURN QUERY
        SELECT g.ord::int,
               CASE WHEN g.prior IS NULL THEN 3
                    WHEN (SELECT e.type = g.type AND e.stream = g.stream AND e.data::text = g.data
                                 AND e.sealed IS NOT DISTINCT FROM g.sealed
                          FROM events e WHERE e.position = g.prior) THEN 1
                    ELSE 2 END,
               g.prior,
               CASE WHEN g.prior IS NULL THEN g.top ELSE (SELECT e.version FROM events e WHERE e.position = g.prior) END,
               CASE WHEN g.prior IS NULL THEN stamp ELSE (SELECT e.recorded_at FROM events e WHERE e.position = g.prior) END
        FROM (
            SELECT u.*, (SELECT e.position FROM events e WHERE e.id = u.id) AS prior
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
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION append(uuid[],text[],text[],int[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],text[],bytea[],bytea[]) SET search_path = %I, pg_temp', current_schema());
END $$;
-- +goose StatementEnd
DROP FUNCTION attach_restored(bigint, bigint);
DROP FUNCTION make_restored(bigint);
DROP FUNCTION detach_partition(bigint);
DROP FUNCTION remember_partition(bigint);
DROP TABLE archived_events;
DROP FUNCTION archived_content(text, text, text, bytea);
