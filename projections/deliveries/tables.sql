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
    against         text COLLATE "C",           -- sent against the person's answer: the reason of the decision that flagged it
    changed         bigint           NOT NULL   -- position of the last event that changed this row
);

-- How many deliveries were planned in a period, by what they are now: each delivery is counted in its quarter of an hour and in
-- its day, so that a count over any time is a sum over whole days and the quarters at its ends. A row is made with its first
-- delivery. Lists are led by it too: it says where on the way back in time there is something to find, and where not to look.
CREATE TABLE tallies (
    daily          boolean          NOT NULL,  -- of a day in UTC; otherwise of a quarter of an hour
    bucket         timestamptz      NOT NULL,  -- its beginning
    reaction       text COLLATE "C" NOT NULL,
    target         text COLLATE "C" NOT NULL,
    target_version bigint           NOT NULL,  -- 0: there was no such target
    platform       text COLLATE "C" NOT NULL,  -- empty: the same
    first          bigint           NOT NULL,  -- positions that its deliveries lie between
    last           bigint           NOT NULL,
    pending        bigint           NOT NULL,
    retrying       bigint           NOT NULL,
    succeeded      bigint           NOT NULL,
    failed         bigint           NOT NULL,
    withheld       bigint           NOT NULL,
    rejected       bigint           NOT NULL,
    cancelled      bigint           NOT NULL,
    expired        bigint           NOT NULL,
    PRIMARY KEY (daily, bucket, reaction, target, target_version, platform)
) WITH (fillfactor = 60); -- its rows change in place

-- How attempts were answered in each quarter of an hour, and how long they took.
CREATE TABLE answers (
    bucket   timestamptz      NOT NULL,
    target   text COLLATE "C" NOT NULL,
    verdict  text COLLATE "C" NOT NULL,
    n        bigint           NOT NULL,
    PRIMARY KEY (bucket, target, verdict)
);
CREATE TABLE latencies (
    bucket timestamptz NOT NULL,
    class  int         NOT NULL,  -- at most 2^(class/2) milliseconds, and more than the class below
    n      bigint      NOT NULL,
    PRIMARY KEY (bucket, class)
);

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
    consent         json,                       -- domain.Decision, where it differs from the plan's
    recorded_at     timestamptz      NOT NULL,
    PRIMARY KEY (delivery_id, attempt, position)
);

-- What else happened to a delivery after it was planned.
CREATE TABLE turns (
    delivery_id     uuid             NOT NULL,
    position        bigint           NOT NULL,
    outcome         text COLLATE "C" NOT NULL,  -- withheld, cancelled, expired; retrying: it was put off; pending: it was put back into the queue
    attempt         int,                        -- the attempt that it kept from being made, or the next one
    reason          text,
    detail          text,
    due_at          timestamptz,
    actor           text COLLATE "C" NOT NULL,
    recorded_at     timestamptz      NOT NULL,
    PRIMARY KEY (delivery_id, position)
);
