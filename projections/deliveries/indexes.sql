-- What only readers need; apply.sql uses none of it. Each names the question that it is there for; what combines several filters is
-- led by tallies to the quarters of an hour that hold an answer, and reads those off one of these.

-- Everything, newest first, and what lies in a period.
CREATE INDEX deliveries_position ON deliveries (position);
-- What was sent through this target? What was sent before and after it was changed? A platform's are read target by target.
CREATE INDEX deliveries_target ON deliveries (target, position);
-- What was sent for this reaction?
CREATE INDEX deliveries_reaction ON deliveries (reaction, position);
-- What was sent to this person?
CREATE INDEX deliveries_profile ON deliveries (profile_id, position) WHERE profile_id IS NOT NULL;
-- Which firings never became a delivery? Which failed, which wait? Of those that succeeded, tallies know where they are.
CREATE INDEX deliveries_outcome ON deliveries (outcome, position) WHERE outcome <> 'succeeded';
-- Why did they not, of all targets and of one?
CREATE INDEX deliveries_reason ON deliveries (reason, position) WHERE outcome IN ('withheld', 'rejected');
CREATE INDEX deliveries_reason_target ON deliveries (reason, target, position) WHERE outcome IN ('withheld', 'rejected');
-- What was sent to people who were opted out?
CREATE INDEX deliveries_against ON deliveries (against, position) WHERE against IS NOT NULL;
-- What was sent through this target, or for this reaction, by outcome? Counts, and the way of a list that combines filters.
CREATE INDEX tallies_target ON tallies (target, daily, bucket);
CREATE INDEX tallies_reaction ON tallies (reaction, daily, bucket);
-- Which requests have an unknown outcome?
CREATE INDEX attempts_unknown ON attempts (position) WHERE verdict IN ('lost', 'timeout');
