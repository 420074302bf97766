-- Merges and changes of policy are few and concern everybody's consent: whoever asks reads what was recorded of them since
-- the projection last moved, whosever it is.

-- +goose Up
CREATE INDEX events_consent_rules ON events (position) WHERE type IN ('profile.merged', 'consent.policy_changed');

-- +goose Down
DROP INDEX events_consent_rules;
