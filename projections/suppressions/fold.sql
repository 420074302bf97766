-- Whose address a hash is, and what the lists hold, is collected as often as it was heard, and folded once, by the rules of apply.sql.

-- name: what the lists hold
INSERT INTO collected_listed (platform, channel, scope, hash, lifted, by_us, reason, class, native, at, precision, seen_at, via, position)
SELECT d.platform, s.channel,
       CASE WHEN d.scope->>'kind' = 'global' THEN '' ELSE (d.scope->>'kind') || ':' || coalesce(d.scope->>'id', '') END,
       decode(e.hash, 'hex'), s.type = 'suppression.lifted', coalesce(e.echo, false), e.reason, e.class, e.native, e.at, e.precision, d.seen_at, d.via, s.position
FROM slice s, json_to_record(s.data) AS d (platform text, scope json, via text, seen_at timestamptz, entries json),
     json_to_recordset(d.entries) AS e (hash text, reason text, class text, native text, at timestamptz, precision text, echo boolean)
WHERE s.type IN ('suppression.seen', 'suppression.lifted');

-- name: whose address a hash is
INSERT INTO collected_reach (channel, hash, profile_id, named, position)
SELECT h.channel, decode(h.hash, 'hex'), s.subject, strpos(s.data::text, '"platform"') = 0 OR coalesce(s.data->>'decided_by', '') <> 'platform', s.position
FROM slice s, json_to_recordset(s.data->'contact_hashes') AS h (channel text, hash text)
WHERE s.type IN ('consent.changed', 'profile.observed') AND s.subject IS NOT NULL AND strpos(s.data::text, '"contact_hashes"') > 0;

-- fold: listed
SELECT DISTINCT ON (hash, channel, platform, scope) * FROM collected_listed ORDER BY hash, channel, platform, scope, position DESC;

-- fold: reach
SELECT DISTINCT ON (hash, channel, profile_id) * FROM collected_reach ORDER BY hash, channel, profile_id, named DESC, position DESC;
