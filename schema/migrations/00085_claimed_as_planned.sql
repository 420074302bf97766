-- A delivery may be claimed in the transaction that plans it, before the queue has a row for it.

-- +goose Up

-- Position of the event that planned it. Until the queue has come that far, a lease without a row in it is no leftover.
ALTER TABLE leases ADD COLUMN planned bigint;

-- +goose Down
ALTER TABLE leases DROP COLUMN planned;
