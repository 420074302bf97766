-- The keys under which work travels to dispatchers that have no connection to this database.

-- +goose Up

-- fleet_keys: epoch 0 is the ledger's identity (an HPKE key pair, to which a dispatcher addresses its request to join); each
-- later epoch is one AES key that the jobs and outcomes of its time are sealed under. A new epoch begins when a dispatcher's
-- token is revoked, and daily. All are wrapped by the master key.
CREATE TABLE fleet_keys (
    epoch      bigint      PRIMARY KEY CHECK (epoch >= 0),
    wrapped    bytea       NOT NULL,
    master     text        NOT NULL,
    created_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, DELETE, UPDATE (wrapped, master) ON fleet_keys TO ledger_service;

-- A dispatcher's token opens nothing over HTTP: it is for joining the fleet.
ALTER TABLE api_tokens DROP CONSTRAINT api_tokens_role;
ALTER TABLE api_tokens ADD CONSTRAINT api_tokens_role
    CHECK (role IN ('emitter', 'operator', 'compliance', 'privacy', 'analyst', 'admin', 'dispatcher'));

-- +goose Down
DELETE FROM api_tokens WHERE role = 'dispatcher';
ALTER TABLE api_tokens DROP CONSTRAINT api_tokens_role;
ALTER TABLE api_tokens ADD CONSTRAINT api_tokens_role
    CHECK (role IN ('emitter', 'operator', 'compliance', 'privacy', 'analyst', 'admin'));
DROP TABLE fleet_keys;
