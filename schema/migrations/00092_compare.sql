-- A reconciliation lays out the two sides that it compares in temporary tables.

-- +goose Up
-- +goose StatementBegin
DO $$ BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO ledger_service', current_database());
END $$;
-- +goose StatementEnd

-- +goose Down
SELECT 1; -- the right is everybody's by default
