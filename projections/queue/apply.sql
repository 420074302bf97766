-- name: planned
-- on: delivery.planned
INSERT INTO queue (delivery_id, target, attempt, due_at, planned)
SELECT delivery_id, target, 1, coalesce((data->>'due_at')::timestamptz, recorded_at), position
FROM slice WHERE type = 'delivery.planned';

-- name: to be tried again
-- on: delivery.attempted, delivery.attempt_lost
UPDATE queue AS q SET attempt = s.attempt, due_at = s.due_at
FROM (
    SELECT DISTINCT ON (delivery_id) delivery_id, (data->>'attempt')::int + 1 AS attempt, (data->>'next_attempt_at')::timestamptz AS due_at
    FROM slice WHERE type IN ('delivery.attempted', 'delivery.attempt_lost') AND state = 'retrying'
    ORDER BY delivery_id, (data->>'attempt')::int DESC, position
) s
WHERE q.delivery_id = s.delivery_id AND q.attempt < s.attempt;

-- name: done with
-- on: delivery.attempted, delivery.attempt_lost, delivery.withheld
DELETE FROM queue AS q USING slice AS s
WHERE q.delivery_id = s.delivery_id
  AND s.type IN ('delivery.attempted', 'delivery.attempt_lost', 'delivery.withheld')
  AND s.state IN ('succeeded', 'failed', 'withheld');
