-- For readers alone: the events are applied by primary key.

CREATE INDEX pushes_unconfirmed ON pushes (platform, channel, decided_at) WHERE confirmed_at IS NULL;
CREATE INDEX pushes_profile ON pushes (profile_id);
CREATE INDEX reach_profile ON reach (profile_id, channel);
CREATE INDEX reconciliation_runs_platform ON reconciliation_runs (platform, position);
CREATE INDEX findings_open ON findings (platform, state, position);
CREATE INDEX findings_basis ON findings (platform, channel, class, hash);
CREATE INDEX findings_profile ON findings (profile_id);
