-- Runs over the ledger: projections that are rebuilt beside the live ones, built as of a position, or an analyst's own.

-- +goose Up

-- builds says how far each run has come. A row's position moves in the transaction that applies the slice, so that a run
-- that was killed goes on where it stopped.
CREATE TABLE builds (
    place          text        PRIMARY KEY,            -- the SQL schema that it is built in
    projection     text        NOT NULL,
    purpose        text        NOT NULL CHECK (purpose IN ('rebuild', 'build')), -- to be swapped in, or to stay where it is
    own            boolean     NOT NULL DEFAULT false, -- an analyst's own: it runs under a role that can write here and nowhere else
    digest         bytea,                              -- of the SQL that it is built from; null: nothing is built yet
    position       bigint      NOT NULL DEFAULT 0,
    goal           bigint      NOT NULL DEFAULT 0,     -- the position that it is built up to; a rebuild follows the head
    indexed        boolean     NOT NULL DEFAULT false, -- what only readers need stands
    state          text        NOT NULL CHECK (state IN ('asked', 'running', 'stopped', 'failed', 'built')),
    rate           double precision NOT NULL DEFAULT 0, -- events a second, of the run at hand
    error          text,
    error_position bigint,                             -- the event at fault
    asked_by       text        NOT NULL,
    asked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT, INSERT, UPDATE, DELETE ON builds TO ledger_service;
GRANT SELECT ON builds TO ledger_reader;

-- The SQL that the live tables are kept by. A newer program goes on keeping them by it until its own version is swapped in, and
-- an older one that still runs keeps the new ones by the new. Null: from before this column, the program's own.
ALTER TABLE projections ADD COLUMN apply text;

-- check_projection raises LG001 when the live tables are of another version than the caller's.
-- +goose StatementBegin
CREATE FUNCTION check_projection(projection text, expected bytea) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM projections p WHERE p.name = projection AND p.digest = expected) THEN
        RAISE EXCEPTION 'the live tables of projection % are of another version', projection USING ERRCODE = 'LG001';
    END IF;
END $$;
-- +goose StatementEnd

-- own_role names the role of an analyst's schema. Roles belong to the whole server, hence the database in it.
CREATE FUNCTION own_role(place text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'ledger_own_' || left(md5(current_database() || '.' || place), 16)
$$;

-- make_own_schema makes a schema with a role of its own. The role reads what ledger_reader reads, and writes that schema.
--
-- ledger_run is how it is worn: a function that runs with its owner's rights cannot be left by RESET ROLE, as a session's
-- role could, and refuses COMMIT.
-- +goose StatementBegin
CREATE FUNCTION make_own_schema(place text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    r text := own_role(place);
BEGIN
    IF place !~ '^[a-z][a-z0-9_]{0,62}$' OR place LIKE 'pg\_%' THEN
        RAISE EXCEPTION 'schema name %: use lower-case letters, digits and _, starting with a letter', place USING ERRCODE = 'invalid_schema_name';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', r);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION 'the role % is missing and % may not create it', r, current_user
                USING ERRCODE = 'insufficient_privilege',
                      HINT = format('Have an administrator run: CREATE ROLE %I NOLOGIN; GRANT %I TO %I WITH ADMIN OPTION;', r, r, current_user);
        END;
    END IF;
    IF NOT pg_has_role(current_user, r, 'MEMBER') THEN
        EXECUTE format('GRANT %I TO %I', r, current_user);
    END IF;
    EXECUTE format('GRANT ledger_reader TO %I', r);
    EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %I', place, r);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO ledger_reader, ledger_service', place);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO ledger_reader, ledger_service', r, place);
    EXECUTE format('CREATE FUNCTION %I.ledger_run(statements text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS ''BEGIN EXECUTE statements; END''', place);
    EXECUTE format('REVOKE ALL ON FUNCTION %I.ledger_run(text) FROM PUBLIC', place);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %I.ledger_run(text) TO ledger_service', place);
    EXECUTE format('ALTER FUNCTION %I.ledger_run(text) OWNER TO %I', place, r);
END $$;
-- +goose StatementEnd

-- check_own_schema refuses a ledger_run that is not as it was made: its owner could have it run with its caller's rights.
-- +goose StatementBegin
CREATE FUNCTION check_own_schema(place text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
                   WHERE n.nspname = place AND p.proname = 'ledger_run' AND p.proargtypes = ARRAY['text'::regtype]::oidvector
                   AND p.prosecdef AND l.lanname = 'plpgsql' AND p.prosrc = 'BEGIN EXECUTE statements; END' AND p.proconfig IS NULL
                   AND p.proowner = to_regrole(own_role(place))) THEN
        RAISE EXCEPTION 'the function ledger_run of schema % was changed by what ran in it; drop the schema and build it anew', place
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;
-- +goose StatementEnd

-- drop_own_schema drops a schema that make_own_schema made, and its role. It drops no other.
-- +goose StatementBegin
CREATE FUNCTION drop_own_schema(place text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    r text := own_role(place);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = place AND nspowner = to_regrole(r)) THEN
        RAISE EXCEPTION 'schema % is none that an analyst''s projection was built in', place USING ERRCODE = 'invalid_schema_name';
    END IF;
    EXECUTE format('DROP SCHEMA %I CASCADE', place);
    EXECUTE format('DROP OWNED BY %I', r);
    EXECUTE format('DROP ROLE %I', r);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE f regprocedure;
BEGIN
    FOREACH f IN ARRAY ARRAY['make_own_schema(text)'::regprocedure, 'check_own_schema(text)'::regprocedure, 'drop_own_schema(text)'::regprocedure,
        'check_projection(text, bytea)'::regprocedure] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO ledger_service', f);
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION check_projection(text, bytea);
ALTER TABLE projections DROP COLUMN apply;
DROP FUNCTION drop_own_schema(text);
DROP FUNCTION check_own_schema(text);
DROP FUNCTION make_own_schema(text);
DROP FUNCTION own_role(text);
DROP TABLE builds;
