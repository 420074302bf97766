-- deliveries: the audit trail, one row for each delivery and one for each attempt.

CREATE TABLE deliveries (
    delivery_id     uuid             PRIMARY KEY,
    position        bigint           NOT NULL,  -- of the event that answered the firing; the order of lists
    firing_id       uuid             NOT NULL,
    firing_position bigint           NOT NULL,
    reaction        text COLLATE "C" NOT NULL,
    trigger         text,
    cause           text             NOT NULL,
    target          text COLLATE "C" NOT NULL,
    target_version  bigint,
    platform        text COLLATE "C",
    profile_id      uuid,
    outcome         text COLLATE "C" NOT NULL,
    reason          text,                       -- why it is withheld, rejected or failed: a code
    detail          text,                       -- the same in a sentence
    consent         json,                       -- domain.Decision
    unresolved      json,                       -- []domain.Unresolved
    body_sha256     text,
    max_attempts    int,
    planned_at      timestamptz      NOT NULL,
    finished_at     timestamptz,
    next_attempt_at timestamptz,
    attempts        int              NOT NULL,
    changed         bigint           NOT NULL   -- position of the last event that changed this row
);
CREATE INDEX deliveries_position ON deliveries (position);
CREATE INDEX deliveries_target ON deliveries (target, position);
CREATE INDEX deliveries_profile ON deliveries (profile_id, position) WHERE profile_id IS NOT NULL;
CREATE INDEX deliveries_outcome ON deliveries (outcome, position);

CREATE TABLE attempts (
    delivery_id     uuid             NOT NULL,
    attempt         int              NOT NULL,
    position        bigint           NOT NULL,
    started_at      timestamptz      NOT NULL,
    duration_ms     double precision,
    status          int,
    verdict         text COLLATE "C" NOT NULL,
    reason          text,
    outcome         text COLLATE "C" NOT NULL,
    next_attempt_at timestamptz,
    address         text,
    worker          text,
    timings         json,                       -- domain.Timings
    body_sha256     text,
    probe           boolean          NOT NULL,
    recorded_at     timestamptz      NOT NULL,
    PRIMARY KEY (delivery_id, attempt, position)
);

-- What else happened to a delivery after it was planned.
CREATE TABLE turns (
    delivery_id     uuid             NOT NULL,
    position        bigint           NOT NULL,
    outcome         text COLLATE "C" NOT NULL,  -- withheld, cancelled, expired; pending: it was put back into the queue
    attempt         int,                        -- the attempt that it kept from being made, or the next one
    reason          text,
    detail          text,
    due_at          timestamptz,
    actor           text COLLATE "C" NOT NULL,
    recorded_at     timestamptz      NOT NULL,
    PRIMARY KEY (delivery_id, position)
);
