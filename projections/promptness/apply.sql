-- Opt-outs are read off key columns; only events with several answers, and the platforms' entries, from JSON. All times are
-- earliest or latest ones, so that the result is the same however the ledger is sliced.

-- name: opt-outs, one answer an event
-- on: consent.changed
INSERT INTO optouts (position, channel, purpose, profile_id, decided_at, recorded_at)
SELECT position, channel, purpose, subject, occurred_at, recorded_at
FROM slice WHERE type = 'consent.changed' AND state = 'opted_out' AND channel IS NOT NULL;

-- name: opt-outs, several answers in one event
-- on: consent.changed
INSERT INTO optouts (position, channel, purpose, profile_id, decided_at, recorded_at)
SELECT e.position, c.channel, c.purpose, e.subject, e.occurred_at, e.recorded_at
FROM slice e, json_to_recordset(e.data->'changes') AS c (channel text, purpose text, status text)
WHERE e.type = 'consent.changed' AND e.channel IS NULL AND c.status = 'opted_out';

-- name: what platforms were asked, answered and showed
-- on: suppression.ordered, suppression.pushed, suppression.confirmed
INSERT INTO confirmations AS c (decision, platform, channel, hash, decided_at, ordered_at, answered_at, status, confirmed_at)
SELECT n.decision, d.platform, d.channel, n.hash, min(n.decided_at),
       min(e.recorded_at) FILTER (WHERE e.type = 'suppression.ordered'),
       max(d.pushed_at) FILTER (WHERE e.type = 'suppression.pushed'),
       (array_agg(n.status ORDER BY d.pushed_at DESC, e.position DESC) FILTER (WHERE e.type = 'suppression.pushed'))[1],
       min(CASE WHEN e.type = 'suppression.confirmed' THEN d.confirmed_at
                WHEN e.type = 'suppression.pushed' AND n.status IN ('applied', 'unchanged') THEN d.pushed_at END)
FROM slice e
CROSS JOIN LATERAL json_to_record(e.data) AS d (platform text, channel text, intent text, pushed_at timestamptz, confirmed_at timestamptz, entries json)
CROSS JOIN LATERAL json_to_recordset(d.entries) AS n (hash text, decision bigint, decided_at timestamptz, status text)
WHERE e.type IN ('suppression.ordered', 'suppression.pushed', 'suppression.confirmed') AND d.intent = 'suppress' AND n.decision > 0 AND n.decided_at IS NOT NULL
GROUP BY 1, 2, 3, 4
ON CONFLICT (decision, platform, channel, hash) DO UPDATE SET
    decided_at = least(c.decided_at, excluded.decided_at),
    ordered_at = least(c.ordered_at, excluded.ordered_at),
    status = CASE WHEN excluded.answered_at >= coalesce(c.answered_at, '-infinity') THEN excluded.status ELSE c.status END,
    answered_at = greatest(c.answered_at, excluded.answered_at),
    confirmed_at = least(c.confirmed_at, excluded.confirmed_at);

-- name: what platforms' lists show of themselves; a list within the channel is not all of it, and what nothing proves confirms nothing
-- on: suppression.seen
INSERT INTO sightings (channel, hash, platform, seen_at)
SELECT DISTINCT e.channel, n.hash, d.platform, d.seen_at
FROM slice e
CROSS JOIN LATERAL json_to_record(e.data) AS d (platform text, scope json, unproven boolean, seen_at timestamptz, entries json)
CROSS JOIN LATERAL json_to_recordset(d.entries) AS n (hash text)
WHERE e.type = 'suppression.seen' AND d.scope->>'kind' = 'global' AND d.unproven IS NOT TRUE
ON CONFLICT DO NOTHING;
