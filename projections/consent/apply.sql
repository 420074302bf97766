-- The latest decision by the time it was made; at equal times the more restrictive; of two that say the same at the same
-- time the one recorded later is cited. So the state depends on what was decided, and not on the order in which it was
-- heard of. domain.Answer.Supersedes says the same in Go.

-- name: one answer an event
-- Nearly every event is: read from columns, without touching its JSON.
-- on: consent.changed
INSERT INTO consent_state AS s (profile_id, channel, purpose, status, decided_at, position)
SELECT DISTINCT ON (subject, channel, purpose) subject, channel, purpose, state, occurred_at, position
FROM slice WHERE type = 'consent.changed' AND channel IS NOT NULL
ORDER BY subject, channel, purpose, occurred_at DESC, CASE state WHEN 'opted_out' THEN 2 WHEN 'unknown' THEN 1 ELSE 0 END DESC, position DESC
ON CONFLICT (profile_id, channel, purpose) DO UPDATE
    SET status = excluded.status, decided_at = excluded.decided_at, position = excluded.position
    WHERE (excluded.decided_at, CASE excluded.status WHEN 'opted_out' THEN 2 WHEN 'unknown' THEN 1 ELSE 0 END, excluded.position)
        > (s.decided_at, CASE s.status WHEN 'opted_out' THEN 2 WHEN 'unknown' THEN 1 ELSE 0 END, s.position);

-- name: several answers in one event
-- on: consent.changed
INSERT INTO consent_state AS s (profile_id, channel, purpose, status, decided_at, position)
SELECT DISTINCT ON (e.subject, c.channel, c.purpose) e.subject, c.channel, c.purpose, c.status, e.occurred_at, e.position
FROM slice e, json_to_recordset(e.data->'changes') AS c (channel text, purpose text, status text)
WHERE e.type = 'consent.changed' AND e.channel IS NULL
ORDER BY e.subject, c.channel, c.purpose, e.occurred_at DESC, CASE c.status WHEN 'opted_out' THEN 2 WHEN 'unknown' THEN 1 ELSE 0 END DESC, e.position DESC
ON CONFLICT (profile_id, channel, purpose) DO UPDATE
    SET status = excluded.status, decided_at = excluded.decided_at, position = excluded.position
    WHERE (excluded.decided_at, CASE excluded.status WHEN 'opted_out' THEN 2 WHEN 'unknown' THEN 1 ELSE 0 END, excluded.position)
        > (s.decided_at, CASE s.status WHEN 'opted_out' THEN 2 WHEN 'unknown' THEN 1 ELSE 0 END, s.position);

-- name: two profiles are one person; one merge at a time, because each builds on what the ones before it tied
-- on: profile.merged
DO $$
DECLARE m record;
BEGIN
    FOR m IN
        SELECT d.loser_id AS loser, d.winner_id AS winner, d.merged_at, e.position
        FROM slice e, json_to_record(e.data) AS d (winner_id uuid, loser_id uuid, merged_at timestamptz)
        WHERE e.type = 'profile.merged' ORDER BY e.position
    LOOP
        INSERT INTO merges AS t (loser, winner, merged_at, position) VALUES (m.loser, m.winner, m.merged_at, m.position)
        ON CONFLICT (loser, winner) DO UPDATE SET merged_at = excluded.merged_at, position = excluded.position
            WHERE excluded.merged_at < t.merged_at;
        INSERT INTO ties (profile_id, other, since)
        VALUES (m.winner, m.winner, '-infinity'), (m.loser, m.loser, '-infinity') ON CONFLICT DO NOTHING;
        INSERT INTO ties AS t (profile_id, other, since)
        SELECT a, b, min(since) FROM (
            SELECT l.profile_id AS a, w.profile_id AS b, greatest(l.since, w.since, m.merged_at) AS since FROM ties l, ties w WHERE l.other = m.loser AND w.other = m.winner
            UNION ALL
            SELECT w.profile_id, l.profile_id, greatest(l.since, w.since, m.merged_at) FROM ties l, ties w WHERE l.other = m.loser AND w.other = m.winner
        ) path WHERE a <> b GROUP BY a, b
        ON CONFLICT (profile_id, other) DO UPDATE SET since = excluded.since WHERE excluded.since < t.since;
    END LOOP;
END $$;

-- name: what the ledger makes of legacy consent
-- on: consent.policy_changed
INSERT INTO consent_policy AS p (only_row, policy, position)
SELECT true, data, position FROM slice WHERE type = 'consent.policy_changed' ORDER BY position DESC LIMIT 1
ON CONFLICT (only_row) DO UPDATE SET policy = excluded.policy, position = excluded.position;
