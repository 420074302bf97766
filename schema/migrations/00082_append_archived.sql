-- A repeat of an archived event with a sealed part was taken for another event under the same id: compared with no row, its sealed
-- part differs, and a false among unknowns is false.

-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION append_obstacles(ids uuid[], types text[], streams text[], expected bigint[], datas json[], seals bytea[], priors bigint[], tops bigint[])
RETURNS TABLE (item int, outcome int, at_position bigint, versions bigint[], at_time timestamptz) LANGUAGE sql STABLE AS $$
    SELECT i, CASE WHEN prior IS NULL THEN 3
                   WHEN e.position IS NULL AND a.content = archived_content(types[i], streams[i], datas[i]::text, seals[i]) THEN 1
                   WHEN e.type = types[i] AND e.stream = streams[i] AND e.data::text = datas[i]::text AND e.sealed IS NOT DISTINCT FROM seals[i] THEN 1
                   ELSE 2 END,
           prior, ARRAY[coalesce(e.version, a.version, tops[i])], coalesce(e.recorded_at, a.recorded_at, clock_timestamp())
    FROM generate_series(1, cardinality(ids)) AS i
    CROSS JOIN LATERAL (SELECT priors[i] AS prior OFFSET 0) p
    LEFT JOIN LATERAL (SELECT * FROM events e WHERE e.position = prior OFFSET 0) e ON true
    LEFT JOIN LATERAL (SELECT * FROM archived_events a WHERE a.position = prior OFFSET 0) a ON true
    WHERE prior IS NOT NULL OR expected[i] <> tops[i]
    ORDER BY i
$$;
-- +goose StatementEnd

-- +goose Down
-- What stood before was wrong; it is not put back.
SELECT 1;
