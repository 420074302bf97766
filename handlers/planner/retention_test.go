package planner_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// The retention of contexts ends before a firing is planned: it is withheld, and says why.
func TestAFiringWhoseContextHasExpired(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.target(t, "plain", nil)
	e, secret, err := domain.New(uuid.New(), domain.ReactionFired{Reaction: "r", Target: "plain", ProfileID: jane, Cause: "reaction", Context: json.RawMessage(`{"n":1,"profile":{"first_name":"Jane"}}`)})
	if err != nil {
		t.Fatal(err)
	}
	e.Actor, e.Source = "test", "/test"
	events := []domain.Event{e}
	if err := d.vault.SealEvents(t.Context(), events, [][]byte{secret}); err != nil {
		t.Fatal(err)
	}
	at, err := d.ledger.Append(t.Context(), events...)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := d.ledger.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	expired, err := d.vault.Expire(t.Context(), tx, "reaction.fired", schema.DayOf(time.Now())+1)
	if err != nil || len(expired.Days) != 1 || tx.Commit() != nil {
		t.Fatalf("expired %+v, %v", expired, err)
	}
	d.apply(t, schema.Slice{From: at[0].Position - 1, To: at[0].Position})
	var answers []domain.Recorded
	for rec, err := range schema.Events(t.Context(), d.ledger.DB(), schema.Filter{After: at[0].Position}) {
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, rec)
	}
	if len(answers) != 1 {
		t.Fatalf("%d answers", len(answers))
	}
	w, err := domain.DecodeAs[domain.DeliveryWithheld](answers[0].Data, nil)
	if err != nil || w.Reason != "retention_ended" {
		t.Errorf("answer = %s %+v, %v, want it withheld because the retention has ended", answers[0].Type, w, err)
	}
}
