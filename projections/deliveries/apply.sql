-- name: what became of each firing, and each attempt made or lost
-- on: delivery.planned, delivery.withheld, delivery.rejected, delivery.attempted, delivery.attempt_lost, delivery.cancelled, delivery.expired, delivery.requeued, delivery.deferred
-- What a delivery is follows from all that happened to it, in order, and not from what it was before this slice; that
-- makes the result the same however the ledger is sliced. Being put back into the queue opens it again. From there on the
-- first settled outcome stands, whatever else is still reported; only a success overrules it, because then the platform
-- did take it. What is reported late of an attempt before it was put back counts only as a success.
-- A delivery that is planned in this slice is written once, as what it became by the end of it, and nothing is looked up for it: all
-- that happened to it stands in the slice. The join is a full one because that is never done row by row, however few rows the
-- planner expects.
-- Its quarter of an hour and its day are counted with it: a WITH query sees the rows as they were before, and none of its own.
WITH told AS MATERIALIZED ( -- of attempts; the JSON is parsed once for all that is made of it
    SELECT e.type, e.delivery_id, e.position, e.target, e.state, e.recorded_at, date_bin('15 minutes', e.recorded_at, '2000-01-01Z') AS bucket, coalesce(d.verdict, 'lost') AS verdict,
           d.attempt, coalesce(d.started_at, d.claimed_at) AS started_at, d.duration_ms, d.status, d.reason, d.next_attempt_at, d.address, d.worker, d.timings, d.body_sha256, coalesce(d.probe, false) AS probe, d.consent
    FROM slice e, json_to_record(e.data) AS d (attempt int, started_at timestamptz, claimed_at timestamptz, duration_ms double precision, status int,
           verdict text, reason text, next_attempt_at timestamptz, address text, worker text, timings json, body_sha256 text, probe boolean, consent json)
    WHERE e.type IN ('delivery.attempted', 'delivery.attempt_lost')
), happened AS MATERIALIZED ( -- besides
    SELECT e.delivery_id, e.position, e.state AS outcome, d.attempt,
           CASE WHEN e.type IN ('delivery.withheld', 'delivery.deferred') THEN d.reason WHEN e.type = 'delivery.requeued' THEN 'requeued' ELSE e.state END AS reason,
           CASE e.type WHEN 'delivery.withheld' THEN d.detail WHEN 'delivery.expired' THEN 'its time had passed'
                       WHEN 'delivery.deferred' THEN 'it was due in quiet hours' ELSE d.reason END AS detail,
           d.due_at, e.actor, e.recorded_at
    FROM slice e, json_to_record(e.data) AS d (attempt int, reason text, detail text, due_at timestamptz)
    WHERE e.type IN ('delivery.withheld', 'delivery.cancelled', 'delivery.expired', 'delivery.requeued', 'delivery.deferred') AND (e.type <> 'delivery.withheld' OR d.attempt IS NOT NULL)
), planned AS MATERIALIZED (
    SELECT e.delivery_id, e.position, d.firing_id, d.firing_position, d.reaction, d.trigger, d.cause, e.target, d.target_version, d.platform, e.subject,
           e.state, d.reason, d.detail, d.consent, d.unresolved, d.body_sha256, d.max_attempts, e.recorded_at,
           CASE WHEN e.type <> 'delivery.planned' THEN e.recorded_at END AS finished_at,
           CASE WHEN e.type = 'delivery.planned' THEN coalesce(d.due_at, e.recorded_at) END AS next_attempt_at
    FROM slice e, json_to_record(e.data) AS d (firing_id uuid, firing_position bigint, reaction text, trigger text, cause text,
           target_version bigint, platform text, reason text, detail text, consent json, unresolved json, body_sha256 text, max_attempts int, attempt int, due_at timestamptz)
    WHERE e.type IN ('delivery.planned', 'delivery.withheld', 'delivery.rejected') AND d.attempt IS NULL
), attempted AS (
    INSERT INTO attempts (delivery_id, attempt, position, started_at, duration_ms, status, verdict, reason, outcome, next_attempt_at, address, worker, timings, body_sha256, probe, consent, recorded_at)
    SELECT delivery_id, attempt, position, started_at, duration_ms, status, verdict, reason, state, next_attempt_at, address, worker, timings, body_sha256, probe, consent, recorded_at FROM told
), turned AS (
    INSERT INTO turns (delivery_id, position, outcome, attempt, reason, detail, due_at, actor, recorded_at)
    SELECT delivery_id, position, outcome, attempt, reason, detail, due_at, actor, recorded_at FROM happened
), responses AS (
    INSERT INTO answers AS t (bucket, target, verdict, n)
    SELECT bucket, target, verdict, count(*) FROM told GROUP BY 1, 2, 3
    ON CONFLICT (bucket, target, verdict) DO UPDATE SET n = t.n + excluded.n
), timed AS (
    INSERT INTO latencies AS t (bucket, class, n)
    SELECT bucket, ceil(2 * ln(greatest(duration_ms, 0.01)) / ln(2::float8))::int, count(*) FROM told WHERE type = 'delivery.attempted' GROUP BY 1, 2
    ON CONFLICT (bucket, class) DO UPDATE SET n = t.n + excluded.n
), older AS MATERIALIZED ( -- that were planned before this slice
    SELECT delivery_id FROM told UNION SELECT delivery_id FROM happened EXCEPT SELECT delivery_id FROM planned
), facts AS MATERIALIZED (
    SELECT delivery_id, position, attempt, attempt AS made, state AS outcome, verdict AS reason, reason AS detail, next_attempt_at, recorded_at, consent FROM told
    UNION ALL
    SELECT delivery_id, position, attempt, 0, outcome, reason, detail, due_at, recorded_at, '{}' FROM happened
    UNION ALL
    SELECT f.* FROM older o CROSS JOIN LATERAL (
        SELECT a.delivery_id, a.position, a.attempt, a.attempt, a.outcome, a.verdict, a.reason, a.next_attempt_at, a.recorded_at, a.consent FROM attempts a WHERE a.delivery_id = o.delivery_id OFFSET 0
    ) f
    UNION ALL
    SELECT f.* FROM older o CROSS JOIN LATERAL (
        SELECT u.delivery_id, u.position, u.attempt, 0, u.outcome, u.reason, u.detail, u.due_at, u.recorded_at, '{}'::json FROM turns u WHERE u.delivery_id = o.delivery_id OFFSET 0
    ) f
), weighed AS ( -- each beside all that is known of its delivery
    SELECT f.*, max(made) OVER w AS attempts, max(position) OVER w AS changed,
           max(position) FILTER (WHERE outcome = 'pending') OVER w AS opened, max(attempt) FILTER (WHERE outcome = 'pending') OVER w AS opened_as,
           max(CASE WHEN consent->>'decision' = 'flagged' THEN consent->>'reason' END) OVER w AS against, bool_or(consent IS NULL) OVER w AS as_planned
    FROM facts f WINDOW w AS (PARTITION BY delivery_id)
), settled AS (
    SELECT DISTINCT ON (delivery_id) delivery_id, outcome, reason, detail, attempts, changed, against, as_planned,
           CASE WHEN outcome IN ('retrying', 'pending') THEN next_attempt_at END AS next_attempt_at,
           CASE WHEN outcome NOT IN ('retrying', 'pending') THEN recorded_at END AS finished_at
    FROM weighed
    ORDER BY delivery_id,
             (position >= coalesce(opened, 0) AND (outcome IN ('succeeded', 'cancelled', 'expired') OR attempt >= coalesce(opened_as, 1))) DESC, -- what counts
             (outcome = 'succeeded') DESC, (outcome NOT IN ('retrying', 'pending')) DESC,
             CASE WHEN outcome IN ('retrying', 'pending') THEN -position ELSE position END
), answered AS (
    INSERT INTO deliveries (delivery_id, position, firing_id, firing_position, reaction, trigger, cause, target, target_version, platform,
                            profile_id, outcome, reason, detail, consent, unresolved, body_sha256, max_attempts, planned_at, finished_at,
                            next_attempt_at, attempts, against, changed)
    SELECT p.delivery_id, p.position, p.firing_id, p.firing_position, p.reaction, p.trigger, p.cause, p.target, p.target_version, p.platform,
           p.subject, coalesce(s.outcome, p.state), CASE WHEN s.changed IS NULL THEN p.reason ELSE s.reason END, CASE WHEN s.changed IS NULL THEN p.detail ELSE s.detail END,
           p.consent, p.unresolved, p.body_sha256, p.max_attempts, p.recorded_at, CASE WHEN s.changed IS NULL THEN p.finished_at ELSE s.finished_at END,
           CASE WHEN s.changed IS NULL THEN p.next_attempt_at ELSE s.next_attempt_at END, coalesce(s.attempts, 0),
           greatest(s.against, CASE WHEN s.as_planned AND strpos(p.consent::text, '"flagged"') > 0 AND p.consent->>'decision' = 'flagged' THEN p.consent->>'reason' END), coalesce(s.changed, p.position)
    FROM planned p FULL JOIN settled s ON s.delivery_id = p.delivery_id
    WHERE coalesce(p.position, 0) > 0
    RETURNING position, planned_at, reaction, target, target_version, platform, outcome
), before AS MATERIALIZED ( -- found one by one, whatever the planner expects of either side
    SELECT b.* FROM older o CROSS JOIN LATERAL (SELECT delivery_id, ctid AS place, outcome, 1 AS n FROM deliveries d WHERE d.delivery_id = o.delivery_id OFFSET 0) b
), changes AS MATERIALIZED (
    SELECT b.place, b.outcome AS was, s.* FROM before b FULL JOIN settled s ON s.delivery_id = b.delivery_id WHERE coalesce(b.n, 0) > 0
), updated AS (
    UPDATE deliveries AS t SET
        outcome = s.outcome, reason = s.reason, detail = s.detail, next_attempt_at = s.next_attempt_at, finished_at = s.finished_at,
        attempts = s.attempts, changed = s.changed,
        against = greatest(s.against, CASE WHEN s.as_planned AND strpos(t.consent::text, '"flagged"') > 0 AND t.consent->>'decision' = 'flagged' THEN t.consent->>'reason' END)
    FROM changes s WHERE t.ctid = s.place
    RETURNING t.position, t.planned_at, t.reaction, t.target, t.target_version, t.platform, t.outcome, s.was
), counted AS (
    SELECT position, planned_at, reaction, target, target_version, platform, outcome, 1 AS n FROM answered
    UNION ALL
    SELECT u.position, u.planned_at, u.reaction, u.target, u.target_version, u.platform, v.outcome, v.n
    FROM updated u CROSS JOIN LATERAL (VALUES (u.outcome, 1), (u.was, -1)) AS v (outcome, n)
    WHERE u.outcome <> u.was
)
INSERT INTO tallies AS t (daily, bucket, reaction, target, target_version, platform, first, last, pending, retrying, succeeded, failed, withheld, rejected, cancelled, expired)
SELECT w.daily, date_bin(w.width, c.planned_at, '2000-01-01Z'), c.reaction, c.target, coalesce(c.target_version, 0), coalesce(c.platform, ''), min(c.position), max(c.position),
       coalesce(sum(c.n) FILTER (WHERE c.outcome = 'pending'), 0), coalesce(sum(c.n) FILTER (WHERE c.outcome = 'retrying'), 0),
       coalesce(sum(c.n) FILTER (WHERE c.outcome = 'succeeded'), 0), coalesce(sum(c.n) FILTER (WHERE c.outcome = 'failed'), 0),
       coalesce(sum(c.n) FILTER (WHERE c.outcome = 'withheld'), 0), coalesce(sum(c.n) FILTER (WHERE c.outcome = 'rejected'), 0),
       coalesce(sum(c.n) FILTER (WHERE c.outcome = 'cancelled'), 0), coalesce(sum(c.n) FILTER (WHERE c.outcome = 'expired'), 0)
FROM counted c CROSS JOIN (VALUES (false, interval '15 minutes'), (true, interval '1 day')) AS w (daily, width)
GROUP BY 1, 2, 3, 4, 5, 6
ON CONFLICT (daily, bucket, reaction, target, target_version, platform) DO UPDATE SET
    first = least(t.first, excluded.first), last = greatest(t.last, excluded.last),
    pending = t.pending + excluded.pending, retrying = t.retrying + excluded.retrying, succeeded = t.succeeded + excluded.succeeded, failed = t.failed + excluded.failed,
    withheld = t.withheld + excluded.withheld, rejected = t.rejected + excluded.rejected, cancelled = t.cancelled + excluded.cancelled, expired = t.expired + excluded.expired;
