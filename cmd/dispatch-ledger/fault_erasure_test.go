package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// TestKillDuringErasure erases people while messages are on their way to them, and kills the service and PostgreSQL in turn
// meanwhile. At any moment a person's key is gone if and only if the ledger says so; what was asked for is done in the end,
// once; what was still queued is withheld; and then nothing of anybody is found anywhere, rebuilt projections included.
func TestKillDuringErasure(t *testing.T) {
	server := schematest.NewServer(t)
	a := &told{t: t, databaseURL: server.URL, dataDir: t.TempDir()}
	p := startProgram(t, a.databaseURL, a.dataDir)
	a.address = p.address
	platform := newSink(t)
	file := fmt.Sprintf("handle: sink\nplatform: webhook\nurl: %s\nbody: '{\"email\": \"{{ profile.email }}\"}'\nretry: {max_attempts: 20, timeout: 1s, base: 10ms, max: 200ms}\n", platform.URL)
	if out, code := a.runs(file, "targets", "apply", "-"); code != exitDone {
		t.Fatalf("targets apply: %s", out)
	}
	people := make([]planted, 16)
	var address atomic.Value
	address.Store(p.address)
	for i := range people {
		people[i] = newPlanted(i)
		a.sends(people[i].consent())
		a.sends(people[i].fired("sink"))
		// Queued for long after the test: only the erasure ends it.
		a.sends(strings.Replace(people[i].fired("sink"), `"cause":"reaction"`, `"cause":"reaction","not_before":"2099-01-01T00:00:00Z"`, 1))
	}
	db := connect(t, a.databaseURL)
	until(t, db, `SELECT count(*) = $1 FROM deliveries`, 2*len(people))

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var erasing sync.WaitGroup
	work := make(chan planted)
	for range 4 {
		erasing.Go(func() {
			for one := range work {
				for ctx.Err() == nil && !erased(ctx, t, address.Load().(string), one) {
					<-time.After(20 * time.Millisecond) // the service is away: asked for again, as whoever asked would
				}
			}
		})
	}
	for i, one := range people {
		work <- one
		if i%4 != 3 || i/4 >= *strikes {
			continue
		}
		if i/4%2 == 0 {
			p.kill()
			p = startProgram(t, a.databaseURL, a.dataDir)
			address.Store(p.address)
		} else {
			server.Kill()
			server.Restart()
		}
		// One statement sees one snapshot: what stands in one table and not in the other was half done.
		until(t, db, `SELECT true`)
		var half int
		err := db.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT subject FROM subject_keys WHERE erased_at IS NOT NULL AND wrapped IS NULL) k
			FULL JOIN (SELECT subject FROM events WHERE type = 'profile.erased') e USING (subject) WHERE k.subject IS NULL OR e.subject IS NULL`).Scan(&half)
		if err != nil || half != 0 {
			t.Errorf("%d erasures are half done (%v)", half, err)
		}
	}
	close(work)
	erasing.Wait()
	a.address = p.address
	until(t, db, `SELECT count(*) = $1 FROM events WHERE type = 'profile.erased'`, len(people))
	until(t, db, `SELECT count(*) = $1 FROM deliveries WHERE outcome = 'withheld' AND reason = 'erased'
		AND delivery_id IN (SELECT delivery_id FROM events WHERE type = 'delivery.planned' AND data->>'due_at' LIKE '2099%')`, len(people))
	for _, d := range builtIn {
		a.prints(exitDone, "rebuild", d.Name)
	}
	for _, found := range inTheClear(t, db, people...) {
		t.Errorf("in the clear after the erasure: %s", found)
	}
	a.sends(people[0].fired("sink"))
	until(t, db, allSettled)
	until(t, db, `SELECT outcome = 'withheld' AND reason = 'erased' FROM deliveries ORDER BY position DESC LIMIT 1`)
	a.prints(exitDone, "verify")
}

// erased asks for a person to be erased and reports whether the service says that they are.
func erased(ctx context.Context, t *testing.T, address string, one planted) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/profiles/"+one.id.String()+"/erasure", strings.NewReader(`{"reason":"ticket 1"}`))
	if err != nil {
		t.Error(err)
		return true
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	req.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 400 && answer.StatusCode < 500 {
		t.Errorf("erasure = %d", answer.StatusCode)
		return true
	}
	return answer.StatusCode == http.StatusOK
}
