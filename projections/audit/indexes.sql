-- What only readers need; apply.sql uses none of it.

ALTER TABLE consent_changes ADD PRIMARY KEY (position, kind);
CREATE INDEX consent_changes_kind ON consent_changes (kind, position);
