-- name: a firing answered
-- on: delivery.planned, delivery.withheld, delivery.rejected
INSERT INTO deliveries (delivery_id, position, firing_id, firing_position, reaction, trigger, cause, target, target_version, platform,
                        profile_id, outcome, reason, detail, consent, unresolved, body_sha256, max_attempts, planned_at, finished_at,
                        next_attempt_at, attempts, changed)
SELECT e.delivery_id, e.position, d.firing_id, d.firing_position, d.reaction, d.trigger, d.cause, e.target, d.target_version, d.platform,
       e.subject, e.state, d.reason, d.detail, d.consent, d.unresolved, d.body_sha256, d.max_attempts, e.recorded_at,
       CASE WHEN e.type <> 'delivery.planned' THEN e.recorded_at END,
       CASE WHEN e.type = 'delivery.planned' THEN coalesce(d.due_at, e.recorded_at) END, 0, e.position
FROM slice e, json_to_record(e.data) AS d (firing_id uuid, firing_position bigint, reaction text, trigger text, cause text,
       target_version bigint, platform text, reason text, detail text, consent json, unresolved json, body_sha256 text, max_attempts int, attempt int, due_at timestamptz)
WHERE e.type IN ('delivery.planned', 'delivery.withheld', 'delivery.rejected') AND d.attempt IS NULL;

-- name: an attempt made, or lost
-- on: delivery.attempted, delivery.attempt_lost
INSERT INTO attempts (delivery_id, attempt, position, started_at, duration_ms, status, verdict, reason, outcome, next_attempt_at, address, worker, timings, body_sha256, probe, recorded_at)
SELECT e.delivery_id, d.attempt, e.position, coalesce(d.started_at, d.claimed_at), d.duration_ms, d.status, coalesce(d.verdict, 'lost'),
       d.reason, e.state, d.next_attempt_at, d.address, d.worker, d.timings, d.body_sha256, coalesce(d.probe, false), e.recorded_at
FROM slice e, json_to_record(e.data) AS d (attempt int, started_at timestamptz, claimed_at timestamptz, duration_ms double precision, status int,
       verdict text, reason text, next_attempt_at timestamptz, address text, worker text, timings json, body_sha256 text, probe boolean)
WHERE e.type IN ('delivery.attempted', 'delivery.attempt_lost');

-- name: what else happened
-- on: delivery.withheld, delivery.cancelled, delivery.expired, delivery.requeued
INSERT INTO turns (delivery_id, position, outcome, attempt, reason, detail, due_at, actor, recorded_at)
SELECT e.delivery_id, e.position, e.state, d.attempt,
       CASE e.type WHEN 'delivery.withheld' THEN d.reason WHEN 'delivery.requeued' THEN 'requeued' ELSE e.state END,
       CASE e.type WHEN 'delivery.withheld' THEN d.detail WHEN 'delivery.expired' THEN 'its time had passed' ELSE d.reason END,
       d.due_at, e.actor, e.recorded_at
FROM slice e, json_to_record(e.data) AS d (attempt int, reason text, detail text, due_at timestamptz)
WHERE e.type IN ('delivery.cancelled', 'delivery.expired', 'delivery.requeued') OR e.type = 'delivery.withheld' AND d.attempt IS NOT NULL;

-- name: what became of it
-- on: delivery.attempted, delivery.attempt_lost, delivery.withheld, delivery.cancelled, delivery.expired, delivery.requeued
-- What a delivery is follows from all that happened to it, in order, and not from what it was before this slice; that
-- makes the result the same however the ledger is sliced. Being put back into the queue opens it again. From there on the
-- first settled outcome stands, whatever else is still reported; only a success overrules it, because then the platform
-- did take it. What is reported late of an attempt before it was put back counts only as a success.
UPDATE deliveries AS t SET
    outcome = s.outcome, reason = s.reason, detail = s.detail, next_attempt_at = s.next_attempt_at, finished_at = s.finished_at,
    attempts = s.attempts, changed = s.changed
FROM (
    SELECT DISTINCT ON (f.delivery_id) f.delivery_id, f.outcome, f.reason, f.detail,
           CASE WHEN f.outcome IN ('retrying', 'pending') THEN f.next_attempt_at END AS next_attempt_at,
           CASE WHEN f.outcome NOT IN ('retrying', 'pending') THEN f.recorded_at END AS finished_at,
           max(f.made) OVER w AS attempts, max(f.position) OVER w AS changed
    FROM (
        SELECT delivery_id FROM slice
        WHERE type IN ('delivery.attempted', 'delivery.attempt_lost', 'delivery.withheld', 'delivery.cancelled', 'delivery.expired', 'delivery.requeued')
        GROUP BY delivery_id
    ) touched
    CROSS JOIN LATERAL (
        SELECT coalesce(max(r.position), 0) AS position, coalesce(max(r.attempt), 1) AS attempt
        FROM turns r WHERE r.delivery_id = touched.delivery_id AND r.outcome = 'pending'
    ) opened
    CROSS JOIN LATERAL (
        SELECT a.delivery_id, a.position, a.attempt, a.attempt AS made, a.outcome, a.verdict AS reason, a.reason AS detail, a.next_attempt_at, a.recorded_at
        FROM attempts a WHERE a.delivery_id = touched.delivery_id
        UNION ALL
        SELECT u.delivery_id, u.position, u.attempt, 0, u.outcome, u.reason, u.detail, u.due_at, u.recorded_at
        FROM turns u WHERE u.delivery_id = touched.delivery_id
    ) f
    WINDOW w AS (PARTITION BY f.delivery_id)
    ORDER BY f.delivery_id,
             (f.position >= opened.position AND (f.outcome IN ('succeeded', 'cancelled', 'expired') OR f.attempt >= opened.attempt)) DESC, -- what counts
             (f.outcome = 'succeeded') DESC, (f.outcome NOT IN ('retrying', 'pending')) DESC,
             CASE WHEN f.outcome IN ('retrying', 'pending') THEN -f.position ELSE f.position END
) s
WHERE t.delivery_id = s.delivery_id;
