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
INSERT INTO attempts (delivery_id, attempt, position, started_at, duration_ms, status, verdict, reason, outcome, next_attempt_at, address, worker)
SELECT e.delivery_id, d.attempt, e.position, coalesce(d.started_at, d.claimed_at), d.duration_ms, d.status, coalesce(d.verdict, 'lost'),
       d.reason, e.state, d.next_attempt_at, d.address, d.worker
FROM slice e, json_to_record(e.data) AS d (attempt int, started_at timestamptz, claimed_at timestamptz, duration_ms double precision, status int,
       verdict text, reason text, next_attempt_at timestamptz, address text, worker text)
WHERE e.type IN ('delivery.attempted', 'delivery.attempt_lost');

-- name: what became of it
-- on: delivery.attempted, delivery.attempt_lost, delivery.withheld
-- The first settled outcome stands, whatever else is still reported of an earlier attempt; only a success overrules
-- it, because then the platform did take it. That makes the result the same however the ledger is sliced.
UPDATE deliveries AS t SET
    outcome         = CASE WHEN wins THEN s.outcome ELSE t.outcome END,
    reason          = CASE WHEN wins THEN s.reason ELSE t.reason END,
    detail          = CASE WHEN wins THEN s.detail ELSE t.detail END,
    next_attempt_at = CASE WHEN wins THEN s.next_attempt_at ELSE t.next_attempt_at END,
    finished_at     = CASE WHEN wins THEN s.finished_at ELSE t.finished_at END,
    attempts        = greatest(t.attempts, s.attempts),
    changed         = s.changed
FROM (
    SELECT DISTINCT ON (e.delivery_id) e.delivery_id, e.state AS outcome,
           CASE WHEN e.type = 'delivery.withheld' THEN d.reason ELSE coalesce(d.verdict, 'lost') END AS reason,
           CASE WHEN e.type = 'delivery.withheld' THEN d.detail ELSE d.reason END AS detail,
           CASE WHEN e.state = 'retrying' THEN d.next_attempt_at END AS next_attempt_at,
           CASE WHEN e.state <> 'retrying' THEN e.recorded_at END AS finished_at,
           max(CASE WHEN e.type <> 'delivery.withheld' THEN d.attempt ELSE d.attempt - 1 END) OVER w AS attempts,
           max(e.position) OVER w AS changed
    FROM slice e, json_to_record(e.data) AS d (attempt int, verdict text, reason text, detail text, next_attempt_at timestamptz)
    WHERE e.type IN ('delivery.attempted', 'delivery.attempt_lost', 'delivery.withheld') AND d.attempt IS NOT NULL
    WINDOW w AS (PARTITION BY e.delivery_id)
    ORDER BY e.delivery_id, (e.state = 'succeeded') DESC, (e.state <> 'retrying') DESC,
             CASE WHEN e.state = 'retrying' THEN -e.position ELSE e.position END
) s
JOIN deliveries b ON b.delivery_id = s.delivery_id, -- the row before: what is being updated cannot be named here
LATERAL (SELECT b.finished_at IS NULL OR s.outcome = 'succeeded' AND b.outcome <> 'succeeded') AS x (wins)
WHERE t.delivery_id = s.delivery_id;
