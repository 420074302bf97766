-- How far imports of existing consent have come, so that one that was interrupted goes on where it stopped. What they
-- recorded stands in the ledger; losing this table costs reading a file again from its start.

-- +goose Up
CREATE TABLE imports (
    id         uuid        PRIMARY KEY,   -- of the file's content and of how it is read
    name       text        NOT NULL,
    line       bigint      NOT NULL,      -- every record that ends up to here is done with
    recorded   bigint      NOT NULL,
    duplicates bigint      NOT NULL,
    rejected   bigint      NOT NULL,
    done       boolean     NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT, INSERT, UPDATE, DELETE ON imports TO ledger_service;

-- +goose Down
DROP TABLE imports;
