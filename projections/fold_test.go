package projections_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// countFold counts by collecting ones.
const countFold = `-- What is counted is collected.

-- name: counting
INSERT INTO collected_counts (handle, n) SELECT target, 1 FROM slice WHERE type = 'target.disabled';
-- fold: counts
SELECT handle, sum(n) FROM collected_counts GROUP BY handle;
`

func defineFolded(t testing.TB, tables, apply, fold string) projections.Definition {
	t.Helper()
	d, err := projections.Load("counts", 1, fstest.MapFS{"tables.sql": {Data: []byte(tables)}, "apply.sql": {Data: []byte(apply)}, "fold.sql": {Data: []byte(fold)}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sightings draws what is said of a few people's addresses, consent and entries of lists, often at equal times and out of order.
func sightings(t *rapid.T) []domain.Payload {
	people := []uuid.UUID{uuid.MustParse("00000000-0000-4000-8000-000000000001"), uuid.MustParse("00000000-0000-4000-8000-000000000002"), uuid.MustParse("00000000-0000-4000-8000-000000000003")}
	few := func(name string, values ...string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(values), 0, len(values), rapid.ID).Draw(t, name)
	}
	hashes := func() (out []domain.ContactHash) {
		for _, h := range few("hashes", "0a", "0b") {
			out = append(out, domain.ContactHash{Channel: rapid.SampledFrom([]domain.Channel{domain.Email, domain.SMS}).Draw(t, "of"), Hash: h})
		}
		return out
	}
	var out []domain.Payload
	for range rapid.IntRange(1, 12).Draw(t, "events") {
		person, at := rapid.SampledFrom(people).Draw(t, "person"), time.Unix(int64(rapid.IntRange(0, 3).Draw(t, "at")), 0).UTC()
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			p := domain.ProfileObserved{ProfileID: person, Topic: "profile.updated", ObservedAt: at, State: rapid.SampledFrom([]string{"active", "deleted"}).Draw(t, "state"), ContactHashes: hashes(), BodySHA256: "00"}
			for _, c := range few("cleared", "email", "sms") {
				p.Cleared = append(p.Cleared, domain.Channel(c))
			}
			for _, h := range few("elsewhere", "0c", "0d") {
				p.IdentityHashes = append(p.IdentityHashes, domain.IdentityHash{Handle: "klaviyo", Hash: h})
			}
			out = append(out, p)
		case 1:
			var entries []domain.SuppressionEntry
			for _, h := range append(few("entries", "0a", "0b"), "0e") {
				entries = append(entries, domain.SuppressionEntry{Hash: h, Reason: "unsubscribed", Class: "consent", Precision: "none", Native: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "native")})
			}
			if scope := (domain.SuppressionScope{Kind: "global"}); rapid.Bool().Draw(t, "lifted") {
				out = append(out, domain.SuppressionLifted{Platform: "klaviyo", Channel: domain.Email, Scope: scope, Via: "list", SeenAt: at, Entries: entries})
			} else {
				out = append(out, domain.SuppressionSeen{Platform: "klaviyo", Channel: domain.Email, Scope: scope, Via: "list", SeenAt: at, Entries: entries})
			}
		default:
			c := domain.ConsentChanged{ProfileID: person, DecidedBy: rapid.SampledFrom([]string{"customer", "platform"}).Draw(t, "by"), DecidedAt: at, ContactHashes: hashes()}
			for _, purpose := range rapid.SliceOfNDistinct(rapid.SampledFrom(domain.Purposes[:2]), 1, 2, rapid.ID).Draw(t, "purposes") {
				c.Changes = append(c.Changes, domain.ConsentChange{
					Channel: domain.Email, Purpose: purpose, Status: rapid.SampledFrom([]domain.ConsentStatus{domain.OptedIn, domain.OptedOut, domain.Unknown}).Draw(t, "status"),
				})
			}
			out = append(out, c)
		}
	}
	return out
}

