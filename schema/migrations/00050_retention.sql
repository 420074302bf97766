-- Retention: what is sealed is sealed under a key of its event type and day as well, so that a day's worth can be
-- forgotten by destroying one key, as a person is by destroying theirs.
--
--   subject_keys ──seals──▶ ( period_keys ──seals──▶ events.sealed )
--
-- And the key that links to people's own pages are sealed under.

-- +goose Up

-- period_keys hold one key for each event type and day on which something of the type was sealed. The end of the type's
-- retention empties the row and keeps it as a tombstone.
CREATE TABLE period_keys (
    type         text COLLATE "C" NOT NULL,
    day          integer          NOT NULL, -- in UTC, counted from 1970-01-01
    wrapping_key integer          REFERENCES wrapping_keys (id),
    wrapped      bytea,           -- 64 bytes of AES-256-SIV key, encrypted under the wrapping key; null once destroyed
    created_at   timestamptz      NOT NULL,
    destroyed_at timestamptz,
    PRIMARY KEY (type, day),
    CONSTRAINT period_keys_alive_or_destroyed CHECK (
        CASE WHEN destroyed_at IS NULL THEN wrapped IS NOT NULL AND wrapping_key IS NOT NULL
             ELSE wrapped IS NULL AND wrapping_key IS NULL END)
);
CREATE INDEX period_keys_alive ON period_keys (type, day) WHERE destroyed_at IS NULL;
ALTER TABLE period_keys SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1);

-- +goose StatementBegin
CREATE FUNCTION refuse_to_restore() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the key of % for day % is destroyed, and that is final', OLD.type, OLD.day USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER destruction_is_final BEFORE UPDATE ON period_keys
    FOR EACH ROW WHEN (OLD.destroyed_at IS NOT NULL) EXECUTE FUNCTION refuse_to_restore();

-- link_keys seal the tokens in links that are sent to people. One row; its keyset may hold several keys.
CREATE TABLE link_keys (
    purpose    text        PRIMARY KEY CONSTRAINT link_keys_purpose CHECK (purpose = 'portal'),
    wrapped    bytea       NOT NULL, -- a Tink deterministic AEAD keyset, encrypted under the master key
    master     text        NOT NULL,
    created_at timestamptz NOT NULL
);

GRANT SELECT, INSERT, UPDATE (wrapping_key, wrapped, destroyed_at) ON period_keys TO ledger_service;
GRANT SELECT, INSERT, UPDATE (wrapped, master) ON link_keys TO ledger_service;

-- +goose Down
DROP TABLE link_keys, period_keys;
DROP FUNCTION refuse_to_restore();
