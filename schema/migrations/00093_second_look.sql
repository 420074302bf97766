-- A list that moves while it is read is read twice before somebody counts as absent from it.

-- +goose Up
ALTER TABLE reconciliations ADD COLUMN looks int NOT NULL DEFAULT 1; -- how often the list is read, or is being read

-- +goose Down
ALTER TABLE reconciliations DROP COLUMN looks;
