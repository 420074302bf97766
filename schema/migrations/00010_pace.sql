-- The pace of targets over all processes, beside the leases: like them it does not follow from events, and losing it
-- loses nothing but the last moment's tokens.

-- +goose Up

-- paces are token buckets, one for each target with a rate. They are taken from in the transaction of the claim.
CREATE TABLE paces (
    target text COLLATE "C" PRIMARY KEY,
    tokens double precision NOT NULL,      -- left at the time; what flowed in since is reckoned when it is looked at
    at     timestamptz      NOT NULL DEFAULT clock_timestamp()
);

-- Which target a lease is for, to count a target's requests over all processes.
ALTER TABLE leases ADD COLUMN target text COLLATE "C";

GRANT SELECT, INSERT, UPDATE, DELETE ON paces TO ledger_service;

-- +goose Down
ALTER TABLE leases DROP COLUMN target;
DROP TABLE paces;
