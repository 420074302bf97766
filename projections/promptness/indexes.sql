-- For readers alone: the events are applied by the primary keys that tables.sql has. Opt-outs are only ever added.

ALTER TABLE optouts ADD PRIMARY KEY (position, channel, purpose);

-- How soon were this person's opt-outs honoured?
CREATE INDEX optouts_profile ON optouts (profile_id, position);
-- How soon were those honoured that were decided in a period?
CREATE INDEX optouts_decided ON optouts (decided_at);
-- How late did the ledger hear of the last day's?
CREATE INDEX optouts_recorded ON optouts (recorded_at);
-- Which has a platform not confirmed?
CREATE INDEX confirmations_open ON confirmations (platform, decided_at) WHERE confirmed_at IS NULL;
