-- For readers alone: the events are applied by primary key.

CREATE INDEX contacts_hash ON contacts (hash, channel);
CREATE INDEX address_facts_hash ON address_facts (hash, channel) WHERE hash <> '';
CREATE INDEX identities_profile ON identities (profile_id);
