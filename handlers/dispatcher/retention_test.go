package dispatcher_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// The retention of rendered requests ends while one waits for its time: nothing is sent, and the delivery says why.
func TestARequestWhoseRetentionHasEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newSink(t, accept)
	w.target("plain", s.URL)
	due := time.Now().Add(time.Second)
	id := w.fire("plain", func(f *domain.ReactionFired) { f.ProfileID, f.NotBefore = uuid.New(), due })
	w.until(id, "planned", func(d deliveries.Delivery) bool { return d.Outcome == domain.Pending })
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	expired, err := w.vault.Expire(t.Context(), tx, "delivery.planned", schema.DayOf(time.Now())+1)
	if err != nil || len(expired.Days) != 1 || tx.Commit() != nil {
		t.Fatalf("expired %+v, %v", expired, err)
	}
	w.dispatch()
	d := w.until(id, "withheld", func(d deliveries.Delivery) bool { return d.Outcome == domain.Withheld })
	if d.Reason != "retention_ended" || s.seen() != 0 {
		t.Errorf("delivery = %+v after %d requests, want none, because the retention has ended", d, s.seen())
	}
	w.verify()
}
