-- consent: the decision that holds for each person, channel and purpose.

-- The latest decision recorded for each profile.
CREATE TABLE consent_state (
    profile_id uuid             NOT NULL,
    channel    text COLLATE "C" NOT NULL,
    purpose    text COLLATE "C" NOT NULL,
    status     text COLLATE "C" NOT NULL,  -- opted_in, opted_out or unknown
    decided_at timestamptz      NOT NULL,  -- when the person decided
    position   bigint           NOT NULL,  -- of the event, which says who, how and with what evidence
    PRIMARY KEY (profile_id, channel, purpose)
);

-- What the CRM merged.
CREATE TABLE merges (
    loser     uuid        NOT NULL,
    winner    uuid        NOT NULL,
    merged_at timestamptz NOT NULL,
    position  bigint      NOT NULL,
    PRIMARY KEY (loser, winner)
);

-- Which profiles are one person, both ways round and each with itself, and since when: since the first moment at which a
-- chain of merges led from one to the other.
CREATE TABLE ties (
    profile_id uuid        NOT NULL,
    other      uuid        NOT NULL,
    since      timestamptz NOT NULL,
    PRIMARY KEY (profile_id, other)
);

-- What the ledger makes of legacy consent: one row, or none for the default policy.
CREATE TABLE consent_policy (
    only_row boolean     PRIMARY KEY CHECK (only_row),
    policy   json        NOT NULL,  -- domain.ConsentPolicy
    position bigint      NOT NULL
);

-- consent_held is the answer that holds for each profile, those that were merged included: what everybody should ask.
--
-- Of merged profiles an answer gives way to a later one that was made when the two were one person already; of those that
-- remain the most restrictive holds. domain.Person.Holds says the same in Go. decided_as is the profile that the answer
-- was given for.
CREATE VIEW consent_held AS
SELECT s.profile_id, s.channel, s.purpose, s.status, s.decided_at, s.position, s.profile_id AS decided_as
FROM consent_state s
WHERE NOT EXISTS (SELECT FROM ties t WHERE t.profile_id = s.profile_id)
UNION ALL
SELECT * FROM (
    SELECT DISTINCT ON (t.profile_id, x.channel, x.purpose) t.profile_id, x.channel, x.purpose, x.status, x.decided_at, x.position, x.profile_id AS decided_as
    FROM ties t JOIN consent_state x ON x.profile_id = t.other
    WHERE NOT EXISTS (
        SELECT FROM ties j JOIN consent_state y ON y.profile_id = j.other AND y.channel = x.channel AND y.purpose = x.purpose
        WHERE j.profile_id = x.profile_id AND y.decided_at > x.decided_at AND y.decided_at > j.since)
    ORDER BY t.profile_id, x.channel, x.purpose,
             CASE x.status WHEN 'opted_out' THEN 2 WHEN 'unknown' THEN 1 ELSE 0 END DESC, x.decided_at DESC, x.position DESC
) merged;
