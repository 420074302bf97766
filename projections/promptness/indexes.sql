-- For readers alone: the events are applied by primary key.

CREATE INDEX optouts_profile ON optouts (profile_id, position);
CREATE INDEX optouts_recorded ON optouts (recorded_at);
CREATE INDEX confirmations_open ON confirmations (platform, decided_at) WHERE confirmed_at IS NULL;
