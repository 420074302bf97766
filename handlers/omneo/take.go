package omneo

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Source of the events that webhooks become.
const Source = "/omneo"

// SecretName is the named secret that webhooks are signed with.
const SecretName = "omneo_webhook_secret" //nolint:gosec // a name

// hookNamespace is where the ids of webhooks are derived in; it never changes, or a repeat would no longer be recognised.
var hookNamespace = uuid.MustParse("0c8f7e52-53d6-4c9e-8a55-5d0f6d2f9b31")

// Service records webhooks. All fields are required.
type Service struct {
	Ledger *schema.Ledger
	Vault  *schema.Vault
	DB     *sql.DB // with the projections on its search path
	Intake *intake.Service
	Clock  func() time.Time
}

// Taken says what became of a webhook.
type Taken struct {
	ProfileID uuid.UUID  `json:"profile_id,omitzero" doc:"The profile that it is about."`
	Topic     string     `json:"topic" doc:"What it was read as."`
	Events    []Recorded `json:"events" nullable:"false" doc:"What was recorded; empty for a webhook that says nothing of consent, addresses or identities."`
	Duplicate bool       `json:"duplicate" doc:"It was recorded before."`
	Unread    []string   `json:"unread,omitempty" doc:"Fields whose names or values are not understood, and were left out."`
	Ignored   string     `json:"ignored,omitempty" doc:"Why nothing of it was recorded."`
}

// Recorded is one event that a webhook became.
type Recorded struct {
	Type      string `json:"type"`
	Position  int64  `json:"position"`
	Duplicate bool   `json:"duplicate"`
}

// Take records what a webhook says, all of it or nothing, and returns once it is durable. Safe to repeat: a webhook that
// comes again has no effect. actor is who sent it.
//
// Errors: schema.ErrBusy and whatever is schema.Transient; the webhook is to be sent again.
func (s *Service) Take(ctx context.Context, actor string, h Hook) (t Taken, err error) {
	t = Taken{ProfileID: h.Profile.ID, Topic: h.Topic, Events: []Recorded{}, Unread: h.Profile.Unread}
	if h.Profile.ID == uuid.Nil {
		t.Ignored = "it is not about a profile; register this URL for profile.created, profile.updated, profile.merged and profile.deleted"
		return t, nil
	}
	unlock, err := s.lock(ctx, h.Profile.ID)
	if err != nil {
		return t, fmt.Errorf("webhook: %w", err)
	}
	defer unlock()

	r := &record{Service: s, hook: h, digest: sha256.Sum256(h.Body), now: s.Clock().UTC().Truncate(time.Microsecond)}
	if err := r.merges(ctx); err != nil {
		return t, fmt.Errorf("webhook: %w", err)
	}
	if h.Profile.Shown || h.Topic == ProfileDeleted {
		if t.Duplicate, err = r.observe(ctx); err != nil {
			return t, fmt.Errorf("webhook: %w", err)
		}
	}
	if len(r.events) == 0 {
		return t, nil
	}
	for i := range r.events {
		r.events[i].Actor, r.events[i].Source = actor, Source
		r.events[i].CorrelationID = r.events[0].ID
	}
	if err := s.Vault.SealEvents(ctx, r.events, r.secrets); err != nil {
		return t, fmt.Errorf("webhook: %w", err)
	}
	appended, err := s.Ledger.Append(ctx, r.events...)
	if err != nil {
		return t, fmt.Errorf("webhook: %w", err)
	}
	t.Duplicate = true
	for i, a := range appended {
		t.Events = append(t.Events, Recorded{Type: r.events[i].Type, Position: a.Position, Duplicate: a.Duplicate})
		t.Duplicate = t.Duplicate && a.Duplicate
	}
	return t, nil
}

