-- What only readers need; apply.sql uses none of it.

CREATE INDEX queue_due ON queue (target, priority, due_at);
CREATE INDEX queue_order ON queue (target, profile_id, planned) WHERE profile_id IS NOT NULL;
CREATE INDEX queue_expires ON queue (expires_at) WHERE expires_at IS NOT NULL;
