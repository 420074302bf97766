-- What was seen is collected as often as it was seen, and folded once, by the rules of apply.sql.

-- name: addresses that were seen
INSERT INTO collected_contacts (profile_id, channel, hash, first_at, seen_at, position)
SELECT e.subject, h.channel, h.hash, e.occurred_at, e.occurred_at, e.position
FROM slice e, json_to_recordset(e.data->'contact_hashes') AS h (channel text, hash text)
WHERE e.type IN ('consent.changed', 'profile.observed') AND e.subject IS NOT NULL AND strpos(e.data::text, '"contact_hashes"') > 0;

-- name: addresses that are gone
INSERT INTO collected_contacts (profile_id, channel, hash, first_at, seen_at, position)
SELECT e.subject, h.channel, '', e.occurred_at, e.occurred_at, e.position
FROM slice e, json_array_elements_text(e.data->'cleared') AS h (channel)
WHERE e.type = 'profile.observed';

-- name: who the person is elsewhere
INSERT INTO collected_identities (handle, hash, profile_id, seen_at, position)
SELECT d.handle, d.hash, e.subject, e.occurred_at, e.position
FROM slice e, json_to_recordset(e.data->'identity_hashes') AS d (handle text, hash text)
WHERE e.type = 'profile.observed';

-- name: whether the CRM still has the profile
INSERT INTO collected_profiles (profile_id, state, observed_at, position)
SELECT subject, state, occurred_at, position FROM slice WHERE type = 'profile.observed';

-- fold: contacts
SELECT profile_id, channel, hash, min(first_at), max(seen_at), (max(ARRAY[(extract(epoch FROM seen_at) * 1000000)::bigint, position]))[2]
FROM collected_contacts GROUP BY profile_id, channel, hash;

-- fold: identities
SELECT DISTINCT ON (handle, hash, profile_id) * FROM collected_identities ORDER BY handle, hash, profile_id, seen_at DESC, position DESC;

-- fold: profiles
SELECT DISTINCT ON (profile_id) * FROM collected_profiles ORDER BY profile_id, observed_at DESC, state DESC, position DESC;
