-- promptness: every opt-out, and what each platform was asked and answered about it.

CREATE TABLE optouts (
    position    bigint           NOT NULL,  -- of the consent.changed event
    channel     text COLLATE "C" NOT NULL,
    purpose     text COLLATE "C" NOT NULL,
    profile_id  uuid             NOT NULL,
    decided_at  timestamptz      NOT NULL,  -- when the person decided
    recorded_at timestamptz      NOT NULL   -- when the ledger heard of it
);

-- One row for each address that a platform was asked to suppress because of a decision.
CREATE TABLE confirmations (
    decision     bigint           NOT NULL,  -- position of the consent.changed event
    platform     text COLLATE "C" NOT NULL,
    channel      text COLLATE "C" NOT NULL,
    hash         text COLLATE "C" NOT NULL,
    decided_at   timestamptz      NOT NULL,
    ordered_at   timestamptz,                -- when it was first asked
    answered_at  timestamptz,                -- when it last answered
    status       text COLLATE "C",           -- its last answer: applied, unchanged, accepted, failed, …
    confirmed_at timestamptz,                -- when it said that it is done, or it was first read back
    PRIMARY KEY (decision, platform, channel, hash)
);

-- When each platform was seen to suppress an address on the whole channel, by a list that was read or by a proven webhook,
-- whether or not it had been asked to.
CREATE TABLE sightings (
    channel  text COLLATE "C" NOT NULL,
    hash     text COLLATE "C" NOT NULL,
    platform text COLLATE "C" NOT NULL,
    seen_at  timestamptz      NOT NULL,
    PRIMARY KEY (channel, hash, platform, seen_at)
);
