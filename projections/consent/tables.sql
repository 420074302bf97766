-- consent: the decision that holds for each person, channel and purpose.

CREATE TABLE consent_state (
    profile_id uuid             NOT NULL,
    channel    text COLLATE "C" NOT NULL,
    purpose    text COLLATE "C" NOT NULL,
    status     text COLLATE "C" NOT NULL,  -- opted_in, opted_out or unknown
    decided_at timestamptz      NOT NULL,  -- when the person decided
    position   bigint           NOT NULL,  -- of the event, which says who, how and with what evidence
    PRIMARY KEY (profile_id, channel, purpose)
);
