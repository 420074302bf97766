-- The ledger: one append-only table, the function that is its only way in, and the cursors of its readers.
--
-- Everything lives in the schema that search_path names first (ledger by default), so that one database can
-- hold several ledgers. Names are unqualified on purpose; functions fix the path they were created under.

-- +goose Up

-- Three roles. The owner migrates. The service appends through append() and keeps projections, but can neither
-- insert, update nor delete an event. The reader sees events and projections, for analysts. Roles belong to the
-- whole server, so another ledger on it may have made them already.
-- +goose StatementBegin
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY ARRAY['ledger_service', 'ledger_reader'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', r);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL; -- made by somebody else at this moment
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role % is missing and % may not create it', r, current_user
                    USING HINT = format('Have an administrator run: CREATE ROLE %I NOLOGIN; GRANT %I TO %I;', r, r, current_user);
        END;
    END LOOP;
    IF NOT pg_has_role(current_user, 'ledger_service', 'MEMBER') THEN
        EXECUTE format('GRANT ledger_service TO %I', current_user);
    END IF;
    IF NOT pg_has_role(current_user, 'ledger_reader', 'MEMBER') THEN
        EXECUTE format('GRANT ledger_reader TO %I', current_user);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO ledger_service, ledger_reader', current_schema());
    EXECUTE format('GRANT CREATE ON DATABASE %I TO ledger_service', current_database());
END $$;
-- +goose StatementEnd

CREATE TABLE events (
    position       bigint      NOT NULL,   -- 1, 2, 3, … in the order of commits, without gaps
    id             uuid        NOT NULL,   -- the producer's; a repeat is recognised by it
    type           text COLLATE "C"        NOT NULL,
    stream         text COLLATE "C"        NOT NULL,   -- what the event is about: target-…, profile-…, delivery-…
    version        bigint      NOT NULL,   -- 1, 2, 3, … within the stream
    subject        uuid,                   -- the person concerned, by pseudonym
    channel        text COLLATE "C",                   -- what projections key on is a column, not JSON:
    purpose        text COLLATE "C",                   --   reading keys out of json costs a third of a projection's speed
    state          text COLLATE "C",
    target         text COLLATE "C",
    delivery_id    uuid,
    occurred_at    timestamptz,            -- the producer's clock; null when the producer gave none
    recorded_at    timestamptz NOT NULL,   -- ours, taken under the lock; never decreases
    actor          text COLLATE "C"        NOT NULL,   -- who: a token's name, or a part of the service
    source         text COLLATE "C"        NOT NULL,   -- from where: the CloudEvents source, or /planner and its like
    correlation_id uuid,                   -- the event that started it all
    causation_id   uuid,                   -- the event that caused this one
    data           json        NOT NULL,   -- exactly the bytes that were hashed; jsonb would rewrite them
    sealed         bytea,                  -- personal data, encrypted under the subject's key
    leaf           bytea       NOT NULL,   -- this event's leaf in the Merkle tree, SHA-256
    CONSTRAINT events_pkey PRIMARY KEY (position)
) PARTITION BY RANGE (position);

COMMENT ON TABLE events IS 'The ledger. Written only by append(); position order is commit order.';

-- How far each partition reaches. Ten million events are about 9 GB with their indexes: large enough that a
-- ledger has few of them, small enough that one can be archived and detached in one sitting.
CREATE TABLE ledger_settings (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ledger_id      uuid    NOT NULL DEFAULT gen_random_uuid(),
    partition_size bigint  NOT NULL DEFAULT 10000000 CHECK (partition_size > 0),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO ledger_settings DEFAULT VALUES;

-- Which positions each partition holds: from first, below past.
CREATE TABLE partitions (
    first bigint PRIMARY KEY,
    past  bigint NOT NULL UNIQUE CHECK (past > first)
);

-- refuse_change is what UPDATE, DELETE and TRUNCATE meet, whoever issues them.
-- +goose StatementBegin
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Correct a fact by appending another. Erase a person with: dispatch-ledger erase PROFILE_ID';
END $$;
-- +goose StatementEnd

CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ensure_partitions makes partitions up to a position. Attaching a table that was made beside the parent takes a lock
-- that neither readers nor appends wait for.
-- +goose StatementBegin
CREATE FUNCTION ensure_partitions(to_position bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    first bigint := (SELECT coalesce(max(p.past), 1) FROM partitions p);
    past  bigint;
    part  text;
BEGIN
    WHILE first <= to_position LOOP
        past := first + (SELECT s.partition_size FROM ledger_settings s);
        part := format('events_%s', first);
        EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)', part);
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT bounds CHECK (position >= %s AND position < %s)', part, first, past);
        -- Uniqueness over the whole ledger is append()'s doing, under the lock; these are the second line of
        -- defence, and what it looks repeats and versions up in.
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id)', part || '_id', part);
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (stream, version)', part || '_stream_version', part);
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', part);
        EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', part, first, past);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT bounds', part); -- it spared the attaching a scan; the partition's own bound says the same
        INSERT INTO partitions VALUES (first, past);
        first := past;
    END LOOP;
