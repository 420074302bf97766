-- name: where what occurs, and what met
WITH seen AS MATERIALIZED (
    SELECT (position - 1) / 256 AS block, type, actor, target, count(*) AS n FROM slice GROUP BY 1, 2, 3, 4
), meeting AS (
    INSERT INTO met (type, actor, target)
    SELECT DISTINCT type, actor, coalesce(target, '') FROM seen
    ON CONFLICT (type, actor, target) DO NOTHING
)
INSERT INTO blocks AS b (dimension, name, block, n)
SELECT 'type', type, block, sum(n) FROM seen GROUP BY 2, 3
UNION ALL
SELECT 'target', target, block, sum(n) FROM seen WHERE target IS NOT NULL GROUP BY 2, 3
UNION ALL
SELECT 'actor', actor, block, sum(n) FROM seen GROUP BY 2, 3
ORDER BY 1, 2, 3
ON CONFLICT (dimension, name, block) DO UPDATE SET n = b.n + excluded.n;

-- name: consent changes and their kinds
-- on: consent.changed
-- Most events give one answer, which stands in columns; the JSON is parsed once for each event, and once more for several.
-- There are few kinds in a slice, so what tells them apart is put together for each answer, and only where it differs is it hashed and
-- searched for ids. An event occurred when the person decided.
WITH given AS MATERIALIZED (
    SELECT e.position, e.subject, e.occurred_at, e.recorded_at, e.actor, e.channel, e.purpose, e.state, e.source, d.decided_by, coalesce(d.method, '') AS method,
           CASE WHEN e.channel IS NULL THEN e.data->'changes' END AS changes
    FROM slice e, json_to_record(e.data) AS d (decided_by text, method text)
    WHERE e.type = 'consent.changed'
), answers AS (
    SELECT g.position, g.subject, g.occurred_at, g.recorded_at, g.actor, g.decided_by, g.method, g.source, g.channel, g.purpose, g.state AS status
    FROM given g WHERE g.channel IS NOT NULL
    UNION ALL
    SELECT g.position, g.subject, g.occurred_at, g.recorded_at, g.actor, g.decided_by, g.method, g.source, c.channel, c.purpose, c.status
    FROM given g, json_to_recordset(g.changes) AS c (channel text, purpose text, status text) WHERE g.channel IS NULL
), told AS MATERIALIZED (
    SELECT a.*, concat_ws(chr(31), a.channel, a.purpose, a.status, a.decided_by, a.method, a.source) AS told FROM answers a
), kinds AS MATERIALIZED (
    SELECT g.*, md5(concat_ws(chr(31), g.channel, g.purpose, g.status, g.decided_by, g.method, g.source))::uuid AS kind
    FROM (
        SELECT t.told, min(t.channel) AS channel, min(t.purpose) AS purpose, min(t.status) AS status, min(t.decided_by) AS decided_by, min(t.method) AS method,
               regexp_replace(min(t.source), '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '{id}', 'g') AS source
        FROM told t GROUP BY t.told
    ) g
), new AS (
    INSERT INTO consent_kinds (kind, channel, purpose, status, decided_by, method, source)
    SELECT DISTINCT ON (k.kind) k.kind, k.channel, k.purpose, k.status, k.decided_by, k.method, k.source FROM kinds k
    ON CONFLICT (kind) DO NOTHING
)
INSERT INTO consent_changes (position, kind, profile_id, decided_at, recorded_at, actor)
SELECT t.position, k.kind, t.subject, t.occurred_at, t.recorded_at, t.actor FROM told t JOIN kinds k ON k.told = t.told;
