-- What the reconciler works with between two events: the run that is under way on each platform, the pages that it has
-- read, the differences that it found, and what waits to be written to a platform. None of it is a record: a run that
-- loses it reads again, and what was missed the next run finds.

-- +goose Up

-- reconciliations are the runs that have not ended, at most one for each platform.
CREATE TABLE reconciliations (
    platform    text COLLATE "C" PRIMARY KEY, -- the connection's name
    id          uuid        NOT NULL UNIQUE,
    mode        text        NOT NULL CHECK (mode IN ('full', 'incremental', 'import')),
    "check"     boolean     NOT NULL DEFAULT false, -- compare and report, no more
    "trigger"   text        NOT NULL,
    actor       text        NOT NULL,
    channels    text[]      NOT NULL,
    since       timestamptz,
    started_at  timestamptz NOT NULL,
    phase       text        NOT NULL DEFAULT 'pull',
    channel     int         NOT NULL DEFAULT 1,     -- which of channels is being read
    cursor      text        NOT NULL DEFAULT '',    -- in that channel's list
    staged      bigint      NOT NULL DEFAULT 0,     -- rows in reconciled_rows, which a crash of the database empties
    "read"      bigint      NOT NULL DEFAULT 0,     -- entries of the list
    unreadable  bigint      NOT NULL DEFAULT 0,     -- rows of an import
    partial     text[]      NOT NULL DEFAULT '{}',  -- channels whose list is not complete: absence proves nothing
    read_until  timestamptz,                        -- when the reading ended
    readbacks   int         NOT NULL DEFAULT 0,
    approved    boolean     NOT NULL DEFAULT false,
    wait_until  timestamptz,
    policy      bigint      NOT NULL,
    counts      jsonb       NOT NULL DEFAULT '{}'
);

-- reconciled_rows are the pages of a run as they were read. Unlogged: losing them costs reading them again.
CREATE UNLOGGED TABLE reconciled_rows (
    run       uuid    NOT NULL,
    seq       bigint  NOT NULL,              -- the later reading of an address holds
    channel   text    COLLATE "C" NOT NULL,
    scope     text    COLLATE "C" NOT NULL,  -- '' for the whole account, else kind:id
    hash      bytea   NOT NULL,
    gone      boolean NOT NULL,              -- the platform says that it would send
    reason    text    COLLATE "C",
    class     text    COLLATE "C",
    native    text,
    at        timestamptz,
    precision text    COLLATE "C",
    address   text                           -- only of whom it would send to: to write an opt-out whose address is erased here
);

-- reconciled_state is one row for each address and scope that a run speaks of: what the list says now and what it said
-- when we last looked.
CREATE UNLOGGED TABLE reconciled_state (
    run       uuid    NOT NULL,
    channel   text    COLLATE "C" NOT NULL,
    scope     text    COLLATE "C" NOT NULL,
    hash      bytea   NOT NULL,
    news      text    COLLATE "C",           -- seen, lifted, or null: as before
    reason    text    COLLATE "C",
    class     text    COLLATE "C",
    native    text,
    at        timestamptz,
    precision text    COLLATE "C"
);

-- reconciled_differences are what a run found, kept after it for whoever asks what it did.
CREATE TABLE reconciled_differences (
    run        uuid        NOT NULL,
    n          bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    platform   text        COLLATE "C" NOT NULL,
    channel    text        COLLATE "C" NOT NULL,
    scope      text        COLLATE "C" NOT NULL DEFAULT '',
    class      text        COLLATE "C" NOT NULL,
    hash       bytea,
    profile_id uuid,
    reason     text        COLLATE "C",
    theirs_at  timestamptz,
    ours_at    timestamptz,
    decision   bigint,                       -- position of ours
    purpose    text        COLLATE "C",      -- that an opt-out there is recorded for
    action     text        COLLATE "C" NOT NULL, -- record, push, lift, ask or none
    amount     bigint      NOT NULL DEFAULT 1,
    PRIMARY KEY (run, n)
);

-- outgoing is what waits to be written to a platform, the newest decision for each address.
CREATE TABLE outgoing (
    platform   text        COLLATE "C" NOT NULL,
    channel    text        COLLATE "C" NOT NULL,
    hash       bytea       NOT NULL,
    intent     text        COLLATE "C" NOT NULL CHECK (intent IN ('suppress', 'resubscribe')),
    profile_id uuid,
    decision   bigint      NOT NULL,
    decided_at timestamptz NOT NULL,
    run        uuid,
    finding    uuid,
    address    text,                         -- where the platform gave it and the ledger has it no more
    attempt    int         NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL,
    PRIMARY KEY (platform, channel, hash)
);
CREATE INDEX outgoing_due ON outgoing (platform, due_at);

-- analyze_reconciled tells the planner how large the pages of a run are; a table's statistics are its owner's to gather.
-- +goose StatementBegin
CREATE FUNCTION analyze_reconciled() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    ANALYZE reconciled_rows, reconciled_state;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION analyze_reconciled() SET search_path = %I, pg_temp', current_schema());
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION analyze_reconciled() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION analyze_reconciled() TO ledger_service;

GRANT SELECT, INSERT, UPDATE, DELETE ON reconciliations, reconciled_rows, reconciled_state, reconciled_differences, outgoing TO ledger_service;
GRANT TRUNCATE ON reconciled_rows, reconciled_state TO ledger_service;
GRANT SELECT ON reconciliations, reconciled_differences TO ledger_reader;

-- +goose Down
DROP FUNCTION analyze_reconciled();
DROP TABLE outgoing, reconciled_differences, reconciled_state, reconciled_rows, reconciliations;
