package importer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// Columns of a file besides the CRM's field names, by their aliases.
var columns = map[string]string{
	"profile_id": "profile_id", "id": "profile_id", "omneo_id": "profile_id",
	"email": "email", "mobile": "mobile", "mobile_phone": "mobile", "phone_number": "mobile",
	"channel": "channel", "purpose": "purpose", "category": "purpose", "status": "status",
	"decided_at": "decided_at", "consent_date": "decided_at", "decided_by": "decided_by", "method": "method", "source": "method", "note": "note",
}

// Columns lists the columns that a file may have besides the CRM's field names and evidence.*.
func Columns() []string {
	var names []string
	for name := range columns {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// canonical names a column; empty when it is none that is known.
func canonical(name string) string {
	name = strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(name)))
	if known, ok := columns[name]; ok {
		return known
	}
	if evidence, ok := strings.CutPrefix(name, "evidence."); ok && evidence != "" {
		return "evidence." + evidence
	}
	if f, ok := domain.LookupComms(name); ok {
		return "comms." + f.Name
	}
	return ""
}

// Row is one record of a file, by canonical column name. A column that is absent or empty says nothing.
type Row struct {
	Line   int64
	Values map[string]string
}

// RejectedError says what is wrong with a record, without repeating what stands in it.
type RejectedError struct {
	Field  string
	Reason string
}

func (e *RejectedError) Error() string { return strings.TrimSpace(e.Field + " " + e.Reason) }

