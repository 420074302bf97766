package projections_test

import (
	"os"
	"regexp"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
)

var sqlBlock = regexp.MustCompile("(?s)```sql\n-- (\\w+)/(\\w+\\.sql)\n(.*?)```")

// The projections that docs/analysts.md works out are built as they stand there, however the ledger is sliced, folded or not.
func TestTheAnalystsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/analysts.md")
	if err != nil {
		t.Fatal(err)
	}
	load := func(name string) projections.Definition {
		files := fstest.MapFS{}
		for _, m := range sqlBlock.FindAllSubmatch(page, -1) {
			if string(m[1]) == name {
				files[string(m[2])] = &fstest.MapFile{Data: m[3]}
			}
		}
		d, err := projections.Load(name, 1, files)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d, folded := load("first_messages"), load("last_seen")
	w := newWorld(t)
	at := time.Unix(1, 0).UTC()
	for range 3 {
		person := uuid.New()
		for n := range 2 {
			if err := w.append(t.Context(), domain.DeliveryAttempted{DeliveryID: uuid.New(), Target: "welcome", ProfileID: person, Attempt: 1, StartedAt: at, Verdict: domain.Accepted, Outcome: domain.Succeeded, DurationMS: float64(n)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	build := func(d projections.Definition, into string, slice int64) {
		if _, err := w.engine.Build(t.Context(), d, projections.BuildOptions{Into: into, Own: true, Slice: slice}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.engine.Drop(w.ctx(), into); err != nil {
				t.Error(err)
			}
		})
	}
	for into, slice := range map[string]int64{"mine_a": 100, "mine_b": 1} {
		build(d, into, slice)
		var people int
		if err := w.ledger.DB().QueryRowContext(t.Context(), "SELECT sum(people) FROM "+into+".first_messages WHERE target = 'welcome'").Scan(&people); err != nil || people != 3 {
			t.Errorf("%s counts %d people, %v, want 3", into, people, err)
		}
	}
	if len(folded.Folds) != 1 {
		t.Error("the page folds nothing")
	}
	build(folded, "mine_c", 2)
	build(folded.WithoutFold(), "mine_d", 2)
	w.compare(t, "mine_c", "mine_d")
}
