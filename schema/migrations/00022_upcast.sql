-- Payloads of earlier versions, as the newest version has them, for projections. The list is that of domain/upcast.go, and a
-- test holds the two together: whoever adds to it replaces this function in a migration of its own.

-- +goose Up

-- One expression, so that it becomes part of the query: a type that is not named here costs a comparison.
CREATE FUNCTION upcast(type text, data json) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN type = 'checkpoint.timestamped' AND data->>'v' IS NULL
            THEN ((data::jsonb - 'time') || jsonb_build_object('v', 2)
                  || CASE WHEN data::jsonb ? 'time' AND NOT data::jsonb ? 'stamped_at' THEN jsonb_build_object('stamped_at', data::jsonb->'time') ELSE '{}' END)::json
        ELSE data
    END
$$;

-- What was recorded stays as it is: leaves, evidence and exports read the table events.
CREATE OR REPLACE VIEW slice AS
    SELECT position, id, type, stream, version, subject, channel, purpose, state, target, delivery_id, occurred_at, recorded_at, actor, source,
           correlation_id, causation_id, upcast(type, data) AS data, sealed, leaf
    FROM events
    WHERE position > current_setting('ledger.slice_from')::bigint
      AND position <= current_setting('ledger.slice_to')::bigint;

-- +goose Down
CREATE OR REPLACE VIEW slice AS
    SELECT * FROM events
    WHERE position > current_setting('ledger.slice_from')::bigint
      AND position <= current_setting('ledger.slice_to')::bigint;
DROP FUNCTION upcast(text, json);
