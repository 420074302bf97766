-- Firings that were answered before the planner's cursor came to them, because many of another target lay in between.

-- +goose Up

-- Written in the transaction that answers, and deleted in the one whose slice comes to them. While the planner keeps up it is
-- empty. Losing it stops the planner at the first of them, which it would answer a second time.
CREATE TABLE planned_ahead (
    position bigint PRIMARY KEY -- of the firing
);

GRANT SELECT, INSERT, DELETE ON planned_ahead TO ledger_service;

-- +goose Down
DROP TABLE planned_ahead;
