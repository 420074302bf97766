package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// What is broadcast says of whom and of what: both of a merge, and nobody whom a payload only mentions.
func TestFencesAreMadeOfEvents(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	db, vault, _ := fleet(t)
	l := schema.OpenLedger(db, nil, nil)
	defer l.Close()
	winner, loser, person, delivery, fired := uuid.New(), uuid.New(), uuid.New(), uuid.New(), uuid.New()
	var events []domain.Event
	for _, payload := range []domain.Payload{
		domain.ProfileMerged{WinnerID: winner, LoserID: loser, MergedAt: time.Now()},
		domain.ProfileErased{ProfileID: person, Reason: "asked"},
		domain.DeliveryCancelled{DeliveryID: delivery, Target: "welcome", ProfileID: fired, Reason: "a mistake"},
		domain.TargetDisabled{Handle: "closed", Reason: "moved"},
		domain.SecretRetired{Name: "api_key"},
		domain.TargetEnabled{Handle: "open"},
	} {
		e, _, err := domain.New(uuid.New(), payload)
		if err != nil {
			t.Fatal(err)
		}
		e.Actor, e.Source = "test", "/test"
		events = append(events, e)
	}
	appended, err := l.Append(t.Context(), events...)
	if err != nil {
		t.Fatal(err)
	}
	last := appended[len(appended)-1].Position
	k := newKeys(t, 1)
	p := newPump(b, db, vault, k, time.Now)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if failure, err := schema.Attempt(t.Context(), tx, schema.Slice{From: 0, To: last}, p.handle); err != nil || failure != nil {
		t.Fatal(failure, err)
	}
	stream, err := b.js.Stream(t.Context(), b.of(streamFences))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := stream.GetLastMsgForSubject(t.Context(), b.fence())
	if err != nil {
		t.Fatal(err)
	}
	msg := message.NewMessage("", raw.Data)
	msg.Metadata.Set(epochHeader, raw.Header.Get(epochHeader))
	var got fence
	if _, err := k.open("fence", msg, &got); err != nil {
		t.Fatal(err)
	}
	want := []string{profileKey(winner), profileKey(loser), profileKey(person), deliveryKey(delivery), targetKey("closed"), secretKey("api_key")}
	slices.Sort(want)
	if !slices.Equal(got.Keys, want) {
		t.Errorf("the fence is for %v, want %v", got.Keys, want)
	}
	if got.Position != last-1 {
		t.Errorf("the fence is of event %d, want %d: what overtakes nothing makes none", got.Position, last-1)
	}
}
