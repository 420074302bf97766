-- A delivery is in the queue from the event that put it here (planned, requeued) to the first event after it that settles
-- it. Once settled it stays settled until it is requeued, so the result is the same however the ledger is sliced.

-- name: planned
-- on: delivery.planned
-- What is settled in this slice already would be put here only to be taken away again: in a rebuild that is nearly everything. Of the
-- others mostly nothing but their columns matters here, which a search of the text tells in a tenth of the time that parsing it takes.
WITH settled AS (
    SELECT delivery_id, max(position) AS position FROM slice
    WHERE type IN ('delivery.attempted', 'delivery.attempt_lost', 'delivery.withheld', 'delivery.cancelled', 'delivery.expired')
      AND state IN ('succeeded', 'failed', 'withheld', 'cancelled', 'expired')
    GROUP BY 1
), open AS MATERIALIZED (
    SELECT p.* FROM (SELECT delivery_id, target, subject, recorded_at, position, data FROM slice WHERE type = 'delivery.planned') p
    FULL JOIN settled s ON s.delivery_id = p.delivery_id -- a full one, because that is never done row by row, whatever the planner expects
    WHERE coalesce(p.position, 0) > coalesce(s.position, 0)
)
INSERT INTO queue (delivery_id, target, priority, attempt, base, due_at, expires_at, profile_id, planned, since)
SELECT e.delivery_id, e.target, CASE WHEN d.priority = 'promotional' THEN 1 ELSE 0 END, 1, 0, coalesce(d.due_at, e.recorded_at), d.expires_at,
       CASE WHEN d.ordered THEN e.subject END, e.position, e.position
FROM open e LEFT JOIN LATERAL (
    SELECT * FROM json_to_record(e.data) AS d (priority text, due_at timestamptz, expires_at timestamptz, ordered boolean)
    WHERE strpos(e.data::text, '"promotional"') > 0 OR strpos(e.data::text, '"due_at"') > 0 OR strpos(e.data::text, '"expires_at"') > 0 OR strpos(e.data::text, '"ordered"') > 0
    OFFSET 0
) d ON true;

-- name: put back
-- on: delivery.requeued
INSERT INTO queue (delivery_id, target, priority, attempt, base, due_at, expires_at, profile_id, planned, since)
SELECT DISTINCT ON (e.delivery_id) e.delivery_id, e.target, CASE WHEN d.priority = 'promotional' THEN 1 ELSE 0 END, d.attempt, d.attempt - 1, d.due_at, d.expires_at,
       CASE WHEN d.ordered THEN e.subject END, d.planned, e.position
FROM slice e, json_to_record(e.data) AS d (priority text, attempt int, due_at timestamptz, expires_at timestamptz, ordered boolean, planned bigint)
WHERE e.type = 'delivery.requeued'
ORDER BY e.delivery_id, e.position DESC
ON CONFLICT (delivery_id) DO UPDATE SET
    attempt = excluded.attempt, base = excluded.base, due_at = excluded.due_at, expires_at = excluded.expires_at, since = excluded.since, erased = false;

-- name: to be tried again, or later
-- on: delivery.attempted, delivery.attempt_lost, delivery.deferred
-- An attempt that was put off has used up its number and counts for nothing: base moves on with it.
--
-- Each event finds its row by the key, here and below. As a plain join it would be planned by what the queue held at some time, which is
-- often nothing, and then read the whole slice once for each row: with a burst in the queue, for half a minute.
INSERT INTO queue AS q (delivery_id, target, priority, attempt, base, due_at, expires_at, profile_id, planned, erased, since)
SELECT q.delivery_id, q.target, q.priority, s.attempt, greatest(q.base, s.base), CASE WHEN q.erased THEN q.due_at ELSE s.due_at END, q.expires_at, q.profile_id, q.planned, q.erased, q.since
FROM (
    SELECT DISTINCT ON (e.delivery_id) e.delivery_id, CASE e.type WHEN 'delivery.deferred' THEN d.attempt ELSE d.attempt + 1 END AS attempt,
           coalesce(d.next_attempt_at, d.due_at) AS due_at, coalesce(max(d.base) OVER (PARTITION BY e.delivery_id), 0) AS base
    FROM slice e, json_to_record(e.data) AS d (attempt int, base int, next_attempt_at timestamptz, due_at timestamptz)
    WHERE e.type IN ('delivery.attempted', 'delivery.attempt_lost', 'delivery.deferred') AND e.state = 'retrying'
    ORDER BY e.delivery_id, 2 DESC, e.position
) s CROSS JOIN LATERAL (SELECT * FROM queue AS q WHERE q.delivery_id = s.delivery_id AND q.attempt < s.attempt OFFSET 0) q
ON CONFLICT (delivery_id) DO UPDATE SET attempt = excluded.attempt, base = excluded.base, due_at = excluded.due_at;

-- name: done with
-- on: delivery.attempted, delivery.attempt_lost, delivery.withheld, delivery.cancelled, delivery.expired
DELETE FROM queue WHERE ctid = ANY (ARRAY(
    SELECT q.ctid
    FROM slice AS s CROSS JOIN LATERAL (SELECT q.ctid, q.since, q.base FROM queue AS q WHERE q.delivery_id = s.delivery_id OFFSET 0) q
    WHERE s.type IN ('delivery.attempted', 'delivery.attempt_lost', 'delivery.withheld', 'delivery.cancelled', 'delivery.expired')
      AND s.state IN ('succeeded', 'failed', 'withheld', 'cancelled', 'expired') AND s.position > q.since
      -- what is still reported of an attempt before it was put back ends it only by a success
      AND (q.base = 0 OR s.state IN ('succeeded', 'cancelled') OR (s.data->>'attempt')::int > q.base)
));

-- name: a person was erased: what is queued for them is due at once and stays so, and the dispatcher withholds it
-- on: profile.erased
INSERT INTO queue AS q (delivery_id, target, priority, attempt, base, due_at, expires_at, profile_id, planned, erased, since)
SELECT DISTINCT ON (q.delivery_id) q.delivery_id, q.target, q.priority, q.attempt, q.base, s.recorded_at, q.expires_at, q.profile_id, q.planned, true, q.since
FROM slice s CROSS JOIN LATERAL (SELECT p.delivery_id FROM events p WHERE p.subject = s.subject AND p.type = 'delivery.planned' OFFSET 0) p
    CROSS JOIN LATERAL (SELECT * FROM queue AS q WHERE q.delivery_id = p.delivery_id AND q.since < s.position OFFSET 0) q
WHERE s.type = 'profile.erased'
ORDER BY q.delivery_id, s.position DESC
ON CONFLICT (delivery_id) DO UPDATE SET due_at = excluded.due_at, erased = true;

-- name: left alone, or not any more
-- on: target.paused, target.resumed
INSERT INTO pauses AS p (target, cause, until, reason, pauses, held_since, since, position)
SELECT DISTINCT ON (e.target) e.target, d.cause, CASE WHEN e.type = 'target.resumed' THEN '-infinity' ELSE coalesce(d.until, 'infinity') END,
       d.reason, coalesce(d.pauses, 0), coalesce(d.held_since, e.recorded_at), e.recorded_at, e.position
FROM slice e, json_to_record(e.data) AS d (cause text, until timestamptz, reason text, pauses int, held_since timestamptz)
WHERE e.type IN ('target.paused', 'target.resumed')
ORDER BY e.target, e.position DESC
ON CONFLICT (target) DO UPDATE SET
    cause = excluded.cause, until = excluded.until, reason = excluded.reason, pauses = excluded.pauses,
    held_since = excluded.held_since, since = excluded.since, position = excluded.position;
