-- A reader is moved past events that do not concern it by next_slice itself, in one round trip, and only when it asks for it.

-- +goose Up

DROP FUNCTION next_slice(text, bigint, text[], text[], boolean);

-- next_slice gives the slice that a reader may handle next, and holds the reader's cursor for the transaction; another
-- process's reader of the same subscription passes over it. No row comes back when there is nothing to do.
--
-- A reader goes to the head, by its limit, and to where those before it stand. One of those that has nothing to do with
-- the events ahead of it has finished them already, wherever its cursor is: their types stand in before_types, parallel to
-- before, separated by spaces; empty means any.
--
-- A reader that is about some types only (about is not empty) has nothing to do with a slice without them. Its cursor is
-- moved past such a slice, and the slice comes back as one that it was moved past, when it asks for that or when there may be
-- more; else no row comes back.
--
-- A relaxed reader does not wait for the disk when it commits, and nobody does who was moved.
-- +goose StatementBegin
CREATE FUNCTION next_slice(reader text, most bigint, before text[], before_types text[], relaxed boolean, about text[], move boolean)
RETURNS TABLE (from_position bigint, until_position bigint, types text[], moved boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    stands bigint;
    first  bigint;
BEGIN
    SELECT s.position INTO from_position FROM subscriptions s WHERE s.name = reader AND s.state = 'running' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    moved := false;
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
        IF cardinality(about) > 0 AND NOT types && about THEN
            IF NOT move AND until_position - from_position < most THEN
                RETURN;
            END IF;
            PERFORM set_config('synchronous_commit', 'off', true);
            UPDATE fences f SET position = until_position WHERE f.name = reader AND f.position <> until_position;
            UPDATE subscriptions s SET position = until_position, updated_at = clock_timestamp() WHERE s.name = reader;
            moved := true;
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    IF relaxed THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN NEXT;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION next_slice(text, bigint, text[], text[], boolean, text[], boolean);
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
