-- name: a firing answered, and counted with its quarter of an hour and its day
-- on: delivery.planned, delivery.withheld, delivery.rejected
WITH answered AS (
    INSERT INTO deliveries (delivery_id, position, firing_id, firing_position, reaction, trigger, cause, target, target_version, platform,
                            profile_id, outcome, reason, detail, consent, unresolved, body_sha256, max_attempts, planned_at, finished_at,
                            next_attempt_at, attempts, changed)
    SELECT e.delivery_id, e.position, d.firing_id, d.firing_position, d.reaction, d.trigger, d.cause, e.target, d.target_version, d.platform,
           e.subject, e.state, d.reason, d.detail, d.consent, d.unresolved, d.body_sha256, d.max_attempts, e.recorded_at,
           CASE WHEN e.type <> 'delivery.planned' THEN e.recorded_at END,
           CASE WHEN e.type = 'delivery.planned' THEN coalesce(d.due_at, e.recorded_at) END, 0, e.position
    FROM slice e, json_to_record(e.data) AS d (firing_id uuid, firing_position bigint, reaction text, trigger text, cause text,
           target_version bigint, platform text, reason text, detail text, consent json, unresolved json, body_sha256 text, max_attempts int, attempt int, due_at timestamptz)
    WHERE e.type IN ('delivery.planned', 'delivery.withheld', 'delivery.rejected') AND d.attempt IS NULL
    RETURNING position, planned_at, reaction, target, target_version, platform, outcome
)
INSERT INTO tallies AS t (daily, bucket, reaction, target, target_version, platform, first, last, pending, retrying, succeeded, failed, withheld, rejected, cancelled, expired)
SELECT w.daily, date_bin(w.width, a.planned_at, '2000-01-01Z'), a.reaction, a.target, coalesce(a.target_version, 0), coalesce(a.platform, ''), min(a.position), max(a.position),
       count(*) FILTER (WHERE a.outcome = 'pending'), 0, 0, 0, count(*) FILTER (WHERE a.outcome = 'withheld'), count(*) FILTER (WHERE a.outcome = 'rejected'), 0, 0
FROM answered a, (VALUES (false, interval '15 minutes'), (true, interval '1 day')) AS w (daily, width)
GROUP BY 1, 2, 3, 4, 5, 6
ON CONFLICT (daily, bucket, reaction, target, target_version, platform) DO UPDATE SET
    last = excluded.last, pending = t.pending + excluded.pending, withheld = t.withheld + excluded.withheld, rejected = t.rejected + excluded.rejected;

-- name: an attempt made, or lost; how attempts were answered, and how long they took
-- on: delivery.attempted, delivery.attempt_lost
-- The JSON is parsed once for the three tables.
WITH told AS MATERIALIZED (
    SELECT e.type, e.delivery_id, e.position, e.target, e.state, e.recorded_at, date_bin('15 minutes', e.recorded_at, '2000-01-01Z') AS bucket, coalesce(d.verdict, 'lost') AS verdict,
           d.attempt, coalesce(d.started_at, d.claimed_at) AS started_at, d.duration_ms, d.status, d.reason, d.next_attempt_at, d.address, d.worker, d.timings, d.body_sha256, coalesce(d.probe, false) AS probe, d.consent
    FROM slice e, json_to_record(e.data) AS d (attempt int, started_at timestamptz, claimed_at timestamptz, duration_ms double precision, status int,
           verdict text, reason text, next_attempt_at timestamptz, address text, worker text, timings json, body_sha256 text, probe boolean, consent json)
    WHERE e.type IN ('delivery.attempted', 'delivery.attempt_lost')
), answered AS (
    INSERT INTO answers AS t (bucket, target, verdict, n)
    SELECT bucket, target, verdict, count(*) FROM told GROUP BY 1, 2, 3
    ON CONFLICT (bucket, target, verdict) DO UPDATE SET n = t.n + excluded.n
), timed AS (
    INSERT INTO latencies AS t (bucket, class, n)
    SELECT bucket, ceil(2 * ln(greatest(duration_ms, 0.01)) / ln(2::float8))::int, count(*) FROM told WHERE type = 'delivery.attempted' GROUP BY 1, 2
    ON CONFLICT (bucket, class) DO UPDATE SET n = t.n + excluded.n
)
INSERT INTO attempts (delivery_id, attempt, position, started_at, duration_ms, status, verdict, reason, outcome, next_attempt_at, address, worker, timings, body_sha256, probe, consent, recorded_at)
SELECT delivery_id, attempt, position, started_at, duration_ms, status, verdict, reason, state, next_attempt_at, address, worker, timings, body_sha256, probe, consent, recorded_at FROM told;

-- name: what else happened
-- on: delivery.withheld, delivery.cancelled, delivery.expired, delivery.requeued, delivery.deferred
INSERT INTO turns (delivery_id, position, outcome, attempt, reason, detail, due_at, actor, recorded_at)
SELECT e.delivery_id, e.position, e.state, d.attempt,
       CASE WHEN e.type IN ('delivery.withheld', 'delivery.deferred') THEN d.reason WHEN e.type = 'delivery.requeued' THEN 'requeued' ELSE e.state END,
       CASE e.type WHEN 'delivery.withheld' THEN d.detail WHEN 'delivery.expired' THEN 'its time had passed'
                   WHEN 'delivery.deferred' THEN 'it was due in quiet hours' ELSE d.reason END,
       d.due_at, e.actor, e.recorded_at
FROM slice e, json_to_record(e.data) AS d (attempt int, reason text, detail text, due_at timestamptz)
WHERE e.type IN ('delivery.withheld', 'delivery.cancelled', 'delivery.expired', 'delivery.requeued', 'delivery.deferred') AND (e.type <> 'delivery.withheld' OR d.attempt IS NOT NULL);

