-- What a reader of the ledger asks after each event. As a function it is planned once in a session: planning it anew each
-- time cost more than all else that a small slice takes.

-- +goose Up

-- next_slice gives the slice that a reader may handle next, and holds the reader's cursor for the transaction; another
-- process's reader of the same subscription passes over it. No row comes back when there is nothing to do.
--
-- A reader goes to the head, by its limit, and to where those before it stand. One of those that has nothing to do with
-- the events ahead of it has finished them already, wherever its cursor is: their types stand in before_types, parallel to
-- before, separated by spaces; empty means any.
--
-- A relaxed reader does not wait for the disk when it commits.
-- +goose StatementBegin
CREATE FUNCTION next_slice(reader text, most bigint, before text[], before_types text[], relaxed boolean)
RETURNS TABLE (from_position bigint, until_position bigint, types text[]) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    stands bigint;
    first  bigint;
BEGIN
    SELECT s.position INTO from_position FROM subscriptions s WHERE s.name = reader AND s.state = 'running' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    until_position := least(coalesce((SELECT e.position FROM events e ORDER BY e.position DESC LIMIT 1), 0), from_position + most);
    FOR i IN 1 .. coalesce(cardinality(before), 0) LOOP
        EXIT WHEN until_position <= from_position;
        stands := coalesce((SELECT s.position FROM subscriptions s WHERE s.name = before[i]), 0);
        CONTINUE WHEN stands >= until_position;
        IF before_types[i] = '' OR until_position - stands > 2000 THEN
            until_position := stands;
            CONTINUE;
        END IF;
        first := (SELECT e.position FROM events e WHERE e.position > stands AND e.position <= until_position
                  AND e.type = ANY (string_to_array(before_types[i], ' ')) ORDER BY e.position LIMIT 1);
        until_position := coalesce(first - 1, until_position);
    END LOOP;
    IF until_position <= from_position THEN
        RETURN;
    END IF;
    IF until_position - from_position <= 2000 THEN
        types := (SELECT array_agg(DISTINCT e.type) FROM events e WHERE e.position > from_position AND e.position <= until_position);
    END IF;
    IF relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN NEXT;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION next_slice(text, bigint, text[], text[], boolean);
