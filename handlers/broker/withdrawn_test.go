package broker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// begun is a Sender that remembers when it began which deliveries.
type begun struct {
	mu sync.Mutex
	at map[uuid.UUID]time.Time
}

func (b *begun) Send(_ context.Context, r outbound.Request) (outbound.Outcome, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[r.DeliveryID] = time.Now()
	return outbound.Outcome{Attempt: domain.DeliveryAttempted{StartedAt: time.Now(), Status: 200}, Verdict: platforms.Verdict{Kind: domain.Accepted}}, nil
}

func (b *begun) when(delivery uuid.UUID) (time.Time, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, ok := b.at[delivery]
	return at, ok
}

// pair is a writer and a dispatcher with a real broker between, over a real ledger.
type pair struct {
	ledger *schema.Ledger
	writer *Writer
	sender *begun
}

func newPair(t *testing.T) pair {
	t.Helper()
	server, err := StartEmbedded(EmbeddedConfig{Dir: t.TempDir(), Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	c := Config{URL: server.URL(), Ledger: "ledger", Replicas: 1}
	db, vault, tokens := fleet(t)
	p := pair{ledger: schema.OpenLedger(db, nil, nil), sender: &begun{at: map[uuid.UUID]time.Time{}}}
	t.Cleanup(p.ledger.Close)
	p.writer, err = NewWriter(t.Context(), WriterConfig{
		Broker: c, DB: db, Vault: vault, Tokens: tokens, Now: time.Now,
		Intake: &intake.Service{Ledger: p.ledger, Vault: vault, Clock: time.Now},
		Adopt:  func(context.Context, uuid.UUID, int, outbound.Outcome) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	fences, err := p.writer.Fences(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	topic, err := schema.OpenTopic(db, p.ledger, "", schema.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	if err := projections.AddTo(t.Context(), router, topic, fences.Subscription, fences.Handle); err != nil {
		t.Fatal(err)
	}
	d, err := NewDispatcher(t.Context(), DispatchConfig{Broker: c, Join: vault.Fleet, Sender: p.sender, Name: "test/1", Capacity: 8, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	run := func(what string, f func(context.Context) error) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	run("writer", p.writer.Run)
	run("fences", router.Run)
	t.Cleanup(func() { topic.Close() })
	run("dispatcher", d.Run)
	return p
}

func (p pair) append(t *testing.T, payload domain.Payload) int64 {
	t.Helper()
	e, _, err := domain.New(uuid.New(), payload)
	if err != nil {
		t.Fatal(err)
	}
	e.Actor, e.Source = "test", "/test"
	appended, err := p.ledger.Append(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return appended[0].Position
}

// Whatever withdraws what was decided before it overtakes the queue: a job that was claimed before is sent back within the bound,
// by a dispatcher that has heard of it over the broker alone. One that was claimed with knowledge of it is sent.
func TestWithdrawalsOvertakeTheQueue(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	person, merged, cancelled, target := uuid.New(), uuid.New(), uuid.New(), "welcome"
	address := domain.ContactHash{Channel: domain.Email, Hash: strings.Repeat("ab", 32)}
	job := func(known int64) outbound.Request {
		return outbound.Request{
			DeliveryID: uuid.New(), Attempt: 1, ProfileID: person, Target: target, Known: known, Timeout: time.Second,
			Secrets: map[string]string{"api_key": "x"}, People: []uuid.UUID{merged}, Addresses: []domain.ContactHash{address},
		}
	}
	for name, payload := range map[string]domain.Payload{
		"the policy":                   domain.ConsentPolicyChanged{ConsentPolicy: domain.DefaultConsentPolicy()},
		"an opt-out of a merged other": optOut(merged),
		"an opt-out":                   optOut(person),
		"a bounce of the address":      domain.AddressReported{Channel: domain.Email, Status: domain.AddressBounced, ReportedAt: time.Now(), ReportedBy: "crm", ContactHashes: []domain.ContactHash{address}},
		"a changed profile":            domain.ProfileObserved{ProfileID: person, Topic: "profile.updated", ObservedAt: time.Now(), State: domain.ProfileActive, Cleared: []domain.Channel{domain.Email}, BodySHA256: strings.Repeat("0", 64)},
		"a merge":                      domain.ProfileMerged{WinnerID: uuid.New(), LoserID: merged, MergedAt: time.Now()},
		"an erasure":                   domain.ProfileErased{ProfileID: person, Reason: "asked"},
		"the target's pause":           domain.TargetPaused{Handle: target, Cause: domain.PausedByOperator, Reason: "a mistake in it"},
		"the target's end":             domain.TargetDisabled{Handle: target, Reason: "moved"},
		"the secret's rotation":        domain.SecretRetired{Name: "api_key"},
		"a cancellation":               domain.DeliveryCancelled{DeliveryID: cancelled, Target: target, ProfileID: person, Reason: "a mistake"},
	} {
		before, err := p.ledger.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.send(t, job(before), name+", before it")
		at := p.append(t, payload)
		recorded := time.Now()
		for {
			j := job(at - 1)
			if name == "a cancellation" {
				j.DeliveryID = cancelled
			}
			out, err := p.writer.Send(t.Context(), j)
			if err == nil {
				out.Recorded()
			}
			if began, ok := p.sender.when(j.DeliveryID); ok && began.Sub(recorded) > Staleness {
				t.Fatalf("%s: a request that was decided on before it began %s after it was recorded", name, began.Sub(recorded))
			}
			if errors.Is(err, outbound.ErrReturned) && strings.Contains(err.Error(), ErrFenced.Error()) {
				break
			}
		}
		p.send(t, job(at), name+", known")
	}
}

// send has a job sent that nothing forbids, however often it comes back for the moment's sake.
func (p pair) send(t *testing.T, r outbound.Request, what string) {
	t.Helper()
	for {
		out, err := p.writer.Send(t.Context(), r)
		if err == nil {
			out.Recorded()
			return
		}
		if !errors.Is(err, outbound.ErrReturned) || strings.Contains(err.Error(), ErrFenced.Error()) {
			t.Fatalf("%s: %v", what, err)
		}
		r.Attempt++
	}
}

func optOut(profile uuid.UUID) domain.Payload {
	return domain.ConsentChanged{
		ProfileID: profile, DecidedAt: time.Now(), DecidedBy: "customer",
		Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.PurposeAll, Status: domain.OptedOut}},
	}
}
