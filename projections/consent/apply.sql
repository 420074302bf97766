-- The latest decision by the time it was made; at equal times the opt-out; then the one recorded later. That order is
-- total, so decisions converge in whatever order they arrive. domain.Answer.Supersedes says the same in Go.

-- name: one answer an event, which is nearly every event: read from columns, without touching its JSON
-- on: consent.changed
INSERT INTO consent_state AS s (profile_id, channel, purpose, status, decided_at, position)
SELECT DISTINCT ON (subject, channel, purpose) subject, channel, purpose, state, occurred_at, position
FROM slice WHERE type = 'consent.changed' AND channel IS NOT NULL
ORDER BY subject, channel, purpose, occurred_at DESC, (state = 'opted_out') DESC, position DESC
ON CONFLICT (profile_id, channel, purpose) DO UPDATE
    SET status = excluded.status, decided_at = excluded.decided_at, position = excluded.position
    WHERE (excluded.decided_at, excluded.status = 'opted_out', excluded.position)
        > (s.decided_at, s.status = 'opted_out', s.position);

-- name: several answers in one event
-- on: consent.changed
INSERT INTO consent_state AS s (profile_id, channel, purpose, status, decided_at, position)
SELECT DISTINCT ON (e.subject, c.channel, c.purpose) e.subject, c.channel, c.purpose, c.status, e.occurred_at, e.position
FROM slice e, json_to_recordset(e.data->'changes') AS c (channel text, purpose text, status text)
WHERE e.type = 'consent.changed' AND e.channel IS NULL
ORDER BY e.subject, c.channel, c.purpose, e.occurred_at DESC, (c.status = 'opted_out') DESC, e.position DESC
ON CONFLICT (profile_id, channel, purpose) DO UPDATE
    SET status = excluded.status, decided_at = excluded.decided_at, position = excluded.position
    WHERE (excluded.decided_at, excluded.status = 'opted_out', excluded.position)
        > (s.decided_at, s.status = 'opted_out', s.position);
