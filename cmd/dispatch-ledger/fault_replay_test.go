package main

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// TestKillWithinAReplay kills the process while it is at a page of a replay, and sends what it put back meanwhile. The next one
// goes on: each delivery is put back once, none is passed over, and none is taken twice but after an attempt of unknown outcome.
func TestKillWithinAReplay(t *testing.T) {
	t.Parallel()
	const many = 400 // two pages
	var mended atomic.Bool
	w := &faultWorld{url: schematest.Open(t).URL, dataDir: t.TempDir(), engine: &engine{accepted: map[string]int64{}}, stop: func() {}}
	w.sink = newSinkThat(t, func() (takes bool, answer http.HandlerFunc) {
		takes = mended.Load()
		return takes, func(w http.ResponseWriter, _ *http.Request) {
			if !takes {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			<-time.After(5 * time.Millisecond) // requests in flight when the process dies
			w.WriteHeader(http.StatusAccepted)
		}
	})
	p := startProgram(t, w.url, w.dataDir)
	w.engine.at(p.address)
	w.applyTarget(t)
	db := w.connect(t)
	until := func(what, query string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for holds := false; !holds; {
			if err := db.QueryRowContext(ctx, query).Scan(&holds); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	firing, ctx := errgroup.WithContext(t.Context())
	firing.SetLimit(16)
	for range many {
		firing.Go(func() error { return w.engine.fire(ctx, "sink") })
	}
	if err := firing.Wait(); err != nil {
		t.Fatal(err)
	}
	until("all fail", `SELECT count(*) = 400 FROM deliveries WHERE outcome = 'failed'`)
	mended.Store(true)

	w.run(t, "", "deliveries", "replay", "--target", "sink", "--reason", "it was mended", "--detach")
	caught := 0
	for range *strikes {
		until("the next page is begun", `SELECT state <> 'running' OR page_from IS NOT NULL AND EXISTS (
			SELECT FROM events e WHERE e.position > r.page_from + 20 AND e.type = 'delivery.requeued') FROM replays r`)
		p.kill()
		var within bool
		if err := db.QueryRowContext(t.Context(), `SELECT state = 'running' AND page_from IS NOT NULL FROM replays`).Scan(&within); err != nil {
			t.Fatal(err)
		}
		if within {
			caught++
		}
		p = startProgram(t, w.url, w.dataDir)
	}
	if caught == 0 {
		t.Error("no kill came within a page")
	}
	until("the replay ends", `SELECT state <> 'running' FROM replays`)
	w.judge(t)

	putBack := map[uuid.UUID]int{}
	for e, err := range schema.Events(t.Context(), db, schema.Filter{Types: []string{"delivery.requeued"}}) {
		if err != nil {
			t.Fatal(err)
		}
		putBack[e.DeliveryID]++
	}
	for id, n := range putBack {
		if n != 1 {
			t.Errorf("delivery %s was put back %d times", id, n)
		}
	}
	if len(putBack) != many {
		t.Errorf("%d deliveries were put back, want all %d", len(putBack), many)
	}
	var left int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM deliveries WHERE outcome <> 'succeeded'`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d deliveries did not succeed in the end (%v)", left, err)
	}
	for e, err := range schema.Events(t.Context(), db, schema.Filter{Types: []string{"replay.ended"}}) {
		if err != nil {
			t.Fatal(err)
		}
		ended, err := domain.DecodeAs[domain.ReplayEnded](e.Data, nil)
		if err != nil || ended.Outcome != domain.ReplayDone || ended.Requeued != many || ended.Skipped+ended.Refused != 0 {
			t.Errorf("its end is recorded as %+v (%v), want %d put back", ended, err, many)
		}
	}
	t.Logf("%d of %d kills came within a page", caught, *strikes)
}
