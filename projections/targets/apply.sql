-- name: every version
-- on: target.changed
INSERT INTO target_versions (handle, version, config, reason, changed_at, changed_by, position)
SELECT target, version, data, data->>'reason', recorded_at, actor, position
FROM slice WHERE type = 'target.changed';

-- name: the version that holds
-- on: target.changed
INSERT INTO targets AS t (handle, version, revision, state, config, changed_at, changed_by, position)
SELECT DISTINCT ON (target) target, version, version, state, data, recorded_at, actor, position
FROM slice WHERE type = 'target.changed'
ORDER BY target, position DESC
ON CONFLICT (handle) DO UPDATE SET
    version = excluded.version, revision = excluded.revision, state = excluded.state, reason = NULL, config = excluded.config,
    changed_at = excluded.changed_at, changed_by = excluded.changed_by, position = excluded.position;

-- name: switched off, on or withdrawn
-- on: target.disabled, target.enabled, target.deleted
UPDATE targets AS t SET
    state = s.state, reason = s.reason, revision = s.version, changed_at = s.recorded_at, changed_by = s.actor, position = s.position
FROM (
    SELECT DISTINCT ON (target) target, state, data->>'reason' AS reason, version, recorded_at, actor, position
    FROM slice WHERE type IN ('target.disabled', 'target.enabled', 'target.deleted')
    ORDER BY target, position DESC
) s
WHERE t.handle = s.target AND s.position > t.position;

-- name: partials as they are
-- on: partial.changed, partial.deleted
INSERT INTO partials AS p (name, version, state, source, changed_at, changed_by, position)
SELECT DISTINCT ON (stream) data->>'name', version, state, coalesce(data->>'source', ''), recorded_at, actor, position
FROM slice WHERE type IN ('partial.changed', 'partial.deleted')
ORDER BY stream, position DESC
ON CONFLICT (name) DO UPDATE SET version = excluded.version, state = excluded.state, source = excluded.source,
    changed_at = excluded.changed_at, changed_by = excluded.changed_by, position = excluded.position;

-- name: a change is proposed
-- on: target.proposed
INSERT INTO proposals (handle, number, state, config, reason, restores, base, proposed_at, proposed_by, position)
SELECT target, version, state, data, data->>'reason', (data->>'restores')::bigint, (data->>'base')::bigint, recorded_at, actor, position
FROM slice WHERE type = 'target.proposed';

-- name: what became of a proposal
-- on: target.approved, target.declined
UPDATE proposals AS p SET state = s.state, decided_at = s.recorded_at, decided_by = s.actor, decision = s.data->>'reason'
FROM slice s
WHERE s.type IN ('target.approved', 'target.declined') AND p.handle = s.target AND p.number = (s.data->>'proposal')::bigint;
