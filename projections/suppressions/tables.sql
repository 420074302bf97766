-- suppressions: what the platforms' lists hold, what we wrote to them, and what waits for a person.

CREATE TABLE listed (
    platform  text COLLATE "C" NOT NULL, -- the connection's name
    channel   text COLLATE "C" NOT NULL,
    scope     text COLLATE "C" NOT NULL, -- '' for the whole account, else kind:id
    hash      bytea            NOT NULL, -- of the address
    lifted    boolean          NOT NULL, -- it was on the list, and is no more
    by_us     boolean          NOT NULL, -- lifted, or put there, by ourselves
    reason    text COLLATE "C" NOT NULL,
    class     text COLLATE "C" NOT NULL, -- consent, deliverability or operator
    native    text,
    at        timestamptz,               -- by the platform's clock; when we first saw it where it gives no time
    precision text COLLATE "C" NOT NULL,
    seen_at   timestamptz      NOT NULL, -- by ours
    via       text COLLATE "C" NOT NULL,
    position  bigint           NOT NULL,
    PRIMARY KEY (hash, channel, platform, scope) -- by what tells rows apart, so that it serves whoever has a hash alone too
);

CREATE TABLE pushes (
    platform     text COLLATE "C" NOT NULL,
    channel      text COLLATE "C" NOT NULL,
    hash         bytea            NOT NULL,
    intent       text COLLATE "C" NOT NULL, -- suppress or resubscribe
    profile_id   uuid,
    decision     bigint           NOT NULL, -- position of the consent.changed event that it follows
    decided_at   timestamptz      NOT NULL,
    status       text COLLATE "C" NOT NULL, -- ordered, then what the platform answered
    native       text,
    attempt      int              NOT NULL,
    ordered_at   timestamptz      NOT NULL,
    pushed_at    timestamptz,
    confirmed_at timestamptz,               -- when it was read back
    position     bigint           NOT NULL,
    PRIMARY KEY (platform, channel, hash)
);

-- Whose address a hash is, and where the address itself stands sealed.
CREATE TABLE reach (
    channel    text COLLATE "C" NOT NULL,
    hash       bytea            NOT NULL,
    profile_id uuid             NOT NULL,
    named      boolean          NOT NULL, -- that event names the address itself, sealed; a platform's word has its hash alone
    position   bigint           NOT NULL, -- of the last event that gave it, one that names it before one that does not
    PRIMARY KEY (channel, hash, profile_id)
);

CREATE TABLE platform_policies (
    name       text COLLATE "C" PRIMARY KEY,
    platform   text COLLATE "C" NOT NULL,
    version    bigint           NOT NULL,
    policy     jsonb            NOT NULL,
    actor      text             NOT NULL,
    changed_at timestamptz      NOT NULL,
    position   bigint           NOT NULL
);

CREATE TABLE reconciliation_runs (
    id          uuid PRIMARY KEY,
    platform    text COLLATE "C" NOT NULL,
    mode        text COLLATE "C" NOT NULL,
    "check"     boolean          NOT NULL,
    "trigger"   text COLLATE "C" NOT NULL,
    actor       text             NOT NULL,
    state       text COLLATE "C" NOT NULL, -- running, held, done, partial, stopped or failed
    started_at  timestamptz      NOT NULL,
    finished_at timestamptz,
    error       text,
    held        jsonb,                     -- what it asked, when it would have changed too much
    counts      jsonb,
    position    bigint           NOT NULL  -- of its start
);

CREATE TABLE findings (
    id          uuid PRIMARY KEY,
    platform    text COLLATE "C" NOT NULL,
    run         uuid,
    channel     text COLLATE "C" NOT NULL,
    class       text COLLATE "C" NOT NULL,
    hash        bytea,
    profile_id  uuid,
    scope       text COLLATE "C" NOT NULL,
    amount      bigint           NOT NULL,
    theirs      text,
    ours        text,
    explain     text             NOT NULL,
    action      text COLLATE "C" NOT NULL, -- the one that is proposed
    actions     jsonb            NOT NULL,
    decision    bigint,
    state       text COLLATE "C" NOT NULL, -- open or resolved
    raised_at   timestamptz      NOT NULL,
    resolved_at timestamptz,
    resolved_by text,
    resolution  text COLLATE "C",
    reason      text,
    position    bigint           NOT NULL
);