-- name: what became of it
-- on: delivery.attempted, delivery.attempt_lost, delivery.withheld, delivery.cancelled, delivery.expired, delivery.requeued, delivery.deferred
-- What a delivery is follows from all that happened to it, in order, and not from what it was before this slice; that
-- makes the result the same however the ledger is sliced. Being put back into the queue opens it again. From there on the
-- first settled outcome stands, whatever else is still reported; only a success overrules it, because then the platform
-- did take it. What is reported late of an attempt before it was put back counts only as a success.
-- Its quarter of an hour and its day are counted anew with it: a WITH query sees the rows as they were before.
WITH settled AS (
    SELECT DISTINCT ON (f.delivery_id) f.delivery_id, f.outcome, f.reason, f.detail,
           CASE WHEN f.outcome IN ('retrying', 'pending') THEN f.next_attempt_at END AS next_attempt_at,
           CASE WHEN f.outcome NOT IN ('retrying', 'pending') THEN f.recorded_at END AS finished_at,
           max(f.made) OVER w AS attempts, max(f.position) OVER w AS changed, max(f.against) OVER w AS against, bool_or(f.as_planned) OVER w AS as_planned
    FROM (
        SELECT delivery_id FROM slice
        WHERE type IN ('delivery.attempted', 'delivery.attempt_lost', 'delivery.withheld', 'delivery.cancelled', 'delivery.expired', 'delivery.requeued', 'delivery.deferred')
        GROUP BY delivery_id
    ) touched
    CROSS JOIN LATERAL (
        SELECT coalesce(max(r.position), 0) AS position, coalesce(max(r.attempt), 1) AS attempt
        FROM turns r WHERE r.delivery_id = touched.delivery_id AND r.outcome = 'pending'
    ) opened
    CROSS JOIN LATERAL (
        SELECT a.delivery_id, a.position, a.attempt, a.attempt AS made, a.outcome, a.verdict AS reason, a.reason AS detail, a.next_attempt_at, a.recorded_at,
               CASE WHEN a.consent->>'decision' = 'flagged' THEN a.consent->>'reason' END AS against, a.consent IS NULL AS as_planned
        FROM attempts a WHERE a.delivery_id = touched.delivery_id
        UNION ALL
        SELECT u.delivery_id, u.position, u.attempt, 0, u.outcome, u.reason, u.detail, u.due_at, u.recorded_at, NULL, false
        FROM turns u WHERE u.delivery_id = touched.delivery_id
    ) f
    WINDOW w AS (PARTITION BY f.delivery_id)
    ORDER BY f.delivery_id,
             (f.position >= opened.position AND (f.outcome IN ('succeeded', 'cancelled', 'expired') OR f.attempt >= opened.attempt)) DESC, -- what counts
             (f.outcome = 'succeeded') DESC, (f.outcome NOT IN ('retrying', 'pending')) DESC,
             CASE WHEN f.outcome IN ('retrying', 'pending') THEN -f.position ELSE f.position END
)
, updated AS (
    UPDATE deliveries AS t SET
        outcome = s.outcome, reason = s.reason, detail = s.detail, next_attempt_at = s.next_attempt_at, finished_at = s.finished_at,
        attempts = s.attempts, changed = s.changed,
        against = greatest(s.against, CASE WHEN s.as_planned AND t.consent->>'decision' = 'flagged' THEN t.consent->>'reason' END)
    FROM settled s WHERE t.delivery_id = s.delivery_id
    RETURNING t.delivery_id, t.planned_at, t.reaction, t.target, t.target_version, t.platform, t.outcome
)
UPDATE tallies AS t SET
    pending = t.pending + m.pending, retrying = t.retrying + m.retrying, succeeded = t.succeeded + m.succeeded, failed = t.failed + m.failed,
    withheld = t.withheld + m.withheld, cancelled = t.cancelled + m.cancelled, expired = t.expired + m.expired
FROM (
    SELECT w.daily, date_bin(w.width, u.planned_at, '2000-01-01Z') AS bucket, u.reaction, u.target, coalesce(u.target_version, 0) AS target_version, coalesce(u.platform, '') AS platform,
           count(*) FILTER (WHERE u.outcome = 'pending') - count(*) FILTER (WHERE b.outcome = 'pending') AS pending,
           count(*) FILTER (WHERE u.outcome = 'retrying') - count(*) FILTER (WHERE b.outcome = 'retrying') AS retrying,
           count(*) FILTER (WHERE u.outcome = 'succeeded') - count(*) FILTER (WHERE b.outcome = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE u.outcome = 'failed') - count(*) FILTER (WHERE b.outcome = 'failed') AS failed,
           count(*) FILTER (WHERE u.outcome = 'withheld') - count(*) FILTER (WHERE b.outcome = 'withheld') AS withheld,
           count(*) FILTER (WHERE u.outcome = 'cancelled') - count(*) FILTER (WHERE b.outcome = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE u.outcome = 'expired') - count(*) FILTER (WHERE b.outcome = 'expired') AS expired
    FROM updated u JOIN deliveries b ON b.delivery_id = u.delivery_id -- as it was before
    CROSS JOIN (VALUES (false, interval '15 minutes'), (true, interval '1 day')) AS w (daily, width)
    WHERE u.outcome <> b.outcome
    GROUP BY 1, 2, 3, 4, 5, 6
) m
WHERE t.daily = m.daily AND t.bucket = m.bucket AND t.reaction = m.reaction AND t.target = m.target AND t.target_version = m.target_version AND t.platform = m.platform;
