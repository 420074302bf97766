-- The Merkle tree over the leaves of the events, the checkpoints that sign it, and what others say of those.
--
--   events.leaf ──▶ tiles, level 0 ──▶ tiles, level 1 ──▶ … ──▶ checkpoints ──▶ cosignatures
--
-- All of it is only ever added to. The tree's size is the position of the subscription "tree": its tiles and that
-- cursor move in one transaction.

-- +goose Up

-- tiles hold the full tiles of C2SP tlog-tiles: 256 hashes each, of leaves on level 0, of tiles of the level below
-- above it. What is not full yet follows from the level below, and on level 0 from the events.
--
-- Level 0 repeats events.leaf (32 bytes an event). That is what lets verification name the one event that was
-- rewritten together with its leaf, and proofs outlive the detaching of an archived partition.
CREATE TABLE tiles (
    level  smallint NOT NULL CONSTRAINT tiles_level CHECK (level BETWEEN 0 AND 7),
    n      bigint   NOT NULL CONSTRAINT tiles_count_from_zero CHECK (n >= 0),
    root   bytea    NOT NULL CONSTRAINT tiles_root_is_a_hash CHECK (octet_length(root) = 32),       -- of the subtree over the hashes: one hash of the level above
    hashes bytea    NOT NULL CONSTRAINT tiles_hold_256_hashes CHECK (octet_length(hashes) = 8192),
    PRIMARY KEY (level, n)
);
ALTER TABLE tiles ALTER COLUMN hashes SET STORAGE EXTERNAL; -- hashes do not compress; out of line, roots read fast

-- checkpoints are kept for ever: each says that the tree of this size had this root, over the log's signature.
CREATE TABLE checkpoints (
    size      bigint PRIMARY KEY CONSTRAINT checkpoints_size CHECK (size >= 0),
    root      bytea  NOT NULL CONSTRAINT checkpoints_root_is_a_hash CHECK (octet_length(root) = 32),
    note      text   NOT NULL,             -- C2SP tlog-checkpoint, a signed note, as it was signed
    signed_at timestamptz NOT NULL         -- our clock; the note itself carries no time
);

-- cosignatures are what witnesses say: "this is the largest tree that I have seen of this log, and it continues
-- the one before" (C2SP tlog-cosignature).
CREATE TABLE cosignatures (
    size        bigint NOT NULL REFERENCES checkpoints (size),
    witness     text   NOT NULL,           -- the witness's key: its name and key id
    line        text   NOT NULL,           -- the signature line, as it follows the checkpoint
    cosigned_at timestamptz NOT NULL,      -- the witness's clock, under its signature
    PRIMARY KEY (size, witness)
);

-- signing_keys are the log's own. Private keys are wrapped by the master key, and destroyed on retirement; public ones stay, because the
-- checkpoints that they verify do.
CREATE TABLE signing_keys (
    id         text PRIMARY KEY,           -- the verifier without its key: origin and key id, such as example.org/ledger+3f9a12c4
    verifier   text NOT NULL,              -- the public key, as C2SP signed-note writes it
    wrapped    bytea,                      -- a Tink Ed25519 keyset under the master key; null once retired
    master     text NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz,
    CONSTRAINT signing_keys_alive_or_retired CHECK ((wrapped IS NULL) = (retired_at IS NOT NULL))
);

CREATE TRIGGER tiles_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON tiles
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER checkpoints_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER cosignatures_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON cosignatures
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON tiles, checkpoints, cosignatures TO ledger_service;
GRANT SELECT ON tiles, checkpoints, cosignatures TO ledger_reader;
GRANT SELECT, INSERT, UPDATE (wrapped, master, retired_at) ON signing_keys TO ledger_service;
GRANT SELECT (id, verifier, created_at, retired_at) ON signing_keys TO ledger_reader;

-- +goose Down
DROP TABLE cosignatures, checkpoints, signing_keys, tiles;