END $$;
-- +goose StatementEnd

CREATE INDEX events_subject ON events (subject, position) WHERE subject IS NOT NULL;

-- append is the only way into the ledger: one round trip that locks, checks, numbers and inserts a batch.
--
-- The arrays are parallel, one element an item, in order. ranks is an item's place among those of its stream in
-- this call, from 0. No id may repeat within one call, and a stream for which a version is expected may occur once:
-- the caller (schema.Ledger) sees to both.
--
-- All or nothing: when every item is fresh, all are appended and one row comes back for each, outcome 0. When one
-- is not, nothing is, and a row comes back for each that stands in the way:
--   1 a repeat of what stands at the position returned · 2 the id stands there with other content
--   3 the stream is at the version returned, not at the expected one
-- The caller answers those and calls again with the rest, so that one caller's stale version or repeat does not
-- fail the strangers it travels with.
--
-- The look-ups are scalar subqueries on purpose: plpgsql plans once, perhaps on an empty table, and a NOT EXISTS
-- would be frozen as a hash join over a sequential scan; a scalar subquery stays an index probe.
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

-- Readers' cursors. A subscription's effects and its cursor move in one transaction, so effects in this
-- database happen exactly once.
CREATE TABLE subscriptions (
    name           text        PRIMARY KEY,
    position       bigint      NOT NULL DEFAULT 0,     -- every event up to here has had its effect
    state          text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'parked', 'paused')),
    error          text,                               -- why it is parked
    error_position bigint,                             -- the event at fault
    updated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (name, position)
);

-- A handler puts its fence where its slice ends; the deferred key lets the COMMIT pass only if the
-- acknowledgement moved the cursor to the same place. So an attempt that outlived its deadline cannot be
-- committed without its acknowledgement.
CREATE TABLE fences (
    name     text PRIMARY KEY,
    position bigint NOT NULL,
    FOREIGN KEY (name, position) REFERENCES subscriptions (name, position) DEFERRABLE INITIALLY DEFERRED
);

-- Moving a cursor by hand must move its fence too.
-- +goose StatementBegin
CREATE FUNCTION move_cursor(subscription text, to_position bigint) RETURNS void LANGUAGE sql AS $$
    UPDATE fences SET position = to_position WHERE name = subscription;
    UPDATE subscriptions SET position = to_position, state = 'running', error = NULL, error_position = NULL,
           updated_at = clock_timestamp() WHERE name = subscription;
$$;
-- +goose StatementEnd

-- What the projections are built from: which version of which definition stands in the live schema.
CREATE TABLE projections (
    name     text        PRIMARY KEY,
    version  int         NOT NULL,
    digest   bytea       NOT NULL,   -- SHA-256 of its SQL
    built_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A lease is the durable intent to make one attempt: it is committed before the request leaves. It is the only
-- part of the queue that does not follow from events; losing it loses the knowledge that a request may be under way.
CREATE TABLE leases (
    delivery_id uuid        PRIMARY KEY,
    attempt     int         NOT NULL,
    worker      text        NOT NULL,
    claimed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL
);

-- slice is the piece of the ledger that a projection's statements are about: after slice_from, up to slice_to.
-- The runner sets both for its transaction; an analyst may set them for a session.
CREATE VIEW slice AS
    SELECT * FROM events
    WHERE position > current_setting('ledger.slice_from')::bigint
      AND position <= current_setting('ledger.slice_to')::bigint;

-- Functions that run with the owner's rights must not look names up on the caller's path.
-- +goose StatementBegin
DO $$
DECLARE f regprocedure;
BEGIN
    FOREACH f IN ARRAY ARRAY[
        'ensure_partitions(bigint)'::regprocedure,
        'append(uuid[],text[],text[],int[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],text[],bytea[],bytea[])'::regprocedure
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO ledger_service', f);
    END LOOP;
END $$;
-- +goose StatementEnd

SELECT ensure_partitions(1);

GRANT SELECT ON events, slice, ledger_settings, partitions TO ledger_service, ledger_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON subscriptions, fences, projections, leases TO ledger_service;
GRANT SELECT ON subscriptions, projections TO ledger_reader;
GRANT SELECT ON goose_db_version TO ledger_service; -- to tell whether it runs on the tables that it was written for

-- +goose Down
DROP VIEW slice;
DROP TABLE leases, projections, fences, subscriptions;
DROP FUNCTION move_cursor(text, bigint);
DROP FUNCTION append(uuid[],text[],text[],int[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],text[],bytea[],bytea[]);
DROP TABLE events, partitions, ledger_settings CASCADE;
DROP FUNCTION ensure_partitions(bigint);
DROP FUNCTION refuse_change();
