-- Time and position grow together, so a time is looked up by halving, without an index on it.

-- +goose Up

-- position_before gives the last position that was recorded before a time, 0 for none. Positions whose partition was
-- archived count as before it.
-- +goose StatementBegin
CREATE FUNCTION position_before(at timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low   bigint := 0;
    high  bigint := coalesce((SELECT e.position FROM events e ORDER BY e.position DESC LIMIT 1), 0);
    mid   bigint;
    stamp timestamptz;
BEGIN
    WHILE low < high LOOP
        mid := (low + high + 1) / 2;
        stamp := (SELECT e.recorded_at FROM events e WHERE e.position = mid);
        IF stamp IS NULL OR stamp < at THEN
            low := mid;
        ELSE
            high := mid - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION position_before(timestamptz);
