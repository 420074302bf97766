-- queue: what is still to be sent, when, and as which attempt. Who is at it stands in the ledger's leases.

CREATE TABLE queue (
    delivery_id uuid             PRIMARY KEY,
    target      text COLLATE "C" NOT NULL,
    attempt     int              NOT NULL,  -- number of the next attempt, from 1
    due_at      timestamptz      NOT NULL,
    planned     bigint           NOT NULL   -- position of the delivery.planned event, which holds the request
);
CREATE INDEX queue_due ON queue (target, due_at);
