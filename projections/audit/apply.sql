-- name: where what occurs
INSERT INTO blocks AS b (dimension, name, block, n)
SELECT dimension, name, (position - 1) / 256, count(*)
FROM slice, LATERAL (VALUES ('type', type), ('target', target), ('actor', actor)) AS v (dimension, name)
WHERE name IS NOT NULL
GROUP BY 1, 2, 3
ON CONFLICT (dimension, name, block) DO UPDATE SET n = b.n + excluded.n;

-- name: kinds of consent change
-- on: consent.changed
INSERT INTO consent_kinds (kind, channel, purpose, status, decided_by, method, source)
SELECT DISTINCT md5(concat_ws(chr(31), c.channel, c.purpose, c.status, d.decided_by, coalesce(d.method, ''), s.source))::uuid,
       c.channel, c.purpose, c.status, d.decided_by, coalesce(d.method, ''), s.source
FROM slice e, json_to_record(e.data) AS d (changes json, decided_by text, method text),
     json_to_recordset(d.changes) AS c (channel text, purpose text, status text),
     regexp_replace(e.source, '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '{id}', 'g') AS s (source)
WHERE e.type = 'consent.changed'
ON CONFLICT (kind) DO NOTHING;

-- name: consent changes
-- on: consent.changed
INSERT INTO consent_changes (position, kind, profile_id, decided_at, recorded_at, actor)
SELECT e.position, md5(concat_ws(chr(31), c.channel, c.purpose, c.status, d.decided_by, coalesce(d.method, ''), s.source))::uuid,
       e.subject, d.decided_at, e.recorded_at, e.actor
FROM slice e, json_to_record(e.data) AS d (changes json, decided_by text, method text, decided_at timestamptz),
     json_to_recordset(d.changes) AS c (channel text, purpose text, status text),
     regexp_replace(e.source, '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '{id}', 'g') AS s (source)
WHERE e.type = 'consent.changed';
