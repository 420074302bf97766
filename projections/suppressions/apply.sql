-- The last event about an address holds, in the order of the ledger. What many rows have in common comes last among the
-- sort keys: hashes tell rows apart at once.

-- name: what the lists hold
-- on: suppression.seen, suppression.lifted
INSERT INTO listed AS l (platform, channel, scope, hash, lifted, by_us, reason, class, native, at, precision, seen_at, via, position)
SELECT DISTINCT ON (4, 1, 2, 3) d.platform, s.channel,
       CASE WHEN d.scope->>'kind' = 'global' THEN '' ELSE (d.scope->>'kind') || ':' || coalesce(d.scope->>'id', '') END,
       decode(e.hash, 'hex'), s.type = 'suppression.lifted', coalesce(e.echo, false), e.reason, e.class, e.native, e.at, e.precision, d.seen_at, d.via, s.position
FROM slice s, json_to_record(s.data) AS d (platform text, scope json, via text, seen_at timestamptz, entries json),
     json_to_recordset(d.entries) AS e (hash text, reason text, class text, native text, at timestamptz, precision text, echo boolean)
WHERE s.type IN ('suppression.seen', 'suppression.lifted')
ORDER BY 4, 1, 2, 3, s.position DESC
ON CONFLICT (platform, channel, scope, hash) DO UPDATE
    SET lifted = excluded.lifted, by_us = excluded.by_us, reason = excluded.reason, class = excluded.class, native = excluded.native, at = excluded.at,
        precision = excluded.precision, seen_at = excluded.seen_at, via = excluded.via, position = excluded.position;

-- name: what was written to them
-- on: suppression.ordered, suppression.pushed
INSERT INTO pushes AS p (platform, channel, hash, intent, profile_id, decision, decided_at, status, native, attempt, ordered_at, pushed_at, position)
SELECT DISTINCT ON (3, 1, 2) d.platform, s.channel, decode(e.hash, 'hex'), d.intent, e.profile_id, e.decision, e.decided_at, coalesce(e.status, 'ordered'), e.native,
       coalesce(e.attempt, 1), coalesce(e.ordered_at, s.occurred_at, s.recorded_at), d.pushed_at, s.position
FROM slice s, json_to_record(s.data) AS d (platform text, intent text, pushed_at timestamptz, entries json),
     json_to_recordset(d.entries) AS e (hash text, profile_id uuid, decision bigint, decided_at timestamptz, status text, native text, attempt int, ordered_at timestamptz)
WHERE s.type IN ('suppression.ordered', 'suppression.pushed')
ORDER BY 3, 1, 2, s.position DESC
ON CONFLICT (platform, channel, hash) DO UPDATE
    SET intent = excluded.intent, profile_id = excluded.profile_id, decision = excluded.decision, decided_at = excluded.decided_at, status = excluded.status,
        native = excluded.native, attempt = excluded.attempt, ordered_at = excluded.ordered_at, pushed_at = excluded.pushed_at, confirmed_at = NULL, position = excluded.position;

-- name: what was read back, of the change that stands
-- on: suppression.confirmed
UPDATE pushes p SET confirmed_at = c.confirmed_at
FROM (
    SELECT DISTINCT ON (1, 2, 3, 4, 5) d.platform, s.channel, decode(e.hash, 'hex') AS hash, d.intent, e.decision, d.confirmed_at, s.position
    FROM slice s, json_to_record(s.data) AS d (platform text, intent text, confirmed_at timestamptz, entries json),
         json_to_recordset(d.entries) AS e (hash text, decision bigint)
    WHERE s.type = 'suppression.confirmed'
    ORDER BY 1, 2, 3, 4, 5, s.position DESC
) c
WHERE (p.platform, p.channel, p.hash, p.intent, p.decision) = (c.platform, c.channel, c.hash, c.intent, c.decision) AND p.position < c.position;