// However a rebuild is sliced, wherever it is interrupted and however soon it folds, its tables are those that apply.sql makes.
func TestWhatIsFoldedIsWhatIsApplied(t *testing.T) {
	t.Parallel()
	folded := []projections.Definition{consent.Definition, contacts.Definition, suppressions.Definition, audit.Definition}
	w := newWorld(t, folded...)
	trials := 36
	if os.Getenv("DISPATCH_LEDGER_LONG_TESTS") != "" {
		trials = 1000
	}
	for seed := range trials {
		if err := w.append(t.Context(), rapid.Custom(sightings).Example(seed)...); err != nil {
			t.Fatal(err)
		}
		head, err := schema.Head(t.Context(), w.ledger.DB())
		if err != nil {
			t.Fatal(err)
		}
		w.engine = projections.NewEngine(w.ledger.DB(), "", nil, folded...)
		if seed%2 == 1 {
			w.engine.FoldAt(0)
		}
		random := rand.New(rand.NewPCG(uint64(seed), 0))
		d := folded[seed%len(folded)]
		if len(d.Folds) == 0 {
			t.Fatalf("%s has nothing to fold", d.Name)
		}
		slice := func() int64 { return max(1, head/8) + random.Int64N(head) }
		sooner, stop := 1+random.Int64N(head), random.Int64N(head)
		o := projections.BuildOptions{Into: "folded", UpTo: sooner, Slice: slice()}
		ctx, cancel := context.WithCancel(t.Context())
		o.Progress = func(p projections.Progress) {
			if p.Done >= stop {
				cancel()
			}
		}
		if _, err := w.engine.Build(ctx, d, o); err != nil && !errors.Is(err, context.Canceled) && !schema.Transient(err) {
			t.Fatal(err)
		}
		o.Progress = nil
		for _, o.UpTo = range []int64{sooner, head} {
			if _, err := w.engine.Build(t.Context(), d, o); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.engine.Build(t.Context(), d.WithoutFold(), projections.BuildOptions{Into: "applied", UpTo: head, Slice: slice()}); err != nil {
			t.Fatal(err)
		}
		w.compare(t, "folded", "applied")
		for _, into := range []string{"folded", "applied"} {
			if err := w.engine.Drop(t.Context(), into); err != nil {
				t.Fatal(err)
			}
		}
		if t.Failed() {
			t.Fatalf("%s, folded at %d and sliced by %d, seed %d", d.Name, sooner, o.Slice, seed)
		}
	}
}

// compare holds two builds to be of the same tables with the same constraints and rows.
func (w world) compare(t testing.TB, one, other string) {
	t.Helper()
	list := func(query string, args ...any) (out []string) {
		rows, err := w.ledger.DB().QueryContext(w.ctx(), query, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return out
	}
	const shape = `SELECT concat_ws(' ', relname, relkind, (SELECT string_agg(conname || ' ' || replace(pg_get_constraintdef(oid), $1, ''), ', ' ORDER BY conname) FROM pg_constraint WHERE conrelid = c.oid))
		FROM pg_class c WHERE relnamespace = to_regnamespace($1) ORDER BY 1`
	if a, b := list(shape, one), list(shape, other); !slices.Equal(a, b) || len(a) == 0 {
		t.Errorf("there is\n%s\nand there\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	for _, table := range list(`SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind = 'r'`, one) {
		got := list(fmt.Sprintf("SELECT t::text FROM %s.%s t ORDER BY 1", one, table))
		if want := list(fmt.Sprintf("SELECT t::text FROM %s.%s t ORDER BY 1", other, table)); !slices.Equal(got, want) {
			t.Errorf("%s holds\n%s\nand not\n%s", table, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// An analyst's own is folded under its own role, and told where its mistakes are; a key that something hangs on stays.
func TestAnAnalystsOwnIsFolded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, consent.Definition)
	w.disable(t, "a", "b", "a")
	held := countTables + "CREATE TABLE notes (handle text REFERENCES counts);\n"
	for name, tc := range map[string]struct{ tables, fold, want string }{
		"folded":                   {countTables, countFold, ""},
		"a key that is held":       {held, countFold, ""},
		"no such table":            {countTables, strings.ReplaceAll(countFold, "counts", "sums"), `fold.sql line 5, statement "sums": relation "sums" does not exist`},
		"a mistake in collecting":  {countTables, strings.Replace(countFold, "target, 1", "target,\n nothing", 1), `event 1: projection counts, fold.sql line 5, statement "counting": column "nothing" does not exist`},
		"a mistake in the fold":    {countTables, strings.Replace(countFold, "sum(n)", "nothing", 1), `projection counts, fold.sql line 6, statement "counts": column "nothing" does not exist`},
		"not folded to one each":   {countTables, strings.Replace(countFold, "sum(n) FROM collected_counts GROUP BY handle", "n FROM collected_counts", 1), `fold.sql, statement "counts": could not create unique index`},
		"not one each, but a key":  {held, strings.Replace(countFold, "sum(n) FROM collected_counts GROUP BY handle", "n FROM collected_counts", 1), `fold.sql, statement "counts": duplicate key`},
		"writing what is not its":  {countTables, strings.Replace(countFold, "-- fold:", "DELETE FROM ledger_consent.consent_state;\n-- fold:", 1), "permission denied for table consent_state"},
		"ending what it runs in":   {countTables, countFold + "; COMMIT", "transaction commands"},
		"a column that is not nil": {countTables, strings.Replace(countFold, "target, 1", "target, NULL", 1), `event 1: projection counts, fold.sql, statement "counting": null value in column "n"`},
	} {
		t.Run(name, func(t *testing.T) {
			into := "own_" + strings.NewReplacer(" ", "_", ",", "").Replace(name)
			o := projections.BuildOptions{Into: into, Own: true, Slice: 2}
			d := defineFolded(t, tc.tables, countApply, tc.fold)
			_, err := w.engine.Build(t.Context(), d, o)
			t.Cleanup(func() {
				if err := w.engine.Drop(w.ctx(), into); err != nil && !errors.Is(err, schema.ErrNotFound) {
					t.Error(err)
				}
			})
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("Build = %v\nwant %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantCounts(t, w.counted(t, into), "map[a:2 b:1]")
			if _, err := w.engine.Build(t.Context(), d.WithoutFold(), projections.BuildOptions{Into: into + "_not", Own: true}); err != nil {
				t.Fatal(err)
			}
			w.compare(t, into, into+"_not")
			if err := w.engine.Drop(t.Context(), into+"_not"); err != nil {
				t.Error(err)
			}
		})
	}
	if report, err := w.engine.Verify(t.Context()); err != nil || !report.OK() {
		t.Errorf("Verify = %v, %v", report.Problems, err)
	}
}

func TestLoadFold(t *testing.T) {
	t.Parallel()
	d := defineFolded(t, countTables, countApply, countFold)
	if len(d.Folds) != 1 || d.Folds[0].Name != "counts" || len(d.Collect) != 1 || d.Collect[0].SQL == d.Apply[0].SQL || len(d.Collect[0].On) != 1 {
		t.Errorf("Load = %+v", d)
	}
	if plain := define(t, "counts", countTables, countApply); plain.Digest == d.Digest || d.WithoutFold().Digest == d.Digest || len(d.WithoutFold().Folds) > 0 {
		t.Error("what is folded has the digest of what is not")
	}
	for name, fold := range map[string]string{
		"nothing folded":    "-- name: counting\nSELECT 1;\n",
		"nothing collected": "-- fold: counts\nSELECT 1;\n",
		"another name":      "-- name: summing\nSELECT 1;\n-- fold: counts\nSELECT 1;\n",
		"a name twice":      "-- name: counting\nSELECT 1;\n-- name: counting\nSELECT 1;\n-- fold: counts\nSELECT 1;\n",
		"a table twice":     countFold + "-- fold: counts\nSELECT 1;\n",
		"no table's name":   "-- name: counting\nSELECT 1;\n-- fold: counts; DROP\nSELECT 1;\n",
	} {
		_, err := projections.Load("counts", 1, fstest.MapFS{"tables.sql": {Data: []byte(countTables)}, "apply.sql": {Data: []byte(countApply)}, "fold.sql": {Data: []byte(fold)}})
		if err == nil || !strings.Contains(err.Error(), "fold.sql") {
			t.Errorf("%s: Load = %v, want an error about fold.sql", name, err)
		}
	}
}
