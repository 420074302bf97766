package reconciler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// ErrNoWebhooks says that the platform sends none that we know how to read.
var ErrNoWebhooks = errors.New("the platform sends no webhooks")

// Received says what became of a webhook.
type Received struct {
	Records int `json:"records" doc:"Suppressions, and their liftings, that it told of."`
	Known   int `json:"known" doc:"Those about somebody of ours."`
	Ignored int `json:"ignored" doc:"Those without an address, of one list alone, or that nothing proves and that would lift something."`
}

// Receive takes in a platform's webhook: body is its raw bytes, which are what was signed. The same notification twice is one
// event. What nothing proves may suppress and may not lift.
//
// Errors: ErrNotConnected, ErrNoWebhooks; platforms.ErrSignature and platforms.ErrInbound, after which nothing was recorded;
// and any that is schema.Transient, after which the sender should try again.
func (s *Service) Receive(ctx context.Context, name string, h http.Header, body []byte) (Received, error) {
	var got Received
	policy, err := suppressions.PolicyOf(ctx, s.DB, name)
	if err != nil || policy.Disabled {
		return got, errors.Join(err, fmt.Errorf("%w: %q", ErrNotConnected, name))
	}
	platform, err := platforms.Lookup(policy.Platform)
	if err != nil {
		return got, err
	}
	if platform.Receive == nil {
		return got, fmt.Errorf("%w: %s", ErrNoWebhooks, platform.Title)
	}
	connection, err := s.connection(ctx, policy.PlatformPolicy)
	if err != nil {
		return got, err
	}
	in, err := platform.Receive(connection)
	if err != nil {
		return got, err
	}
	records, err := in.Decode(h, body)
	var asks platforms.Confirmation
	if errors.As(err, &asks) {
		l, err := s.connect(ctx, policy)
		if err != nil {
			return got, err
		}
		return got, asks.Confirm(ctx, l.client)
	}
	if err != nil {
		return got, err
	}
	l := &link{Policy: policy, platform: platform, caps: platform.Caps}
	for i := range records {
		known, taken, err := s.take(ctx, l, &records[i], i)
		if err != nil {
			return got, err
		}
		got.Records++
		if known {
			got.Known++
		}
		if !taken {
			got.Ignored++
		}
	}
	return got, nil
}

// take records what one notification says.
func (s *Service) take(ctx context.Context, l *link, rec *platforms.Record, place int) (known, taken bool, err error) {
	row, ok := s.row(l, rec.Addr.Channel, rec)
	lifting := rec.State == platforms.Cleared
	if !ok || row.Gone && !lifting || lifting && rec.Unauthenticated {
		return false, false, nil
	}
	now := s.Now().UTC().Truncate(time.Microsecond)
	key := rec.EventKey
	if key == "" {
		key = fmt.Sprint(suppressions.HashOf(row.Hash), row.Reason, row.At.UnixMicro(), place)
	}
	id := func(what string) uuid.UUID { return named(space, "webhook ", l.Name, " ", key, " ", what) }
	hash := suppressions.HashOf(row.Hash)
	holders, err := suppressions.Holders(ctx, s.DB, rec.Addr.Channel, [][]byte{row.Hash})
	if err != nil {
		return false, false, err
	}
	if lifting {
		was, err := suppressions.ListedOf(ctx, s.DB, l.Name, rec.Addr.Channel, [][]byte{row.Hash})
		if err != nil {
			return false, false, err
		}
		for _, w := range was {
			if w.Scope == row.Scope && !w.Lifted {
				row.Class = w.Class
			}
		}
	}
	if row.At.IsZero() {
		row.At, row.Precision = now, string(platforms.UnknownTime)
	}
	if row.Class == "" {
		row.Class = string(platforms.ConsentClass)
	}
	if row.Precision == "" {
		row.Precision = string(platforms.Exact)
	}
	entry := domain.SuppressionEntry{Hash: hash, Reason: row.Reason, Class: row.Class, Native: row.Native, At: row.At.UTC(), Precision: row.Precision}
	if len(holders) == 1 {
		entry.ProfileID = holders[0].Profile
	}
	items := make([]item, 0, 1+len(holders))
	if lifting {
		items = append(items, item{id("lifted"), uuid.Nil, domain.SuppressionLifted{
			Platform: l.Name, Channel: rec.Addr.Channel, Scope: scopeOf(row.Scope), Via: domain.ViaWebhook, SeenAt: now, Entries: []domain.SuppressionEntry{entry},
		}})
	} else {
		items = append(items, item{id("seen"), uuid.Nil, domain.SuppressionSeen{
			Platform: l.Name, Channel: rec.Addr.Channel, Scope: scopeOf(row.Scope), Via: domain.ViaWebhook, Unproven: rec.Unauthenticated, SeenAt: now, EventKey: rec.EventKey,
			Entries: []domain.SuppressionEntry{entry},
		}})
		optOuts, err := s.told(ctx, l, rec, row, holders)
		if err != nil {
			return false, false, err
		}
		items = append(items, optOuts...)
	}
	reports, err := s.toldOfAddress(ctx, l, rec.Addr.Channel, row, lifting, holders)
	if err != nil {
		return false, false, err
	}
	items = append(items, reports...)
	return len(holders) > 0, true, s.record(ctx, Source+"/"+l.Name, now, items)
}

// told is what an opt-out that a platform told of changes here: the consent of whoever has the address, unless they agreed
// later, or the platform speaks of our own push.
func (s *Service) told(ctx context.Context, l *link, rec *platforms.Record, row suppressions.Row, holders []suppressions.Holder) ([]item, error) {
	if row.Class != string(platforms.ConsentClass) {
		return nil, nil
	}
	purposes := l.OptOutMeans
	if row.Scope != "" {
		meaning := l.Scopes[row.Scope]
		if meaning == "" {
			meaning = l.Scopes[rec.Scope.ID]
		}
		if meaning == "" || meaning == domain.ScopeIgnore {
			return nil, nil // the next run asks what it means, or knows that it means nothing
		}
		purposes = []domain.Purpose{domain.Purpose(meaning)}
	}
	decisive, err := suppressions.Undecided(ctx, s.DB, l.Name, rec.Addr.Channel, row.Hash, l.PushedFor, purposes, settledAt(row, s.Now()), l.caps.VerifyAfter+30*time.Second)
	if err != nil {
		return nil, err
	}
	items := make([]item, 0, len(holders))
	for _, holder := range holders {
		if !decisive[holder.Profile] {
			continue
		}
		at := settledAt(row, s.Now())
		reason := row.Reason
		profile := holder.Profile
		items = append(items, s.optOut(l.Name, uuid.Nil, domain.ViaWebhook, suppressions.Difference{
			Channel: rec.Addr.Channel, Scope: row.Scope, Hash: holder.Hash, Profile: &profile, Reason: &reason, TheirsAt: &at,
		}, purposes))
	}
	return items, nil
}

// settledAt is the latest moment that a platform's time can stand for, as the comparison has it.
func settledAt(row suppressions.Row, now time.Time) time.Time {
	at := row.At.UTC()
	switch platforms.Precision(row.Precision) {
	case platforms.Second:
		at = at.Add(time.Second - time.Microsecond)
	case platforms.Day:
		at = at.Truncate(24 * time.Hour).Add(24*time.Hour - time.Microsecond)
	case platforms.Exact, platforms.UnknownTime, platforms.UpperBound:
	}
	if at.After(now) && !row.At.After(now) {
		return now.UTC().Truncate(time.Microsecond)
	}
	return at
}
