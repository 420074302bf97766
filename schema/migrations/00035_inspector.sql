-- The inspector: what test requests look like when they arrive. Nothing here is part of the ledger, and all of it expires.

-- +goose Up

CREATE TABLE inspector_bins (
    id         text        PRIMARY KEY CONSTRAINT inspector_bins_id CHECK (id ~ '^[a-z0-9]{1,64}$'),
    created_at timestamptz NOT NULL,
    created_by text        NOT NULL,
    expires_at timestamptz NOT NULL,
    status     integer     NOT NULL CONSTRAINT inspector_bins_status CHECK (status BETWEEN 200 AND 599), -- what it answers with
    number     bigint      NOT NULL DEFAULT 0 -- of the last request
);
CREATE INDEX inspector_bins_expire ON inspector_bins (expires_at);

CREATE TABLE inspector_requests (
    bin         text        NOT NULL REFERENCES inspector_bins (id) ON DELETE CASCADE,
    number      bigint      NOT NULL, -- counts in the bin; the oldest are dropped beyond a bound
    received_at timestamptz NOT NULL,
    id          uuid        NOT NULL,
    subject     uuid        NOT NULL, -- under whose key it is sealed: a test with a person's context is erased with them
    sealed      bytea       NOT NULL, -- all of the request
    PRIMARY KEY (bin, number)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON inspector_bins, inspector_requests TO ledger_service;

-- +goose Down
DROP TABLE inspector_requests, inspector_bins;
