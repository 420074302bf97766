-- queue: what is still to be sent, when, and as which attempt. Who is at it stands in the ledger's leases.

CREATE TABLE queue (
    delivery_id uuid             PRIMARY KEY,
    target      text COLLATE "C" NOT NULL,
    priority    smallint         NOT NULL,  -- 0 transactional, 1 promotional
    attempt     int              NOT NULL,  -- number of the next attempt, from 1
    base        int              NOT NULL,  -- attempts made before it was last put here; retries are counted from it; attempts that were put off are added
    due_at      timestamptz      NOT NULL,
    expires_at  timestamptz,
    profile_id  uuid,                       -- the person, where the target keeps each person's order
    planned     bigint           NOT NULL,  -- position of the delivery.planned event, which holds the request
    erased      boolean          NOT NULL DEFAULT false,  -- the person was: due at once, to be withheld
    since       bigint           NOT NULL   -- position of the event that put it here
);

-- Targets that are left alone, and those that were: the last word on each.
CREATE TABLE pauses (
    target   text COLLATE "C" PRIMARY KEY,
    cause    text,                          -- null: resumed
    until    timestamptz      NOT NULL,     -- infinity: until somebody resumes it; -infinity: resumed
    reason   text,
    pauses   int              NOT NULL,     -- in a row
    held_since timestamptz    NOT NULL,     -- when the first of them began
    since    timestamptz      NOT NULL,
    position bigint           NOT NULL
);