// lock lets webhooks about one profile follow each other, over all processes: each is compared with the one before it.
func (s *Service) lock(ctx context.Context, profile uuid.UUID) (unlock func(), err error) {
	tx, err := schema.Direct(s.DB).BeginTx(ctx, nil) // held while others of the pool are asked for
	if err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || $1, 0))`, ".omneo."+profile.String()); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return func() { tx.Rollback() }, nil // nothing was written; the lock ends with the transaction
}

// record is one webhook on its way into events.
type record struct {
	*Service
	hook    Hook
	digest  [sha256.Size]byte
	now     time.Time
	events  []domain.Event
	secrets [][]byte
}

func (r *record) add(id uuid.UUID, occurred time.Time, p domain.Payload) error {
	e, secret, err := domain.New(id, p)
	if err != nil {
		return err
	}
	e.OccurredAt = occurred
	r.events, r.secrets = append(r.events, e), append(r.secrets, secret)
	return nil
}

// recorded reports whether an event stands in the ledger already.
func (r *record) recorded(ctx context.Context, id uuid.UUID) (bool, error) {
	_, err := schema.EventByID(ctx, r.DB, id)
	if errors.Is(err, schema.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// merges records the merges that are not known yet. Two profiles are merged once, so their ids name the event, whatever
// times are given.
func (r *record) merges(ctx context.Context) error {
	for _, m := range r.hook.Merges {
		id := uuid.NewSHA1(hookNamespace, []byte("merge\x00"+m.WinnerID.String()+m.LoserID.String()))
		if known, err := r.recorded(ctx, id); err != nil || known {
			if err != nil {
				return err
			}
			continue
		}
		if m.MergedAt.IsZero() || m.MergedAt.After(r.now) {
			m.MergedAt = r.now
		}
		if err := r.add(id, m.MergedAt, m); err != nil {
			return err
		}
	}
	return nil
}

// recentMost is how many snapshots of a profile are looked at to find the one before a snapshot. Webhooks that arrive
// further out of order than that are compared with an earlier one, which dates opt-ins earlier and loses nothing.
const recentMost = 32

// observe records the snapshot and what it contains that the one before it did not. It reports whether it was known.
func (r *record) observe(ctx context.Context) (duplicate bool, err error) {
	p := r.hook.Profile
	seen := domain.ProfileObserved{
		ProfileID: p.ID, Topic: r.hook.Topic, ObservedAt: p.At, Dated: !p.At.IsZero(), State: p.State, Cleared: p.Cleared,
		BodySHA256: hex.EncodeToString(r.digest[:]),
	}
	if seen.ObservedAt.IsZero() || seen.ObservedAt.After(r.now) {
		seen.ObservedAt = r.now
	}
	if len(p.Comms) > 0 {
		seen.Comms = p.Comms
	}
	if len(p.Times) > 0 {
		seen.ConsentTimes = map[string]time.Time{}
		for c, at := range p.Times {
			seen.ConsentTimes[string(c)] = at
		}
	}
	if err := r.contacts(&seen); err != nil {
		return false, err
	}

	before, last, err := r.before(ctx, seen)
	if err != nil {
		return false, err
	}
	id := uuid.NewSHA1(hookNamespace, append([]byte(r.hook.Topic+"\x00"+p.ID.String()+"\x00"), r.digest[:]...))
	repeated := false
	if known, err := r.recorded(ctx, id); err != nil {
		return false, err
	} else if known {
		if seen.Dated || last == nil || same(*last, seen) {
			return true, nil
		}
		// The same bytes without a time, after the CRM has shown otherwise: it was changed back, or somebody sends an old
		// webhook again. Nobody can tell; so what it forbids counts, and what it permits does not.
		repeated = true
		id = domain.EventID(id, "again-after-"+last.BodySHA256+last.ObservedAt.String())
	}
	if err := r.add(id, seen.ObservedAt, seen); err != nil {
		return false, err
	}
	if err := r.decisions(ctx, id, before, seen, repeated); err != nil {
		return false, err
	}
	return false, r.addresses(id, before, seen)
}

// contacts puts the addresses and identities into the snapshot, sealed and as hashes.
func (r *record) contacts(seen *domain.ProfileObserved) error {
	p := r.hook.Profile
	for _, a := range []struct {
		channel domain.Channel
		address string
	}{{domain.Email, p.Contact.Email}, {domain.SMS, p.Contact.Mobile}, {domain.Phone, p.Contact.Mobile}} {
		if a.address == "" {
			continue
		}
		h, err := r.Intake.ContactHash(a.channel, a.address)
		if err != nil {
			return err
		}
		seen.ContactHashes = append(seen.ContactHashes, h)
	}
	if p.Contact != (domain.Contact{}) {
		contact := p.Contact
		seen.Contact = &contact
	}
	if len(p.Identities) > 0 {
		seen.Identities = p.Identities
		for handle, identifier := range p.Identities {
			seen.IdentityHashes = append(seen.IdentityHashes, domain.IdentityHash{
				Handle: handle, Hash: hex.EncodeToString(r.Vault.ContactHash("identity:"+handle, identifier)),
			})
		}
		slices.SortFunc(seen.IdentityHashes, func(a, b domain.IdentityHash) int {
			if a.Handle < b.Handle {
				return -1
			}
			return 1
		})
	}
	return nil
}

// before finds the snapshot before one, by the CRM's clock, and the one that was recorded last.
func (r *record) before(ctx context.Context, seen domain.ProfileObserved) (before, last *domain.ProfileObserved, err error) {
	f := schema.Filter{Subject: seen.ProfileID, Types: []string{"profile.observed"}, Descending: true, Limit: recentMost}
	for rec, err := range schema.Events(ctx, r.DB, f) {
		if err != nil {
			return nil, nil, err
		}
		o, err := domain.DecodeAs[domain.ProfileObserved](rec.Data, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("event %d: %w", rec.Position, err)
		}
		if last == nil {
			last = &o
		}
		if !o.ObservedAt.After(seen.ObservedAt) && (before == nil || o.ObservedAt.After(before.ObservedAt)) {
			before = &o
		}
	}
	return before, last, nil
}

func same(a, b domain.ProfileObserved) bool {
	if len(a.Comms) != len(b.Comms) || a.State != b.State {
		return false
	}
	for field, value := range a.Comms {
		if b.Comms[field] != value {
			return false
		}
	}
	return true
}

func snapshot(o domain.ProfileObserved) domain.Snapshot {
	s := domain.Snapshot{At: o.ObservedAt, Comms: o.Comms, ConsentTimes: map[domain.Channel]time.Time{}}
	for c, at := range o.ConsentTimes {
		s.ConsentTimes[domain.Channel(c)] = at
	}
	return s
}

// decisions records the answers that the snapshot contains, one event for each moment and way of deciding.
func (r *record) decisions(ctx context.Context, id uuid.UUID, before *domain.ProfileObserved, seen domain.ProfileObserved, repeated bool) error {
	var earlier *domain.Snapshot
	if before != nil {
		s := snapshot(*before)
		earlier = &s
	}
	known, err := r.known(ctx, seen.ProfileID, before)
	if err != nil {
		return err
	}
	found := domain.Compare(earlier, snapshot(seen), r.hook.Profile.Since, known)
	for len(found) > 0 {
		n := 1
		for n < len(found) && found[n].DecidedAt.Equal(found[0].DecidedAt) && found[n].Method == found[0].Method {
			n++
		}
		c := domain.ConsentChanged{
			ProfileID: seen.ProfileID, DecidedAt: found[0].DecidedAt.UTC(), DecidedBy: found[0].DecidedBy, Method: found[0].Method,
			Evidence: map[string]string{"webhook": r.hook.Topic, "body_sha256": seen.BodySHA256},
		}
		for _, f := range found[:n] {
			if repeated && f.Status == domain.OptedIn {
				continue
			}
			c.Changes = append(c.Changes, f.ConsentChange)
			c.Evidence[f.Field] = f.Value
		}
		if len(c.Changes) > 0 {
			if err := r.add(domain.EventID(id, c.Method+c.DecidedAt.String()), c.DecidedAt, c); err != nil {
				return err
			}
		}
		found = found[n:]
	}
	return nil
}

// known tells when the ledger first heard of a decision on a channel and purpose. Only a first snapshot asks.
func (r *record) known(ctx context.Context, profile uuid.UUID, before *domain.ProfileObserved) (func(domain.Channel, domain.Purpose) time.Time, error) {
	first := map[string]time.Time{}
	if before == nil {
		d, err := consent.Read(ctx, r.DB, profile, consent.AsOf{})
		if err != nil {
			return nil, err
		}
		for _, e := range d.Answers {
			key := string(e.Channel) + "/" + string(e.Purpose)
			if at, ok := first[key]; !ok || e.DecidedAt.Before(at) {
				first[key] = e.DecidedAt
			}
		}
	}
	return func(c domain.Channel, p domain.Purpose) time.Time { return first[string(c)+"/"+string(p)] }, nil
}

// addresses records bounces and verifications that the snapshot shows and the one before it did not.
func (r *record) addresses(id uuid.UUID, before *domain.ProfileObserved, seen domain.ProfileObserved) error {
	for _, f := range domain.CommsFields {
		value := seen.Comms[f.Name]
		was := ""
		if before != nil {
			was = before.Comms[f.Name]
		}
		if f.AliasOf != "" || value == was {
			continue
		}
		a := domain.AddressReported{ProfileID: seen.ProfileID, Channel: f.Channel, ReportedAt: seen.ObservedAt, ReportedBy: "crm", Method: f.Name}
		switch {
		case f.Kind == domain.CommsBounced && value == domain.CommsYes:
			a.Status = domain.AddressBounced
		case f.Kind == domain.CommsBounced && value == domain.CommsNo && was == domain.CommsYes:
			a.Status = domain.AddressWorking
		case f.Kind == domain.CommsVerification && value == "verified":
			a.Status = domain.AddressVerified
		default:
			continue
		}
		for _, h := range seen.ContactHashes {
			if h.Channel == f.Channel {
				a.ContactHashes = []domain.ContactHash{h}
			}
		}
		if err := r.add(domain.EventID(id, f.Name), a.ReportedAt, a); err != nil {
			return err
		}
	}
	return nil
}
