package domain

import (
	"cmp"
	"slices"
	"time"
)

// Snapshot is the CRM's communication preferences of a profile as it showed them at some time. The CRM keeps the last
// value and no history, so what was decided follows from what two snapshots show differently.
type Snapshot struct {
	At           time.Time             // when the CRM showed it, by the CRM's clock where it says
	Comms        map[string]string     // as in ProfileObserved.Comms
	ConsentTimes map[Channel]time.Time // as in ProfileObserved.ConsentTimes
}

// Found is one answer that a snapshot contains and the one before it did not.
type Found struct {
	ConsentChange
	DecidedAt time.Time
	DecidedBy string // customer where the CRM says so; admin for an edit; import for what was there from the start
	Method    string
	Field     string // of the CRM
	Value     string // yes, no or null
}

// The methods of decisions that come out of the CRM's snapshots.
const (
	MethodCRMCustomer = "crm_customer"   // the customer's own, with the time at which they made it
	MethodCRMEdit     = "crm_edit"       // somebody at work, or a program, changed the CRM's value
	MethodCRMBaseline = "crm_first_seen" // it was there when the ledger first saw the profile
)

// Compare gives the answers that a snapshot contains and the one before it did not. before is nil for the first one of a
// profile; known gives the time of the first decision that the ledger has on a channel and purpose, zero for none; since is
// when the CRM began to have these preferences, zero when it does not say.
//
// A marketing decision of the customer's carries its own time, and counts from then. Any other change happened somewhere
// between the two snapshots, and nobody knows when. It is dated so that it can do no harm: a stricter answer as late as it
// can have been made, the time of this snapshot; a more permissive one as early, just after the snapshot before. So an
// opt-out that reached the ledger by another way in between stands, until the CRM has shown that it knows of it and
// somebody changes it there again.
func Compare(before *Snapshot, now Snapshot, since time.Time, known func(Channel, Purpose) time.Time) []Found {
	var out []Found
	for _, f := range CommsFields {
		value, shown := now.Comms[f.Name]
		status, answers := f.Status(value)
		if !shown || !answers || f.AliasOf != "" {
			continue
		}
		found := Found{ConsentChange: ConsentChange{f.Channel, f.Purpose, status}, Field: f.Name, Value: value}
		if before.decide(now, f, &found) {
			out = append(out, found)
			continue
		}
		var earlier string
		seen := false
		if before != nil {
			earlier, seen = before.Comms[f.Name]
		}
		was, _ := f.Status(earlier)
		switch {
		case !seen && (status == Unknown || f.Kind == CommsOptOut && status == OptedIn):
			continue // nobody has ever said anything
		case !seen:
			found.DecidedBy, found.Method = "import", MethodCRMBaseline
			found.DecidedAt = now.At
			if status == OptedIn {
				found.DecidedAt = baseline(now.At, since, known(f.Channel, f.Purpose))
			}
		case was == status:
			continue
		default:
			found.DecidedBy, found.Method = "admin", MethodCRMEdit
			found.DecidedAt = now.At
			if status.restriction() < was.restriction() {
				if at := before.At.Add(time.Microsecond); at.Before(now.At) {
					found.DecidedAt = at
				}
			}
		}
		out = append(out, found)
	}
	slices.SortStableFunc(out, func(a, b Found) int { return cmp.Or(a.DecidedAt.Compare(b.DecidedAt), cmp.Compare(a.Method, b.Method)) })
	return out
}

// decide reports whether the field is a marketing decision of the customer's that the snapshot before did not show.
func (before *Snapshot) decide(now Snapshot, f CommsField, found *Found) bool {
	at := now.ConsentTimes[f.Channel]
	if f.Purpose != Promo || at.IsZero() || at.After(now.At.Add(clockSkew)) {
		return false
	}
	if before != nil && before.ConsentTimes[f.Channel].Equal(at) {
		return false // already shown; if the value is another one now, somebody edited it since
	}
	found.DecidedAt, found.DecidedBy, found.Method = at, "customer", MethodCRMCustomer
	return true
}

// baseline dates an opt-in that the CRM had before the ledger first saw the profile: as early as it can have been, and
// before whatever the ledger heard from elsewhere.
func baseline(at, since, known time.Time) time.Time {
	if !since.IsZero() && since.Before(at) {
		at = since
	}
	if !known.IsZero() && !known.After(at) {
		at = known.Add(-time.Microsecond)
	}
	return at
}

// clockSkew is how far the CRM's clocks may be apart before a time is not believed.
const clockSkew = 5 * time.Minute
