-- targets: what each target is now, and every version that it ever was.

CREATE TABLE targets (
    handle     text COLLATE "C" PRIMARY KEY,
    version    bigint      NOT NULL,  -- of the last target.changed, in the target's stream
    revision   bigint      NOT NULL,  -- of the last event of any kind: what If-Match compares
    state      text        NOT NULL,  -- enabled, disabled or deleted
    reason     text,                  -- why it is in that state
    config     json        NOT NULL,  -- domain.Target
    changed_at timestamptz NOT NULL,
    changed_by text        NOT NULL,
    position   bigint      NOT NULL
);

-- partials: the pieces that templates share, as they are now. Their versions stand in the ledger.
CREATE TABLE partials (
    name       text COLLATE "C" PRIMARY KEY,
    version    bigint      NOT NULL,  -- in the partial's stream
    state      text        NOT NULL,  -- present or deleted
    source     text        NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text        NOT NULL,
    position   bigint      NOT NULL
);

CREATE TABLE target_versions (
    handle     text COLLATE "C" NOT NULL,
    version    bigint      NOT NULL,
    config     json        NOT NULL,
    reason     text,
    changed_at timestamptz NOT NULL,
    changed_by text        NOT NULL,
    position   bigint      NOT NULL,
    PRIMARY KEY (handle, version)
);

-- proposals: changes that need somebody else's approval, and what became of them.
CREATE TABLE proposals (
    handle      text COLLATE "C" NOT NULL,
    number      bigint      NOT NULL,  -- version of target.proposed in the stream of the target's proposals
    state       text        NOT NULL,  -- open, approved or declined
    config      json        NOT NULL,  -- domain.Target
    reason      text,
    restores    bigint,                -- the version that it would roll back to
    base        bigint      NOT NULL,  -- the target's revision that it was decided on: another one now makes it stale
    proposed_at timestamptz NOT NULL,
    proposed_by text        NOT NULL,
    decided_at  timestamptz,
    decided_by  text,
    decision    text,                  -- why, in words
    position    bigint      NOT NULL,  -- of target.proposed
    PRIMARY KEY (handle, number)
);
CREATE INDEX proposals_open ON proposals (position) WHERE state = 'open';
