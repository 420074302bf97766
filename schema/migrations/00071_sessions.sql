-- Sessions of people at the console. The cookie holds a random secret, this table its hash.

-- +goose Up
CREATE TABLE sessions (
    hash       bytea       PRIMARY KEY,        -- SHA-256 of the cookie's secret
    name       text        NOT NULL,           -- the actor in the ledger
    role       text        NOT NULL,
    method     text        NOT NULL CHECK (method IN ('token', 'oidc')),
    token_id   bigint      REFERENCES api_tokens (id),  -- whose revocation or expiry ends the session
    created_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL,           -- to the minute
    expires_at timestamptz NOT NULL            -- at the latest, however busy
);
CREATE INDEX sessions_name ON sessions (name);
GRANT SELECT, INSERT, DELETE, UPDATE (seen_at) ON sessions TO ledger_service;

-- +goose Down
DROP TABLE sessions;
