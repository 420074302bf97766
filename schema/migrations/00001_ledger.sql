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
    type           text        NOT NULL,
    stream         text        NOT NULL,   -- what the event is about: target-…, profile-…, delivery-…
    version        bigint      NOT NULL,   -- 1, 2, 3, … within the stream
    subject        uuid,                   -- the person concerned, by pseudonym
    channel        text,                   -- what projections key on is a column, not JSON:
    purpose        text,                   --   reading keys out of json costs a third of a projection's speed
    state          text,
    target         text,
    delivery_id    uuid,
    occurred_at    timestamptz,            -- the producer's clock; null when the producer gave none
    recorded_at    timestamptz NOT NULL,   -- ours, taken under the lock; never decreases
    actor          text        NOT NULL,   -- who: a token's name, or a part of the service
    source         text        NOT NULL,   -- from where: the CloudEvents source, or /planner and its like
    correlation_id uuid,                   -- the event that started it all
    causation_id   uuid,                   -- the event that caused this one
    data           json        NOT NULL,   -- exactly the bytes that were hashed; jsonb would rewrite them
    sealed         bytea,                  -- personal data, encrypted under the subject's key
    leaf           bytea       NOT NULL,   -- this event's leaf in the Merkle tree, SHA-256
    CONSTRAINT events_pkey PRIMARY KEY (position),
    CONSTRAINT events_position_positive CHECK (position > 0),
    CONSTRAINT events_version_positive CHECK (version > 0),
    CONSTRAINT events_leaf_is_sha256 CHECK (octet_length(leaf) = 32)
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

-- ensure_partition makes the partition that holds a position, unless it exists. Attaching a table that was made
-- beside the parent takes a lock that neither readers nor appends wait for.
-- +goose StatementBegin
CREATE FUNCTION ensure_partition(at_position bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    size  bigint := (SELECT partition_size FROM ledger_settings);
    first bigint := (at_position - 1) / size * size + 1;
    part  text   := format('events_%s', first);
    ready boolean;
BEGIN
    SELECT c.relispartition INTO ready FROM pg_class c
        WHERE c.relname = part AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass);
    IF ready THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.ensure_partition', 0));
    IF to_regclass(format('%I.%I', current_schema(), part)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)', part);
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I CHECK (position >= %s AND position < %s)',
                   part, part || '_range', first, first + size);
    -- Uniqueness over the whole ledger is append()'s doing, under the lock; these are the second line of defence,
    -- and what it looks repeats and versions up in.
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id)', part || '_id', part);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (stream, version)', part || '_stream_version', part);
    EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                   part || '_append_only', part);
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', part, first, first + size);
END $$;
-- +goose StatementEnd

CREATE INDEX events_subject ON events (subject, position) WHERE subject IS NOT NULL;

