-- What readers failed at, kept after they went on.

-- +goose Up

-- failures has a row for each time that a reader was parked. The subscription says where it is parked now.
CREATE TABLE failures (
    reader    text        NOT NULL,
    position  bigint      NOT NULL,   -- the event at fault, found by bisection
    error     text        NOT NULL,
    tries     int         NOT NULL,   -- how often the handler was run to find it
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (reader, position, parked_at)
);
GRANT SELECT, INSERT ON failures TO ledger_service;
GRANT SELECT ON failures TO ledger_reader;

-- +goose Down
DROP TABLE failures;
