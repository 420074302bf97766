-- contacts: whose address is which, now and before; whether it works; and who a person is elsewhere. Addresses and
-- identifiers appear as keyed hashes alone.

-- Every address that a profile was seen with. An empty hash is the news that it has none on the channel any more.
CREATE TABLE contacts (
    profile_id uuid             NOT NULL,
    channel    text COLLATE "C" NOT NULL,
    hash       text COLLATE "C" NOT NULL,  -- domain.ContactHash.Hash
    first_at   timestamptz      NOT NULL,  -- when it was first seen, by the clock of whoever saw it
    seen_at    timestamptz      NOT NULL,  -- and when last
    position   bigint           NOT NULL,  -- of the event that saw it last
    PRIMARY KEY (profile_id, channel, hash)
);

-- current_contacts is the address that each profile has on each channel: the one seen last.
CREATE VIEW current_contacts AS
SELECT * FROM (
    SELECT DISTINCT ON (profile_id, channel) profile_id, channel, hash, first_at, seen_at, position
    FROM contacts ORDER BY profile_id, channel, seen_at DESC, hash DESC
) c WHERE hash <> '';

-- The addresses of people who were erased, those that only sealed data had named included: whoever has one of them now is
-- taken for the same person as far as an opt-out goes.
CREATE TABLE erased_contacts (
    channel    text COLLATE "C" NOT NULL,
    hash       text COLLATE "C" NOT NULL,
    profile_id uuid             NOT NULL,
    position   bigint           NOT NULL,  -- of the profile.erased event
    PRIMARY KEY (channel, hash, profile_id)
);

-- The last report on each address, or, with an empty hash, on whatever address a profile has; the nil UUID stands where
-- the profile is not known.
CREATE TABLE address_facts (
    profile_id  uuid             NOT NULL,
    channel     text COLLATE "C" NOT NULL,
    hash        text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,  -- bounced, invalid, verified or working
    reported_at timestamptz      NOT NULL,
    reported_by text             NOT NULL,
    position    bigint           NOT NULL,
    PRIMARY KEY (profile_id, channel, hash)
);

-- Who a profile is in other systems.
CREATE TABLE identities (
    handle     text COLLATE "C" NOT NULL,  -- klaviyo, shopify, loyalty-card, …
    hash       text COLLATE "C" NOT NULL,
    profile_id uuid             NOT NULL,
    seen_at    timestamptz      NOT NULL,
    position   bigint           NOT NULL,
    PRIMARY KEY (handle, hash, profile_id)
);

-- The profiles that the CRM has told of, and whether it still has them.
CREATE TABLE profiles (
    profile_id  uuid             PRIMARY KEY,
    state       text COLLATE "C" NOT NULL,  -- active or deleted
    observed_at timestamptz      NOT NULL,
    position    bigint           NOT NULL   -- of the profile.observed event
);
