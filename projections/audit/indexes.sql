-- What only readers need; apply.sql uses none of it.

CREATE INDEX consent_changes_kind ON consent_changes (kind, position);
