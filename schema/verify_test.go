package schema_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// found is what a test expects of a problem.
type found struct {
	kind         schema.ProblemKind
	position, to int64
}

func problems(r schema.VerifyReport) []found {
	var all []found
	for _, p := range r.Problems {
		all = append(all, found{p.Kind, p.Position, p.To})
	}
	return all
}

func (l *signedLedger) verify(t testing.TB, o schema.VerifyOptions) schema.VerifyReport {
	t.Helper()
	r, err := schema.Verify(t.Context(), l.db.DB, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// verifiable is a ledger of 1,500 events: checkpoints at 300, 700 and 1,400; five full tiles, which end at
// 1,280; the tree at 1,450.
func verifiable(t *testing.T) *signedLedger {
	t.Helper()
	l := newSignedLedger(t)
	for _, n := range []int{300, 400, 700} {
		l.append(t, n)
		l.grow(t, 0)
		l.sign(t)
	}
	l.append(t, 100)
	l.grow(t, 1450)
	return l
}

// rewrite changes the event at a position as whoever knows the format would: the leaf fits afterwards.
func rewrite(t *testing.T, l *signedLedger, position int64, change func(*domain.Recorded)) {
	t.Helper()
	e, err := schema.EventAt(t.Context(), l.db, position)
	if err != nil {
		t.Fatal(err)
	}
	change(&e)
	leaf := domain.Leaf(domain.Digest(&e.Event), e.Position, e.Version, e.RecordedAt)
	tamper(t, l, fmt.Sprintf(`UPDATE events SET data = '%s', actor = '%s', position = %d, leaf = '\x%x' WHERE id = '%s'`, e.Data, e.Actor, e.Position, leaf, e.ID))
}

func forge(e *domain.Recorded) { e.Data = []byte(`{"forged":true}`) }

// swap exchanges the events at 500 and 501, by way of a position far away.
var swap = []string{
	`UPDATE events SET position = 9000000 WHERE position = 500`, `UPDATE events SET position = 500 WHERE position = 501`,
	`UPDATE events SET position = 501 WHERE position = 9000000`,
}

// pushIn moves all events from a position on up by one and puts a copy of the one before into the gap.
func pushIn(position int64) []string {
	return []string{
		fmt.Sprintf(`UPDATE events SET position = position + 9000000 WHERE position >= %d`, position),
		`UPDATE events SET position = position - 9000000 + 1 WHERE position > 9000000`,
		fmt.Sprintf(`INSERT INTO events SELECT %[1]d, gen_random_uuid(), type, stream || 'x', version, subject, channel, purpose, state, target, delivery_id,
			occurred_at, recorded_at, actor, source, correlation_id, causation_id, data, sealed, leaf FROM events WHERE position = %[1]d - 1`, position),
	}
}

// TestVerifyFindsWhatWasTamperedWith changes each thing there is, and expects it found: at its position, and
// said whether leaf, tree or signature disagrees.
func TestVerifyFindsWhatWasTamperedWith(t *testing.T) {
	t.Parallel()
	sql := func(statements ...string) func(*testing.T, *signedLedger) {
		return func(t *testing.T, l *signedLedger) { tamper(t, l, statements...) }
	}
	const flip = `set_byte(%[1]s, %[2]d, 255 - get_byte(%[1]s, %[2]d))`
	for name, tc := range map[string]struct {
		do   func(*testing.T, *signedLedger)
		want []found
	}{
		"nothing": {sql(), nil},

		"an event is edited":                           {sql(`UPDATE events SET data = '{}' WHERE position = 500`), []found{{schema.ProblemLeaf, 500, 0}}},
		"whitespace in an event is edited":             {sql(`UPDATE events SET data = '{"n":500, "name": "Zoë"}' WHERE position = 500`), []found{{schema.ProblemLeaf, 500, 0}}},
		"a leaf is edited":                             {sql(`UPDATE events SET leaf = ` + fmt.Sprintf(flip, "leaf", 3) + ` WHERE position = 500`), []found{{schema.ProblemLeaf, 500, 0}, {schema.ProblemTree, 500, 0}}},
		"an event past the tree is edited":             {sql(`UPDATE events SET data = '{}' WHERE position = 1490`), []found{{schema.ProblemLeaf, 1490, 0}}},
		"an event is edited with its leaf":             {func(t *testing.T, l *signedLedger) { rewrite(t, l, 500, forge) }, []found{{schema.ProblemTree, 500, 0}}},
		"one in the last, unfilled tile with its leaf": {func(t *testing.T, l *signedLedger) { rewrite(t, l, 1390, forge) }, []found{{schema.ProblemTree, 701, 1400}}},

		"an event is deleted":                           {sql(`DELETE FROM events WHERE position = 500`), []found{{schema.ProblemLeaf, 500, 0}}},
		"one in the last, unfilled tile is deleted":     {sql(`DELETE FROM events WHERE position = 1390`), []found{{schema.ProblemLeaf, 1390, 0}}},
		"a stretch of events is deleted":                {sql(`DELETE FROM events WHERE position BETWEEN 250 AND 900`), []found{{schema.ProblemLeaf, 250, 900}}},
		"the end of the ledger is cut off":              {sql(`DELETE FROM events WHERE position > 1350`), []found{{schema.ProblemTree, 1351, 1450}}},
		"the end is cut off, the tree's cursor with it": {sql(`DELETE FROM events WHERE position > 1350`, `UPDATE subscriptions SET position = 1350`), []found{{schema.ProblemTree, 1351, 1400}}},
		"all is deleted":                                {sql(`TRUNCATE events`), []found{{schema.ProblemTree, 1, 1450}}},

		"two events change places": {sql(swap...), []found{{schema.ProblemLeaf, 500, 501}, {schema.ProblemTree, 500, 501}}},
		"two events change places, their leaves made to fit": {func(t *testing.T, l *signedLedger) {
			tamper(t, l, swap...)
			rewrite(t, l, 500, func(*domain.Recorded) {})
			rewrite(t, l, 501, func(*domain.Recorded) {})
		}, []found{{schema.ProblemTree, 500, 501}}},
		"an event is pushed in between": {sql(pushIn(500)...), []found{{schema.ProblemLeaf, 500, 1501}, {schema.ProblemTree, 500, 1280}, {schema.ProblemTree, 701, 1400}}},
		"one is pushed in, and all leaves from there on are made to fit": {func(t *testing.T, l *signedLedger) {
			tamper(t, l, pushIn(1270)...)
			for p := int64(1270); p <= 1501; p++ {
				rewrite(t, l, p, func(*domain.Recorded) {})
			}
		}, []found{{schema.ProblemTree, 701, 1400}, {schema.ProblemTree, 1270, 1280}}},

		"a hash in a tile":                  {sql(`UPDATE tiles SET hashes = ` + fmt.Sprintf(flip, "hashes", 10*32) + ` WHERE n = 2`), []found{{schema.ProblemTree, 2*256 + 11, 0}}},
		"the root of a tile":                {sql(`UPDATE tiles SET root = ` + fmt.Sprintf(flip, "root", 0) + ` WHERE n = 2`), []found{{schema.ProblemTree, 513, 768}}},
		"a tile is deleted":                 {sql(`DELETE FROM tiles WHERE n = 2`), []found{{schema.ProblemTree, 513, 768}}},
		"two tiles change places":           {sql(`UPDATE tiles SET n = CASE n WHEN 2 THEN 7 ELSE n END WHERE n = 2`, `UPDATE tiles SET n = 2 WHERE n = 3`, `UPDATE tiles SET n = 3 WHERE n = 7`), []found{{schema.ProblemTree, 513, 1024}}},
		"a tile is rewritten with its root": {sql(`UPDATE tiles SET hashes = a.hashes, root = a.root FROM tiles a WHERE a.n = 1 AND tiles.n = 2`), []found{{schema.ProblemTree, 513, 768}}},
		"the tree's cursor is set forward":  {sql(`UPDATE subscriptions SET position = 9999`), []found{{schema.ProblemTree, 1501, 9999}}},
		"the tree's cursor is set back":     {sql(`UPDATE subscriptions SET position = 1300`), []found{{schema.ProblemTree, 1301, 1400}}},

		"a checkpoint's root":           {sql(`UPDATE checkpoints SET root = sha256(root) WHERE size = 700`), []found{{schema.ProblemSignature, 700, 0}}},
		"a checkpoint's size":           {sql(`UPDATE checkpoints SET size = 699 WHERE size = 700`), []found{{schema.ProblemSignature, 699, 0}}},
		"a checkpoint's text":           {sql(`UPDATE checkpoints SET note = replace(note, E'\n700\n', E'\n701\n') WHERE size = 700`), []found{{schema.ProblemSignature, 700, 0}}},
		"a checkpoint's signature":      {sql(`UPDATE checkpoints SET note = regexp_replace(note, '(— \S+ .{20}).', '\1' || CASE WHEN note ~ '— \S+ .{20}A' THEN 'B' ELSE 'A' END) WHERE size = 700`), []found{{schema.ProblemSignature, 700, 0}}},
		"a checkpoint's signature goes": {sql(`UPDATE checkpoints SET note = regexp_replace(note, '— .*', '') WHERE size = 700`), []found{{schema.ProblemSignature, 700, 0}}},

		"the trigger is dropped":                 {sql(`DROP TRIGGER events_append_only ON events`), []found{{schema.ProblemGuard, 0, 0}}},
		"the trigger of a partition is disabled": {sql(`ALTER TABLE events_1 DISABLE TRIGGER append_only`), []found{{schema.ProblemGuard, 0, 0}}},
		"the trigger of the tiles is dropped":    {sql(`DROP TRIGGER tiles_append_only ON tiles`), []found{{schema.ProblemGuard, 0, 0}}},
		"the triggers no longer refuse": {
			sql(`CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`),
			slices.Repeat([]found{{schema.ProblemGuard, 0, 0}}, 5),
		},
		"a trigger that is none of ours": {sql(`CREATE TRIGGER censor BEFORE INSERT ON events_1 FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()`), []found{{schema.ProblemGuard, 0, 0}}},
		"a rule":                         {sql(`CREATE RULE censor AS ON INSERT TO cosignatures DO INSTEAD NOTHING`), []found{{schema.ProblemGuard, 0, 0}}},
		"the service may insert events":  {sql(`GRANT INSERT ON events TO ledger_service`), []found{{schema.ProblemGuard, 0, 0}}},
		"everybody may change a column":  {sql(`GRANT UPDATE (data) ON events_1 TO PUBLIC`), []found{{schema.ProblemGuard, 0, 0}}},
		"everybody may append":           {sql(`GRANT EXECUTE ON FUNCTION ensure_partitions TO PUBLIC`), []found{{schema.ProblemGuard, 0, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := verifiable(t)
			tc.do(t, l)
			r := l.verify(t, schema.VerifyOptions{})
			if got := problems(r); !slices.Equal(got, tc.want) {
				t.Errorf("problems = %v, want %v\n%s", got, tc.want, r)
			}
		})
	}
}

// TestVerifyEveryColumn edits each column of the row, each in an event of its own: every one is under the leaf.
func TestVerifyEveryColumn(t *testing.T) {
	t.Parallel()
	l := verifiable(t)
	var want []found
	for i, set := range []string{
		"id = gen_random_uuid()", "type = 'x'", "stream = 'x'", "version = 999", "subject = gen_random_uuid()", "subject = NULL", "channel = 'sms'",
		"purpose = NULL", "state = 'opted_out'", "target = 'x'", "delivery_id = gen_random_uuid()", "occurred_at = occurred_at + interval '1 microsecond'",
		"occurred_at = NULL", "recorded_at = recorded_at + interval '1 microsecond'", "actor = 'x'", "source = 'x'", "correlation_id = NULL",
		"causation_id = gen_random_uuid()", "data = '[]'", "sealed = 'x'", "sealed = ''",
	} {
		position := int64(10 + 20*i)
		tamper(t, l, fmt.Sprintf(`UPDATE events SET %s WHERE position = %d`, set, position))
		want = append(want, found{schema.ProblemLeaf, position, 0})
	}
	r := l.verify(t, schema.VerifyOptions{})
	got := slices.DeleteFunc(problems(r), func(f found) bool { return f.position%20 == 11 }) // the event after one that was put later
	if !slices.Equal(got, want) {
		t.Errorf("problems = %v, want %v\n%s", got, want, r)
	}
}

// TestVerifySince verifies only what came after a checkpoint, wherever in a tile it ends.
func TestVerifySince(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	var signed []schema.Checkpoint
	for _, n := range []int{1, 254, 1, 1, 255, 300, 1000} {
		l.append(t, n)
		l.grow(t, 0)
		signed = append(signed, l.sign(t))
	}
	tamper(t, l, `UPDATE events SET data = '{}' WHERE position IN (100, 1700)`)
	for _, c := range signed {
		r := l.verify(t, schema.VerifyOptions{Since: []byte(c.Note)})
		var want []found
		for _, p := range []int64{100, 1700} {
			if p > c.Size {
				want = append(want, found{schema.ProblemLeaf, p, 0})
			}
		}
		if got := problems(r); !slices.Equal(got, want) || r.From != c.Size || r.Events != 1812-c.Size {
			t.Errorf("since %d: %v, %d events, want %v\n%s", c.Size, got, r.Events, want, r)
		}
	}
	tamper(t, l, `UPDATE events SET leaf = sha256(leaf) WHERE position = 1800`)
	r := l.verify(t, schema.VerifyOptions{Since: []byte(signed[6].Note)})
	if got, want := problems(r), []found{{schema.ProblemTree, 1, 1812}}; !slices.Equal(got, want) {
		t.Errorf("since a checkpoint that the tree no longer gives: %v, want %v", got, want)
	}
	tamper(t, l, `DELETE FROM events WHERE position > 1000`)
	r = l.verify(t, schema.VerifyOptions{Since: []byte(signed[6].Note)})
	if got, want := problems(r), []found{{schema.ProblemTree, 1001, 1812}, {schema.ProblemTree, 1001, 1812}}; !slices.Equal(got, want) {
		t.Errorf("since a checkpoint past the end: %v, want %v", got, want)
	}
	forged := strings.Replace(signed[2].Note, "\n256\n", "\n255\n", 1)
	if _, err := schema.Verify(t.Context(), l.db.DB, schema.VerifyOptions{Since: []byte(forged)}); !errors.Is(err, evidence.ErrSignature) {
		t.Errorf("since a checkpoint that nobody signed = %v, want ErrSignature", err)
	}
}

// TestVerifyAgainstTheOutside finds what the database by itself cannot show: that all of it was set back, or
// signed anew with another key.
func TestVerifyAgainstTheOutside(t *testing.T) {
	t.Parallel()
	l := verifiable(t)
	outside := schema.VerifyOptions{Keys: note.VerifierList(l.Keys.Verifiers...), Anchors: []schema.Anchor{l.anchor}}
	if r := l.verify(t, outside); !r.OK() || r.Checkpoints != 3 || r.Events != 1500 {
		t.Fatalf("before: %s", r)
	}
	kept, err := os.ReadFile(l.anchor.Path)
	if err != nil {
		t.Fatal(err)
	}

	// Somebody takes the database, a key of his own, and makes the ledger say something else.
	rewrite(t, l, 500, forge)
	tamper(t, l, `DELETE FROM subscriptions`, `TRUNCATE tiles, checkpoints, cosignatures`, `TRUNCATE signing_keys`)
	secret, public, err := note.GenerateKey(rand.Reader, l.Origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	tamper(t, l, fmt.Sprintf(`INSERT INTO signing_keys VALUES ('%s+%08x', '%s', '', '', now())`, l.Origin, verifier.KeyHash(), public))
	l.grow(t, 0)
	l.Anchors, l.Keys = nil, schema.SigningKeys{Signers: []note.Signer{signer}, Verifiers: []note.Verifier{verifier}}
	l.sign(t)
	if r := l.verify(t, schema.VerifyOptions{}); !r.OK() {
		t.Fatalf("by the database's own word: %s", r)
	}
	r := l.verify(t, outside)
	if got, want := problems(r), []found{{schema.ProblemTree, 1, 1400}, {schema.ProblemSignature, 1500, 0}}; !slices.Equal(got, want) {
		t.Errorf("against the outside: %v, want %v\n%s", got, want, r)
	}

	tamper(t, l, `DELETE FROM events WHERE position > 1000`, `DELETE FROM subscriptions`, `TRUNCATE tiles, checkpoints, cosignatures`)
	r = l.verify(t, outside)
	if got, want := problems(r), []found{{schema.ProblemTree, 1001, 1400}}; !slices.Equal(got, want) {
		t.Errorf("set back: %v, want %v\n%s", got, want, r)
	}
	if err := os.WriteFile(l.anchor.Path, []byte(strings.Replace(string(kept), "\n1400\n", "\n900\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r = l.verify(t, outside)
	if got, want := problems(r), []found{{schema.ProblemSignature, 0, 0}}; !slices.Equal(got, want) {
		t.Errorf("the outside was changed: %v, want %v\n%s", got, want, r)
	}
}

// TestVerifyLevels verifies a tree with three levels of tiles, and finds a change in the upper ones.
func TestVerifyLevels(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	for range 33 {
		l.append(t, 2000)
	}
	l.grow(t, 0)
	first := l.sign(t)
	var last schema.VerifyProgress
	calls := 0
	r := l.verify(t, schema.VerifyOptions{Workers: 3, Progress: func(p schema.VerifyProgress) { last = p; calls++ }})
	if !r.OK() || r.Events != 66_000 || r.To != 66_000 {
		t.Fatalf("before: %s", r)
	}
	if last.Done != 66_000 || last.Total != 66_000 || last.Left != 0 || calls != 5 {
		t.Errorf("progress = %+v after %d calls, want all of 66,000 after 5", last, calls)
	}
	for name, tc := range map[string]struct {
		change string
		want   []found
	}{
		"a hash in a tile of level 1": {`UPDATE tiles SET hashes = set_byte(hashes, 64, 255 - get_byte(hashes, 64)) WHERE level = 1`, []found{{schema.ProblemTree, 513, 768}}},
		"its root":                    {`UPDATE tiles SET root = set_byte(root, 0, 255 - get_byte(root, 0)) WHERE level = 1`, []found{{schema.ProblemTree, 1, 65536}}},
		"the tile itself":             {`DELETE FROM tiles WHERE level = 1`, []found{{schema.ProblemTree, 1, 65536}}},
	} {
		tamper(t, l, `CREATE TABLE kept AS SELECT * FROM tiles`, tc.change)
		if r := l.verify(t, schema.VerifyOptions{}); !slices.Equal(problems(r), tc.want) {
			t.Errorf("%s: %v, want %v", name, problems(r), tc.want)
		}
		tamper(t, l, `TRUNCATE tiles`, `INSERT INTO tiles SELECT * FROM kept`, `DROP TABLE kept`)
	}
	l.append(t, 10)
	l.grow(t, 0)
	l.sign(t)
	if r := l.verify(t, schema.VerifyOptions{Since: []byte(first.Note)}); !r.OK() || r.Events != 10 {
		t.Errorf("since: %s", r)
	}
}

// TestVerifyReport holds the report's shapes, for people and for programs.
func TestVerifyReport(t *testing.T) {
	t.Parallel()
	r := schema.VerifyReport{From: 10, To: 20, Events: 10, Checkpoints: 1, Took: 1500 * 1000 * 1000, Rate: 6.7, More: 2, Problems: []schema.Problem{
		{Kind: schema.ProblemGuard, Message: "a door is open"},
		{Kind: schema.ProblemLeaf, Position: 12, Message: "was changed"},
		{Kind: schema.ProblemTree, Position: 13, To: 15, Message: "was another"},
	}}
	want := `10 events (positions 11 to 20) and 1 checkpoints in 1.5s, 7 events/s: 5 problems
guard: a door is open
leaf: position 12: was changed
tree: positions 13 to 15: was another
… and 2 more
`
	if got := r.String(); got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
	text, err := json.Marshal(r)
	wantJSON := `{"from":10,"to":20,"events":10,"checkpoints":1,"took_ns":1500000000,"events_per_second":6.7,"problems":[` +
		`{"kind":"guard","message":"a door is open"},{"kind":"leaf","position":12,"message":"was changed"},{"kind":"tree","position":13,"to":15,"message":"was another"}],"more":2}`
	if err != nil || string(text) != wantJSON {
		t.Errorf("JSON = %s, %v, want %s", text, err, wantJSON)
	}
}
