-- Every answer is collected; the one that holds is found once, in the order of apply.sql.

-- name: one answer an event
INSERT INTO collected_consent_state (profile_id, channel, purpose, status, decided_at, position)
SELECT subject, channel, purpose, state, occurred_at, position
FROM slice WHERE type = 'consent.changed' AND channel IS NOT NULL;

-- name: several answers in one event
INSERT INTO collected_consent_state (profile_id, channel, purpose, status, decided_at, position)
SELECT e.subject, c.channel, c.purpose, c.status, e.occurred_at, e.position
FROM slice e, json_to_recordset(e.data->'changes') AS c (channel text, purpose text, status text)
WHERE e.type = 'consent.changed' AND e.channel IS NULL;

-- fold: consent_state
SELECT DISTINCT ON (profile_id, channel, purpose) * FROM collected_consent_state
ORDER BY profile_id, channel, purpose, decided_at DESC, CASE status WHEN 'opted_out' THEN 2 WHEN 'unknown' THEN 1 ELSE 0 END DESC, position DESC;
