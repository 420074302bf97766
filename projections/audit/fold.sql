-- A block is new in nearly every slice; one that lies across two is added up once.

-- name: where what occurs, and what met
WITH seen AS MATERIALIZED (
    SELECT (position - 1) / 256 AS block, type, actor, target, count(*) AS n FROM slice GROUP BY 1, 2, 3, 4
), meeting AS (
    INSERT INTO met (type, actor, target)
    SELECT DISTINCT type, actor, coalesce(target, '') FROM seen
    ON CONFLICT (type, actor, target) DO NOTHING
)
INSERT INTO collected_blocks (dimension, name, block, n)
SELECT 'type', type, block, sum(n) FROM seen GROUP BY 2, 3
UNION ALL
SELECT 'target', target, block, sum(n) FROM seen WHERE target IS NOT NULL GROUP BY 2, 3
UNION ALL
SELECT 'actor', actor, block, sum(n) FROM seen GROUP BY 2, 3;

-- fold: blocks
SELECT dimension, name, block, sum(n) FROM collected_blocks GROUP BY block, name, dimension; -- numbers tell most rows apart, names most of the others