-- name: whose address a hash is
-- on: consent.changed, profile.observed
INSERT INTO reach AS r (channel, hash, profile_id, named, position)
SELECT DISTINCT ON (2, 1, 3) h.channel, decode(h.hash, 'hex'), s.subject, coalesce(d.decided_by, '') <> 'platform', s.position
FROM slice s, json_to_record(s.data) AS d (decided_by text, contact_hashes json), json_to_recordset(d.contact_hashes) AS h (channel text, hash text)
WHERE s.type IN ('consent.changed', 'profile.observed') AND s.subject IS NOT NULL AND strpos(s.data::text, '"contact_hashes"') > 0
ORDER BY 2, 1, 3, 4 DESC, s.position DESC
ON CONFLICT (channel, hash, profile_id) DO UPDATE SET named = excluded.named, position = excluded.position
    WHERE excluded.named >= r.named;

-- name: policies
-- on: platform.policy_changed
INSERT INTO platform_policies AS p (name, platform, version, policy, actor, changed_at, position)
SELECT DISTINCT ON (s.stream) s.data->'policy'->>'name', s.data->'policy'->>'platform', s.version, (s.data->'policy')::jsonb, s.actor, s.recorded_at, s.position
FROM slice s WHERE s.type = 'platform.policy_changed'
ORDER BY s.stream, s.position DESC
ON CONFLICT (name) DO UPDATE
    SET platform = excluded.platform, version = excluded.version, policy = excluded.policy, actor = excluded.actor, changed_at = excluded.changed_at, position = excluded.position;

-- name: runs that began
-- on: reconciliation.started
INSERT INTO reconciliation_runs (id, platform, mode, "check", "trigger", actor, state, started_at, position)
SELECT (data->>'id')::uuid, data->>'platform', data->>'mode', coalesce((data->>'check')::boolean, false), data->>'trigger', actor, 'running', coalesce(occurred_at, recorded_at), position
FROM slice WHERE type = 'reconciliation.started'
ON CONFLICT (id) DO NOTHING;

-- name: what runs asked
-- on: reconciliation.held
UPDATE reconciliation_runs r SET held = s.data::jsonb
FROM slice s WHERE s.type = 'reconciliation.held' AND r.id = (s.data->>'id')::uuid;

-- name: runs that asked, went on or ended
-- on: reconciliation.held, reconciliation.approved, reconciliation.finished
UPDATE reconciliation_runs r SET state = s.state, finished_at = s.finished_at, counts = s.counts, error = s.error
FROM (
    SELECT DISTINCT ON ((data->>'id')::uuid) (data->>'id')::uuid AS id, state,
           CASE WHEN type = 'reconciliation.finished' THEN coalesce(occurred_at, recorded_at) END AS finished_at,
           (data->'counts')::jsonb AS counts, data->>'error' AS error
    FROM slice WHERE type IN ('reconciliation.held', 'reconciliation.approved', 'reconciliation.finished')
    ORDER BY (data->>'id')::uuid, position DESC
) s WHERE r.id = s.id;

-- name: findings
-- on: finding.raised
INSERT INTO findings (id, platform, run, channel, class, hash, profile_id, scope, amount, theirs, ours, explain, action, actions, decision, state, raised_at, position)
SELECT DISTINCT ON ((data->>'id')::uuid) (data->>'id')::uuid, data->>'platform', (data->>'run')::uuid, data->>'channel', data->>'class', decode(data->>'hash', 'hex'), (data->>'profile_id')::uuid,
       coalesce(data->>'scope', ''), (data->>'count')::bigint, data->>'theirs', data->>'ours', data->>'explain', data->>'action', (data->'actions')::jsonb,
       (data->>'decision')::bigint, 'open', coalesce(occurred_at, recorded_at), position
FROM slice WHERE type = 'finding.raised'
ORDER BY (data->>'id')::uuid, position
ON CONFLICT (id) DO NOTHING;

-- name: findings that were decided on
-- on: finding.resolved
UPDATE findings f SET state = 'resolved', resolved_at = s.at, resolved_by = s.actor, resolution = s.action, reason = s.reason
FROM (
    SELECT DISTINCT ON ((data->>'id')::uuid) (data->>'id')::uuid AS id, coalesce(occurred_at, recorded_at) AS at, actor, data->>'action' AS action, data->>'reason' AS reason
    FROM slice WHERE type = 'finding.resolved' ORDER BY (data->>'id')::uuid, position
) s WHERE f.id = s.id AND f.state = 'open';
