-- What the breakers count, beside the paces and the leases: over all processes, and lasting. Like them it does not follow
-- from events; losing it loses the last moment's count, and a pause comes that much later.

-- +goose Up

-- breakers hold, for each target that failed lately, how often it did in a row, and when the next retry may be made where
-- the target's retries have a budget. A target that never fails has no row, and none is written for its successes.
CREATE TABLE breakers (
    target   text COLLATE "C" PRIMARY KEY,
    failures int         NOT NULL DEFAULT 0,
    retry_at timestamptz NOT NULL DEFAULT '-infinity' -- the retries' turn (GCRA): each moves it on by what one costs
);

GRANT SELECT, INSERT, UPDATE, DELETE ON breakers TO ledger_service;

-- +goose Down
DROP TABLE breakers;
