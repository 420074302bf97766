-- audit: where to look in the ledger for what happened rarely, and every consent change by its kind.

-- In which 256 positions a type, a target or an actor occurs. An index on events would cost each append; this costs a
-- reader, and leads a search past everything that it is not about.
CREATE TABLE blocks (
    dimension text COLLATE "C" NOT NULL,  -- type, target or actor
    name      text COLLATE "C" NOT NULL,
    block     bigint           NOT NULL,  -- positions from 256 * block + 1
    n         int              NOT NULL,
    PRIMARY KEY (dimension, name, block)
);

-- Which types, actors and targets ever met in one event: those that never did are not looked for, however often each occurs.
CREATE TABLE met (
    type   text COLLATE "C" NOT NULL,
    actor  text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,  -- empty: none
    PRIMARY KEY (type, actor, target)
);

-- A kind of consent change. There are few, so a filter selects some of them, and each is then read off its index.
CREATE TABLE consent_kinds (
    kind       uuid             PRIMARY KEY,  -- MD5 of the rest
    channel    text COLLATE "C" NOT NULL,
    purpose    text COLLATE "C" NOT NULL,
    status     text COLLATE "C" NOT NULL,
    decided_by text COLLATE "C" NOT NULL,
    method     text COLLATE "C" NOT NULL,     -- empty: none was given
    source     text COLLATE "C" NOT NULL      -- of the event, with {id} for each id in it
);
CREATE TABLE consent_changes (
    position    bigint      NOT NULL,
    kind        uuid        NOT NULL,
    profile_id  uuid        NOT NULL,
    decided_at  timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    actor       text        NOT NULL
);
