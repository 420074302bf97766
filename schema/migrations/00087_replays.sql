-- Replays: many deliveries put back into the queue, by a worker, a page at a time.

-- +goose Up

-- How far each has come. That it was asked for and how it ended are events; losing a row loses where it stood.
CREATE TABLE replays (
    id         uuid             PRIMARY KEY,
    position   bigint           NOT NULL UNIQUE,   -- of the event that asked for it; what was planned later is none of it
    state      text             NOT NULL CHECK (state IN ('running', 'done', 'cancelled')),
    filter     json             NOT NULL,          -- domain.ReplayFilter
    rate       double precision NOT NULL,          -- deliveries a second; 0: no limit
    reason     text             NOT NULL,
    asked_by   text             NOT NULL,
    asked_at   timestamptz      NOT NULL DEFAULT clock_timestamp(),
    selected   bigint           NOT NULL,          -- by the filter, when it was asked for; counting ends at a million
    before     bigint           NOT NULL,          -- deliveries of this position and later are done with
    due        timestamptz      NOT NULL,          -- of the next one
    page_from  bigint,                             -- where the ledger stood when the page at hand was begun; null between pages
    requeued   bigint           NOT NULL DEFAULT 0,
    skipped    bigint           NOT NULL DEFAULT 0,
    refused    bigint           NOT NULL DEFAULT 0,
    updated_at timestamptz      NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX replays_running ON replays (asked_at) WHERE state = 'running';

GRANT SELECT, INSERT, UPDATE, DELETE ON replays TO ledger_service;
GRANT SELECT ON replays TO ledger_reader;

-- +goose Down
DROP TABLE replays;
