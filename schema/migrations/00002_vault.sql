-- The vault: the keys that personal data is sealed under, the named secrets, and the API tokens.
--
-- These tables are the only ones in the ledger that forget. Everything here is either wrapped (unreadable without the
-- master key, which is never in the database) or a hash, and ledger_reader sees none of it.
--
--   master key ──wraps──▶ wrapping_keys ──wraps──▶ subject_keys ──seals──▶ events.sealed
--       │                      └───────────seals──▶ secret_versions
--       └────────wraps──▶ hash_keys ──hashes──▶ contact addresses, secret fingerprints

-- +goose Up

-- wrapping_keys hold what the master key itself wraps, so that a key management service is asked a few times at start
-- and never once per person. The newest wraps what is new; the others are there until a rotation has emptied them.
CREATE TABLE wrapping_keys (
    id         integer     PRIMARY KEY CONSTRAINT wrapping_keys_count_from_one CHECK (id > 0),
    wrapped    bytea       NOT NULL, -- a Tink AEAD keyset, encrypted under the master key
    master     text        NOT NULL, -- which master key: its fingerprint, or its address in the key management service
    created_at timestamptz NOT NULL
);

-- hash_keys outlive every person and every rotation: a contact hash that is computed next year must equal this year's,
-- or an erased person's opt-out is no longer recognised. Nobody is granted DELETE.
CREATE TABLE hash_keys (
    purpose    text        PRIMARY KEY CONSTRAINT hash_keys_purpose CHECK (purpose IN ('contact', 'fingerprint')),
    wrapped    bytea       NOT NULL, -- a Tink PRF keyset, encrypted under the master key
    master     text        NOT NULL,
    created_at timestamptz NOT NULL
);

-- subject_keys hold one key per person. Erasing the person empties the row and keeps it as a tombstone, so that no
-- second key is ever made for the same subject.
CREATE TABLE subject_keys (
    subject       uuid        PRIMARY KEY,
    -- The reference is what makes rotation safe between processes: a wrapping key cannot be deleted while a subject's
    -- key depends on it, nor used once it is gone.
    wrapping_key  integer     REFERENCES wrapping_keys (id),
    wrapped       bytea,      -- 64 bytes of AES-256-SIV key, encrypted under the wrapping key; null once erased
    created_at    timestamptz NOT NULL,
    erased_at     timestamptz,
    erased_by     text,
    erased_reason text,
    CONSTRAINT subject_keys_alive_or_erased CHECK (
        CASE WHEN erased_at IS NULL
             THEN wrapped IS NOT NULL AND wrapping_key IS NOT NULL AND erased_by IS NULL AND erased_reason IS NULL
             ELSE wrapped IS NULL AND wrapping_key IS NULL AND erased_by <> '' AND erased_reason <> '' END)
);

-- An erased key lives on in the dead version of its row until vacuum passes. Vacuum as soon as a few rows have changed,
-- however large the table.
ALTER TABLE subject_keys SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1);

-- +goose StatementBegin
CREATE FUNCTION refuse_to_revive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'subject % is erased, and erasure is final', OLD.subject USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd

CREATE TRIGGER erasure_is_final BEFORE UPDATE ON subject_keys
    FOR EACH ROW WHEN (OLD.erased_at IS NOT NULL) EXECUTE FUNCTION refuse_to_revive();

-- secrets are what targets need to authenticate: API keys, signing keys. A name has a current version and, while the
-- other side still accepts or uses the old value, the one before it.
CREATE TABLE secrets (
    name        text        PRIMARY KEY CONSTRAINT secrets_name CHECK (name ~ '^[A-Za-z][A-Za-z0-9_.-]{0,127}$'),
    version     integer     NOT NULL CONSTRAINT secrets_version_counts_from_one CHECK (version > 0),
    fingerprint text        NOT NULL, -- keyed hash of the current value: tells whether it changed, not what it is
    updated_at  timestamptz NOT NULL,
    updated_by  text        NOT NULL CONSTRAINT secrets_updated_by_somebody CHECK (updated_by <> '')
);

CREATE TABLE secret_versions (
    name         text    NOT NULL REFERENCES secrets (name) ON DELETE CASCADE,
    version      integer NOT NULL,
    wrapping_key integer NOT NULL REFERENCES wrapping_keys (id),
    sealed       bytea   NOT NULL, -- the value, encrypted under the wrapping key
    PRIMARY KEY (name, version)
);

-- api_tokens keep a SHA-256 of each token and never the token: whoever reads this table cannot sign in with it.
CREATE TABLE api_tokens (
    id           bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    hash         bytea       NOT NULL CONSTRAINT api_tokens_hash_is_sha256 CHECK (octet_length(hash) = 32),
    name         text        NOT NULL CONSTRAINT api_tokens_are_named CHECK (name <> ''),
    role         text        NOT NULL CONSTRAINT api_tokens_role
                             CHECK (role IN ('emitter', 'operator', 'compliance', 'privacy', 'analyst', 'admin')),
    bootstrap    boolean     NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL,
    created_by   text        NOT NULL CONSTRAINT api_tokens_created_by_somebody CHECK (created_by <> ''),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    revoked_by   text,
    last_used_at timestamptz, -- coarse: written at most once a minute
    CONSTRAINT api_tokens_revoked_by_somebody CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE UNIQUE INDEX api_tokens_hash ON api_tokens (hash);
-- A name in the audit trail means one token at a time.
CREATE UNIQUE INDEX api_tokens_live_name ON api_tokens (name) WHERE revoked_at IS NULL;
-- However many processes start at once on an empty ledger, one of them bootstraps it.
CREATE UNIQUE INDEX api_tokens_one_bootstrap ON api_tokens (bootstrap) WHERE bootstrap;

GRANT SELECT, INSERT, DELETE, UPDATE (wrapped, master) ON wrapping_keys TO ledger_service;
GRANT SELECT, INSERT, UPDATE (wrapped, master) ON hash_keys TO ledger_service;
GRANT SELECT, INSERT, UPDATE (wrapping_key, wrapped, erased_at, erased_by, erased_reason) ON subject_keys TO ledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON secrets, secret_versions TO ledger_service;
GRANT SELECT, INSERT, UPDATE (revoked_at, revoked_by, last_used_at) ON api_tokens TO ledger_service;

-- +goose Down
DROP TABLE api_tokens, secret_versions, secrets, subject_keys, hash_keys, wrapping_keys;
DROP FUNCTION refuse_to_revive();
