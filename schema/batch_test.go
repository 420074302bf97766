package schema_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Whatever requests line up, each goes into one batch, in turn, and none beside another that its answer would depend on.
func TestRequestsAreGatheredInTurn(t *testing.T) {
	t.Parallel()
	ids := make([]uuid.UUID, 8)
	for i := range ids {
		ids[i] = uuid.New()
	}
	rapid.Check(t, func(t *rapid.T) {
		line := schema.NewLine()
		var put [][]domain.Event // that were not taken yet
		take := func(t *rapid.T) {
			batch, given := line.Take()
			seen := map[uuid.UUID]bool{}
			touched, expects := map[string]bool{}, map[string]bool{}
			n := 0
			for i, r := range batch {
				if i >= len(put) || r[0].Source != put[i][0].Source {
					t.Fatalf("request %d of the batch is not the next in turn", i)
				}
				for _, e := range r {
					n++
					if seen[e.ID] {
						t.Fatalf("two requests of a batch bring event %s", e.ID)
					}
					if touched[e.Stream] && (e.Expected != nil || expects[e.Stream]) {
						t.Fatalf("two requests of a batch touch stream %s, of which a version is expected", e.Stream)
					}
				}
				for _, e := range r {
					seen[e.ID], touched[e.Stream] = true, true
					expects[e.Stream] = expects[e.Stream] || e.Expected != nil
				}
			}
			if n != given || n == 0 {
				t.Fatalf("a batch of %d events gives %d to append()", n, given)
			}
			if n > schema.MaxBatch && len(batch) > 1 {
				t.Fatalf("%d events in a batch", n)
			}
			put = put[len(batch):]
		}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(put) > 0 && rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				take(t)
				continue
			}
			line.Under(rapid.Int64Range(0, 2000).Draw(t, "under way"))
			request := make([]domain.Event, rapid.SampledFrom([]int{1, 1, 1, 2, 3, 300}).Draw(t, "events"))
			for j := range request {
				e := event(fmt.Sprint("s", rapid.IntRange(0, 5).Draw(t, "stream")), `{}`)
				if len(request) < 10 && rapid.IntRange(0, 3).Draw(t, "known") == 0 {
					e.ID = rapid.SampledFrom(ids).Draw(t, "id")
				}
				if rapid.IntRange(0, 9).Draw(t, "expects") == 0 {
					e = expecting(1, e)
				}
				e.Source = fmt.Sprint("/", i)
				request[j] = e
			}
			if err := line.Put(request...); err != nil {
				t.Fatal(err)
			}
			put = append(put, request)
		}
		for len(put) > 0 {
			take(t)
		}
		line.Close()
		if batch, _ := line.Take(); batch != nil {
			t.Fatal("a line that is closed and empty gave a batch")
		}
		if err := line.Put(event("s", `{}`)); !errors.Is(err, schema.ErrClosed) {
			t.Fatalf("a closed line says %v", err)
		}
	})
}

// What is under way is not gathered into a single batch, so that the database works on one part of it while another is on its way to
// the disk and back.
func TestABatchTakesItsShare(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		under, bytes int
		requests     int
		largest      int // events in a batch
	}{
		{name: "few callers share one", under: 16, requests: 16, bytes: 2, largest: 16},
		{name: "many are parted", under: 64, requests: 64, bytes: 2, largest: 40},
		{name: "very many", under: 8000, requests: 8000, bytes: 2, largest: schema.MaxBatch},
		{name: "large events", under: 6, requests: 6, bytes: schema.BatchBytes / 3, largest: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			line := schema.NewLine()
			line.Under(int64(c.under))
			data := `"` + strings.Repeat("x", c.bytes-2) + `"`
			for range c.requests {
				if err := line.Put(event(uuid.NewString(), data)); err != nil {
					t.Fatal(err)
				}
			}
			largest, total := 0, 0
			for total < c.requests {
				_, n := line.Take()
				largest = max(largest, n)
				total += n
			}
			if largest != c.largest {
				t.Errorf("%d callers with events of %d bytes: %d in a batch, not %d", c.requests, c.bytes, largest, c.largest)
			}
		})
	}
}

func TestALineIsNotEndless(t *testing.T) {
	t.Parallel()
	line := schema.NewLine()
	for range schema.QueueDepth {
		if err := line.Put(event("s", `{}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := line.Put(event("s", `{}`)); !errors.Is(err, schema.ErrBusy) {
		t.Fatalf("a full line says %v", err)
	}
	line.Take()
	if err := line.Put(event("s", `{}`)); err != nil {
		t.Fatalf("a line that moved on says %v", err)
	}
}