func reject(field, format string, args ...any) error {
	return &RejectedError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// statuses are the answers in the words that files have for them.
var statuses = map[string]domain.ConsentStatus{
	"opted_in": domain.OptedIn, "in": domain.OptedIn, "yes": domain.OptedIn, "true": domain.OptedIn, "1": domain.OptedIn, "subscribed": domain.OptedIn,
	"opted_out": domain.OptedOut, "out": domain.OptedOut, "no": domain.OptedOut, "false": domain.OptedOut, "0": domain.OptedOut, "unsubscribed": domain.OptedOut,
	"unknown": domain.Unknown, "null": domain.Unknown,
}

// Defaults fill in what a file does not say of every record.
type Defaults struct {
	DecidedAt time.Time // zero: a record without a time is rejected
	DecidedBy string    // import by default
	Method    string
}

// decisions gives the decisions that a record holds, one for each moment; none when it answers nothing.
func (r Row) decisions(d Defaults) ([]domain.ConsentChanged, error) {
	base, err := r.person(d)
	if err != nil {
		return nil, err
	}
	decided, err := r.time("decided_at")
	if err != nil {
		return nil, err
	}
	if decided.IsZero() {
		decided = d.DecidedAt
	}
	byTime := map[time.Time]*domain.ConsentChanged{}
	var order []time.Time
	add := func(at time.Time, by string, ch domain.ConsentChange) {
		c, ok := byTime[at]
		if !ok {
			made := base
			made.DecidedAt, made.DecidedBy = at, by
			c = &made
			byTime[at] = c
			order = append(order, at)
		}
		c.Changes = append(c.Changes, ch)
	}
	if r.Values["channel"] != "" || r.Values["purpose"] != "" || r.Values["status"] != "" {
		ch, err := r.long()
		if err != nil {
			return nil, err
		}
		if decided.IsZero() {
			return nil, reject("decided_at", "is empty; give the time of the decision, or a time for the whole file with --decided-at")
		}
		add(decided, base.DecidedBy, ch)
	}
	for _, f := range domain.CommsFields {
		value, ok := r.Values["comms."+f.Name]
		if !ok || value == "" || f.AliasOf != "" && r.Values["comms."+f.AliasOf] != "" || f.Kind != domain.CommsOptIn && f.Kind != domain.CommsOptOut {
			continue
		}
		given, ok := statuses[strings.ToLower(value)]
		if !ok {
			return nil, reject(f.Name, "is not yes, no or null")
		}
		if given == domain.Unknown || f.Kind == domain.CommsOptOut && given == domain.OptedOut {
			continue // never asked, or not opted out of everything: nobody said anything
		}
		status := given
		if f.Kind == domain.CommsOptOut {
			status = domain.OptedOut
		}
		at, by := decided, base.DecidedBy
		if f.Purpose == domain.Promo {
			own, err := r.time("comms." + string(f.Channel) + "_consent_updated_at")
			if err != nil {
				return nil, err
			}
			if !own.IsZero() {
				at, by = own, "customer" // the CRM has this time for decisions of the customer's own
			}
		}
		if at.IsZero() {
			return nil, reject("decided_at", "is empty; give the time of the decision, or a time for the whole file with --decided-at")
		}
		add(at, by, domain.ConsentChange{Channel: f.Channel, Purpose: f.Purpose, Status: status})
	}
	var out []domain.ConsentChanged
	for _, at := range order {
		if err := byTime[at].Validate(); err != nil {
			return nil, err
		}
		out = append(out, *byTime[at])
	}
	return out, nil
}

// person reads whose record it is and what is said of all its decisions.
func (r Row) person(d Defaults) (domain.ConsentChanged, error) {
	c := domain.ConsentChanged{DecidedBy: d.DecidedBy, Method: d.Method, Note: r.Values["note"]}
	var err error
	if c.ProfileID, err = uuid.Parse(r.Values["profile_id"]); err != nil || c.ProfileID == uuid.Nil || len(r.Values["profile_id"]) != 36 {
		return c, reject("profile_id", "is no UUID: give the CRM's id of the person")
	}
	if by := strings.ToLower(r.Values["decided_by"]); by != "" {
		if !slices.Contains(domain.DecidedBy, by) {
			return c, reject("decided_by", "is none of %v", domain.DecidedBy)
		}
		c.DecidedBy = by
	}
	if m := r.Values["method"]; m != "" {
		c.Method = m
	}
	if len(c.Method) > 128 || len(c.Note) > 4096 {
		return c, reject("method", "or note is too long")
	}
	contact := domain.Contact{Email: r.Values["email"], Mobile: r.Values["mobile"]}
	if contact != (domain.Contact{}) {
		if _, err := domain.NormalizeEmail(contact.Email); contact.Email != "" && err != nil {
			return c, reject("email", "is no email address")
		}
		if _, err := domain.NormalizePhone(contact.Mobile, ""); contact.Mobile != "" && err != nil {
			return c, reject("mobile", "is no telephone number in international form (+61…)")
		}
		c.Contact = &contact
	}
	for name, value := range r.Values {
		if evidence, ok := strings.CutPrefix(name, "evidence."); ok && value != "" {
			if c.Evidence == nil {
				c.Evidence = map[string]string{}
			}
			c.Evidence[evidence] = value
		}
	}
	return c, nil
}

// long reads a record that is one answer: channel, purpose, status.
func (r Row) long() (domain.ConsentChange, error) {
	ch := domain.ConsentChange{Channel: domain.Channel(strings.ToLower(r.Values["channel"])), Purpose: domain.Purpose(strings.ToLower(r.Values["purpose"]))}
	var ok bool
	switch ch.Status, ok = statuses[strings.ToLower(r.Values["status"])]; {
	case !slices.Contains(domain.Channels, ch.Channel):
		return ch, reject("channel", "is none of %v", domain.Channels)
	case !slices.Contains(domain.Purposes, ch.Purpose):
		return ch, reject("purpose", "is none of %v", domain.Purposes)
	case !ok:
		return ch, reject("status", "is not opted_in, opted_out or unknown")
	}
	return ch, nil
}

func (r Row) time(column string) (time.Time, error) {
	value := r.Values[column]
	if value == "" {
		return time.Time{}, nil
	}
	at, precision := platforms.ParseTime(value, time.UTC)
	if precision == platforms.UnknownTime || at.Year() < 1900 || at.Year() > 9999 {
		return at, reject(strings.TrimPrefix(column, "comms."), "is no time such as 2026-11-23T04:05:06Z")
	}
	return at.Truncate(time.Microsecond), nil
}

// event makes the event of a decision. Its id follows from what it says.
func event(c domain.ConsentChanged, correlation uuid.UUID) (intake.Event, error) {
	slices.SortFunc(c.Changes, func(a, b domain.ConsentChange) int {
		return strings.Compare(string(a.Channel)+"/"+string(a.Purpose), string(b.Channel)+"/"+string(b.Purpose))
	})
	data, err := json.Marshal(c)
	if err != nil {
		return intake.Event{}, err
	}
	sum := sha256.Sum256(data)
	return intake.Event{ID: hex.EncodeToString(sum[:]), Source: Source, Type: domain.TypeOf(c), CorrelationID: correlation, Data: data}, nil
}
