-- name: where what occurs, and what met
WITH seen AS MATERIALIZED (
    SELECT (position - 1) / 256 AS block, type, actor, target, count(*) AS n FROM slice GROUP BY 1, 2, 3, 4
), meeting AS (
    INSERT INTO met (type, actor, target)
    SELECT DISTINCT type, actor, coalesce(target, '') FROM seen
    ON CONFLICT (type, actor, target) DO NOTHING
)
INSERT INTO blocks AS b (dimension, name, block, n)
SELECT dimension, name, block, sum(n)
FROM seen, LATERAL (VALUES ('type', type), ('target', target), ('actor', actor)) AS v (dimension, name)
WHERE name IS NOT NULL
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
ON CONFLICT (dimension, name, block) DO UPDATE SET n = b.n + excluded.n;

-- name: consent changes and their kinds
-- on: consent.changed
-- Most events give one answer, which stands in columns, as does the time of the decision; the JSON is parsed once for each event, and
-- once more for several.
WITH given AS MATERIALIZED (
    SELECT e.position, e.subject, e.recorded_at, e.occurred_at, e.actor, e.channel, e.purpose, e.state, d.decided_by, coalesce(d.method, '') AS method, d.changes,
           CASE WHEN e.source LIKE '%-%-%-%-%' THEN regexp_replace(e.source, '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '{id}', 'g') ELSE e.source END AS source
    FROM slice e, json_to_record(e.data) AS d (changes json, decided_by text, method text)
    WHERE e.type = 'consent.changed'
), answers AS (
    SELECT g.position, g.subject, g.recorded_at, g.actor, g.decided_by, g.method, g.occurred_at, g.source, g.channel, g.purpose, g.state AS status
    FROM given g WHERE g.channel IS NOT NULL
    UNION ALL
    SELECT g.position, g.subject, g.recorded_at, g.actor, g.decided_by, g.method, g.occurred_at, g.source, c.channel, c.purpose, c.status
    FROM given g, json_to_recordset(g.changes) AS c (channel text, purpose text, status text) WHERE g.channel IS NULL
), told AS (
    SELECT a.*, md5(concat_ws(chr(31), a.channel, a.purpose, a.status, a.decided_by, a.method, a.source))::uuid AS kind FROM answers a
), kinds AS (
    INSERT INTO consent_kinds (kind, channel, purpose, status, decided_by, method, source)
    SELECT DISTINCT t.kind, t.channel, t.purpose, t.status, t.decided_by, t.method, t.source FROM told t
    ON CONFLICT (kind) DO NOTHING
)
INSERT INTO consent_changes (position, kind, profile_id, decided_at, recorded_at, actor)
SELECT t.position, t.kind, t.subject, t.occurred_at, t.recorded_at, t.actor FROM told t;
