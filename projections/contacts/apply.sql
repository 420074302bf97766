-- What was seen last holds, by the clock of whoever saw it; at equal times something that does not depend on the order of
-- events decides. So the state is the same in whatever order they are heard of.

-- name: addresses that were seen
-- The position is that of the last to see one, found as the greatest pair: no group has to be sorted.
-- on: consent.changed, profile.observed
INSERT INTO contacts AS c (profile_id, channel, hash, first_at, seen_at, position)
SELECT e.subject, h.channel, h.hash, min(e.occurred_at), max(e.occurred_at), (max(ARRAY[(extract(epoch FROM e.occurred_at) * 1000000)::bigint, e.position]))[2]
FROM slice e, json_to_recordset(e.data->'contact_hashes') AS h (channel text, hash text)
WHERE e.type IN ('consent.changed', 'profile.observed') AND e.subject IS NOT NULL AND strpos(e.data::text, '"contact_hashes"') > 0
GROUP BY 1, 2, 3
ON CONFLICT (profile_id, channel, hash) DO UPDATE SET
    first_at = least(c.first_at, excluded.first_at), seen_at = greatest(c.seen_at, excluded.seen_at),
    position = CASE WHEN (excluded.seen_at, excluded.position) > (c.seen_at, c.position) THEN excluded.position ELSE c.position END;

-- name: addresses that are gone
-- on: profile.observed
INSERT INTO contacts AS c (profile_id, channel, hash, first_at, seen_at, position)
SELECT e.subject, h.channel, '', min(e.occurred_at), max(e.occurred_at), (max(ARRAY[(extract(epoch FROM e.occurred_at) * 1000000)::bigint, e.position]))[2]
FROM slice e, json_array_elements_text(e.data->'cleared') AS h (channel)
WHERE e.type = 'profile.observed'
GROUP BY 1, 2
ON CONFLICT (profile_id, channel, hash) DO UPDATE SET
    first_at = least(c.first_at, excluded.first_at), seen_at = greatest(c.seen_at, excluded.seen_at),
    position = CASE WHEN (excluded.seen_at, excluded.position) > (c.seen_at, c.position) THEN excluded.position ELSE c.position END;

-- name: addresses of people who were erased
-- on: profile.erased
INSERT INTO erased_contacts (channel, hash, profile_id, position)
SELECT h.channel, h.hash, e.subject, min(e.position)
FROM slice e, json_to_recordset(e.data->'contact_hashes') AS h (channel text, hash text)
WHERE e.type = 'profile.erased'
GROUP BY 1, 2, 3
ON CONFLICT DO NOTHING;

-- name: who the person is elsewhere
-- on: profile.observed
INSERT INTO identities AS i (handle, hash, profile_id, seen_at, position)
SELECT DISTINCT ON (d.handle, d.hash, e.subject) d.handle, d.hash, e.subject, e.occurred_at, e.position
FROM slice e, json_to_recordset(e.data->'identity_hashes') AS d (handle text, hash text)
WHERE e.type = 'profile.observed'
ORDER BY d.handle, d.hash, e.subject, e.occurred_at DESC, e.position DESC
ON CONFLICT (handle, hash, profile_id) DO UPDATE SET seen_at = excluded.seen_at, position = excluded.position
    WHERE (excluded.seen_at, excluded.position) > (i.seen_at, i.position);

-- name: whether the CRM still has the profile
-- on: profile.observed
INSERT INTO profiles AS p (profile_id, state, observed_at, position)
SELECT DISTINCT ON (subject) subject, state, occurred_at, position
FROM slice WHERE type = 'profile.observed'
ORDER BY subject, occurred_at DESC, state DESC, position DESC
ON CONFLICT (profile_id) DO UPDATE SET state = excluded.state, observed_at = excluded.observed_at, position = excluded.position
    WHERE (excluded.observed_at, excluded.state, excluded.position) > (p.observed_at, p.state, p.position);

-- name: what was reported on addresses; at equal times the worse
-- on: address.reported
INSERT INTO address_facts AS f (profile_id, channel, hash, status, reported_at, reported_by, position)
SELECT DISTINCT ON (1, 2, 3) * FROM (
    SELECT coalesce(e.subject, '00000000-0000-0000-0000-000000000000'), e.channel, coalesce(h.hash, ''), e.state, e.occurred_at, d.reported_by, e.position
    FROM slice e
    CROSS JOIN LATERAL json_to_record(e.data) AS d (reported_by text, contact_hashes json)
    LEFT JOIN LATERAL json_to_recordset(d.contact_hashes) AS h (channel text, hash text) ON h.channel = e.channel
    WHERE e.type = 'address.reported'
) r (profile_id, channel, hash, status, reported_at, reported_by, position)
ORDER BY 1, 2, 3, reported_at DESC, (status IN ('bounced', 'invalid')) DESC, status, reported_by, position DESC
ON CONFLICT (profile_id, channel, hash) DO UPDATE SET
    status = excluded.status, reported_at = excluded.reported_at, reported_by = excluded.reported_by, position = excluded.position
    WHERE excluded.reported_at > f.reported_at
       OR excluded.reported_at = f.reported_at AND
          ((excluded.status IN ('bounced', 'invalid')), f.status, f.reported_by, excluded.position)
        > ((f.status IN ('bounced', 'invalid')), excluded.status, excluded.reported_by, f.position);
