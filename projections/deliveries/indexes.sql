-- What only readers need; apply.sql uses none of it.

CREATE INDEX deliveries_position ON deliveries (position);
CREATE INDEX deliveries_outcome ON deliveries (outcome, position);
CREATE INDEX deliveries_target ON deliveries (target, outcome, position);
CREATE INDEX deliveries_reaction ON deliveries (reaction, outcome, position);
CREATE INDEX deliveries_platform ON deliveries (platform, outcome, position);
CREATE INDEX deliveries_profile ON deliveries (profile_id, position) WHERE profile_id IS NOT NULL;
CREATE INDEX deliveries_against ON deliveries (position) WHERE against IS NOT NULL;
CREATE INDEX deliveries_reason ON deliveries (reason, position) WHERE outcome IN ('withheld', 'rejected');
CREATE INDEX tallies_target ON tallies (target, target_version, bucket);
CREATE INDEX tallies_reaction ON tallies (reaction, bucket);
CREATE INDEX attempts_unknown ON attempts (position) WHERE verdict IN ('lost', 'timeout');
