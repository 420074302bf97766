package domain

// LedgerVerified records that the ledger was verified, from its rows up to the signed checkpoints, and what came of it.
type LedgerVerified struct {
	Size        int64  `json:"size" doc:"events that were verified, from the first on"`
	Holds       bool   `json:"holds" doc:"whether everything did"`
	Problems    int    `json:"problems,omitempty" doc:"how many did not"`
	First       string `json:"first,omitempty" doc:"the first of them, in words"`
	Seconds     int64  `json:"seconds" doc:"how long it took"`
	Checkpoints int64  `json:"checkpoints" doc:"signed checkpoints that were compared"`
}

var _ = declare("ledger.verified", 1, FromLedger, "Somebody had the whole ledger verified against its signed checkpoints.", LedgerVerified{Size: 48211, Holds: true, Seconds: 1, Checkpoints: 97})

// Stream is that of all verifications.
func (l LedgerVerified) Stream() string { return "verification" }

// Keys are the result.
func (l LedgerVerified) Keys() Keys {
	if l.Holds {
		return Keys{State: "holds"}
	}
	return Keys{State: "broken"}
}

// Validate accepts what the service made.
func (l LedgerVerified) Validate() error { return nil }