-- append is the only way into the ledger: one round trip that locks, checks, numbers and inserts a batch.
--
-- Items that share a group (one caller's request) are appended together or not at all; a group that fails does
-- not fail the strangers it travels with. The arrays are parallel, one element an item, in order. Within one call
-- no id may repeat, and a stream with an expected version may be written by one group only: the caller
-- (schema.Ledger) sees to both.
--
-- outcome: 0 appended · 1 a repeat of what stands at the position returned · 2 the id stands there with other
-- content · 3 the stream is at the version returned, not at the expected one · 4 refused with its group.
--
-- The look-ups are scalar subqueries on purpose: plpgsql plans once, perhaps on an empty table, and a NOT EXISTS
-- would be frozen as a hash join over a sequential scan; a scalar subquery stays an index probe.
-- +goose StatementBegin
CREATE FUNCTION append(
    groups int[], ids uuid[], types text[], streams text[], expected bigint[], subjects uuid[],
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
    added    bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.append', 0));
    SELECT e.position, e.recorded_at INTO head, last_at FROM events e ORDER BY e.position DESC LIMIT 1;
    head := coalesce(head, 0);
    stamp := greatest(clock_timestamp(), coalesce(last_at, '-infinity'));
    stamp_be := int8send((extract(epoch FROM stamp) * 1000000)::bigint);
    PERFORM ensure_partition(head + 1);
    PERFORM ensure_partition(head + cardinality(ids));

    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT u.*,
               (SELECT e.position FROM events e WHERE e.id = u.id) AS prior,
               (SELECT max(e.version) FROM events e WHERE e.stream = u.stream) AS top
        FROM unnest(groups, ids, types, streams, expected, subjects, channels, purposes, states, targets, deliveries,
                    occurred, actors, sources, correlations, causations, datas, seals, digests)
             WITH ORDINALITY AS u (grp, id, type, stream, expect, subject, channel, purpose, state, target, delivery_id,
                    occurred_at, actor, source, correlation_id, causation_id, data, sealed, digest, ord)
    ), judged AS MATERIALIZED (
        SELECT g.*,
               CASE WHEN g.prior IS NOT NULL THEN
                         CASE WHEN (SELECT e.type = g.type AND e.stream = g.stream AND e.data::text = g.data
                                           AND e.sealed IS NOT DISTINCT FROM g.sealed
                                    FROM events e WHERE e.position = g.prior) THEN 1 ELSE 2 END
                    WHEN g.expect IS NOT NULL AND g.expect <> coalesce(g.top, 0) THEN 3
                    ELSE 0 END AS verdict
        FROM given g
    ), settled AS MATERIALIZED (
        SELECT j.*, max(j.verdict) OVER (PARTITION BY j.grp) >= 2 AS refused FROM judged j
    ), numbered AS MATERIALIZED (
        SELECT s.*,
               head + row_number() OVER (ORDER BY s.ord) AS new_position,
               coalesce(s.top, 0) + row_number() OVER (PARTITION BY s.stream ORDER BY s.ord) AS new_version
        FROM settled s WHERE s.verdict = 0 AND NOT s.refused
    ), inserted AS (
        INSERT INTO events (position, id, type, stream, version, subject, channel, purpose, state, target, delivery_id,
                            occurred_at, recorded_at, actor, source, correlation_id, causation_id, data, sealed, leaf)
        SELECT n.new_position, n.id, n.type, n.stream, n.new_version, n.subject, n.channel, n.purpose, n.state, n.target,
               n.delivery_id, n.occurred_at, stamp, n.actor, n.source, n.correlation_id, n.causation_id, n.data::json, n.sealed,
               sha256('\x00'::bytea || n.digest || int8send(n.new_position) || int8send(n.new_version) || stamp_be)
        FROM numbered n ORDER BY n.ord
        RETURNING position
    )
    SELECT s.ord::int,
           CASE WHEN s.verdict = 0 AND s.refused THEN 4 ELSE s.verdict END,
           coalesce(n.new_position, s.prior),
           CASE WHEN s.prior IS NULL THEN coalesce(n.new_version, s.top, 0)
                ELSE (SELECT e.version FROM events e WHERE e.position = s.prior) END,
           stamp
    FROM settled s LEFT JOIN numbered n ON n.ord = s.ord
    ORDER BY s.ord;

    SELECT coalesce(max(e.position), 0) INTO added FROM events e;
    IF added > head THEN
        PERFORM pg_notify(current_schema() || '_appended', added::text);
    END IF;
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
        'ensure_partition(bigint)'::regprocedure,
        'append(int[],uuid[],text[],text[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],text[],bytea[],bytea[])'::regprocedure
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO ledger_service', f);
    END LOOP;
END $$;
-- +goose StatementEnd

SELECT ensure_partition(1);

GRANT SELECT ON events, slice, ledger_settings TO ledger_service, ledger_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON subscriptions, fences TO ledger_service;
GRANT SELECT ON subscriptions TO ledger_reader;

-- +goose Down
DROP VIEW slice;
DROP TABLE fences, subscriptions;
DROP FUNCTION append(int[],uuid[],text[],text[],bigint[],uuid[],text[],text[],text[],text[],uuid[],timestamptz[],text[],text[],uuid[],uuid[],text[],bytea[],bytea[]);
DROP TABLE events, ledger_settings CASCADE;
DROP FUNCTION ensure_partition(bigint);
DROP FUNCTION refuse_change();
