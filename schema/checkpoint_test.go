package schema_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func TestSign(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	if _, err := l.Sign(t.Context()); !errors.Is(err, schema.ErrTreeBehind) {
		t.Errorf("Sign an empty ledger = %v, want ErrTreeBehind", err)
	}
	l.append(t, 10)
	l.grow(t, 0)
	first := l.sign(t)
	want := fmt.Sprintf("%s\n10\n%s\n\n— %s ", l.Origin, mth(l.leaves(t)), l.Origin)
	if !strings.HasPrefix(first.Note, want) {
		t.Errorf("checkpoint = %q, want it to begin with %q", first.Note, want)
	}
	if kept, err := os.ReadFile(l.anchor.Path); err != nil || string(kept) != first.Note {
		t.Errorf("kept outside = %q, %v, want the checkpoint", kept, err)
	}
	l.now = l.now.Add(time.Hour)
	if again := l.sign(t); again != first {
		t.Errorf("signed again without growth = %+v, want %+v", again, first)
	}
	l.append(t, 5)
	l.grow(t, 0)
	second := l.sign(t)
	for position, want := range map[int64]int64{1: 10, 10: 10, 11: 15, 15: 15} {
		if c, err := schema.CheckpointAt(t.Context(), l.db, position); err != nil || c.Size != want {
			t.Errorf("CheckpointAt(%d) = %d, %v, want %d", position, c.Size, err, want)
		}
	}
	if last, err := schema.LastCheckpoint(t.Context(), l.db); err != nil || last != second {
		t.Errorf("LastCheckpoint = %+v, %v, want %+v", last, err, second)
	}
	if _, err := schema.CheckpointAt(t.Context(), l.db, 16); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("CheckpointAt(16) = %v, want ErrNotFound", err)
	}
	if _, err := schema.InclusionProof(t.Context(), l.db, 16, 0); !errors.Is(err, schema.ErrTreeBehind) {
		t.Errorf("InclusionProof(16) = %v, want ErrTreeBehind", err)
	}
}

// TestSignersTakeTurns has several processes' worth of checkpointers sign at once: one checkpoint comes of it.
func TestSignersTakeTurns(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	l.append(t, 3)
	l.grow(t, 0)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if c, err := l.Sign(t.Context()); err != nil || c.Size != 3 {
				t.Errorf("Sign = %+v, %v", c, err)
			}
		})
	}
	wg.Wait()
	var n int
	if err := l.db.QueryRowContext(t.Context(), `SELECT count(*) FROM checkpoints`).Scan(&n); err != nil || n != 1 {
		t.Errorf("checkpoints = %d, %v, want 1", n, err)
	}
}

func TestRotateSigningKey(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	step := func() schema.Checkpoint {
		l.reloadKeys(t)
		l.append(t, 3)
		l.grow(t, 0)
		return l.sign(t)
	}
	before := step()
	oldKey := l.Keys.Verifiers[0]
	if err := l.vault.RetireSigningKey(t.Context(), l.Keys.Public[0]); err == nil {
		t.Error("the only key was retired")
	}
	l.now = l.now.Add(time.Hour)
	public, err := l.vault.AddSigningKey(t.Context(), l.Origin)
	if err != nil {
		t.Fatal(err)
	}
	during := step()
	newKey, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.vault.RetireSigningKey(t.Context(), l.Keys.Public[1]); err != nil {
		t.Fatal(err)
	}
	if err := l.vault.RetireSigningKey(t.Context(), l.Keys.Public[1]); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("retired twice = %v, want ErrNotFound", err)
	}
	after := step()
	for name, tc := range map[string]struct {
		checkpoint schema.Checkpoint
		key        note.Verifier
		want       bool
	}{
		"before, old key": {before, oldKey, true}, "before, new key": {before, newKey, false},
		"during, old key": {during, oldKey, true}, "during, new key": {during, newKey, true},
		"after, old key": {after, oldKey, false}, "after, new key": {after, newKey, true},
	} {
		_, _, err := evidence.OpenCheckpoint([]byte(tc.checkpoint.Note), note.VerifierList(tc.key))
		if tc.want != (err == nil) || err != nil && !errors.Is(err, evidence.ErrSignature) {
			t.Errorf("%s: OpenCheckpoint = %v, want it to hold: %v", name, err, tc.want)
		}
	}
	// A rotation of the master key takes the signing keys along.
	other, err := schema.ParseMasterKey("ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=")
	if err != nil {
		t.Fatal(err)
	}
	rotating, err := schema.OpenVault(t.Context(), l.db.DB, other.AndPrevious(treeMasterKey(t)), l.Clock)
	if err == nil {
		err = rotating.Rotate(t.Context(), nil)
	}
	if err == nil {
		l.vault, err = schema.OpenVault(t.Context(), l.db.DB, other, l.Clock)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c := step(); c.Size != 12 {
		t.Errorf("size after the master key was rotated = %d, want 12", c.Size)
	}
}

// TestRewind sets the ledger back in every way there is. Nothing is signed then, and the message says what to do.
func TestRewind(t *testing.T) {
	t.Parallel()
	rewind := []string{
		`DELETE FROM checkpoints WHERE size > 300`, `DELETE FROM tiles WHERE n > 0`,
		`UPDATE subscriptions SET position = 300`, `DELETE FROM events WHERE position > 300`,
	}
	for name, tc := range map[string]struct {
		do   func(t *testing.T, l *signedLedger)
		want string
	}{
		"a backup of before is restored": {func(t *testing.T, l *signedLedger) { tamper(t, l, rewind...) }, "covers 600 events, and the ledger ends at 300"},
		"and other events were appended since": {func(t *testing.T, l *signedLedger) {
			tamper(t, l, rewind...)
			l.append(t, 400)
			l.grow(t, 0)
		}, "signed the first 600 events with root"},
		"the newest events are gone": {func(t *testing.T, l *signedLedger) {
			tamper(t, l, `DELETE FROM events WHERE position > 590`, `UPDATE subscriptions SET position = 590`)
		}, "the ledger ends at 590"},
		"a sealed event was rewritten, its leaf too": {func(t *testing.T, l *signedLedger) {
			tamper(t, l, `UPDATE events SET leaf = sha256(leaf) WHERE position = 600`)
		}, "signed the first 600 events with root"},
		"the checkpoint outside was changed": {func(t *testing.T, l *signedLedger) {
			signed, err := os.ReadFile(l.anchor.Path)
			if err == nil {
				err = os.WriteFile(l.anchor.Path, bytes.Replace(signed, []byte("\n600\n"), []byte("\n599\n"), 1), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, "the checkpoint or its signature by"},
		"the checkpoint outside is another log's": {func(t *testing.T, l *signedLedger) {
			secret, public, err := note.GenerateKey(rand.Reader, "example.org/other")
			if err != nil {
				t.Fatal(err)
			}
			signer, err := note.NewSigner(secret)
			if err != nil {
				t.Fatal(err)
			}
			other, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Origin: "example.org/other", Size: 3}.Text()}, signer)
			if err == nil {
				err = os.WriteFile(l.anchor.Path, other, 0o600)
			}
			if err != nil {
				t.Fatal(err, public)
			}
		}, "signed by none of the known keys, but by example.org/other+"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newSignedLedger(t)
			l.append(t, 300)
			l.grow(t, 0)
			l.sign(t)
			l.append(t, 300)
			l.grow(t, 0)
			l.sign(t)
			tc.do(t, l)
			_, err := l.Sign(t.Context())
			if !errors.Is(err, schema.ErrRewound) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Sign = %v, want ErrRewound that says %q", err, tc.want)
			}
			if err := l.Run(t.Context()); !errors.Is(err, schema.ErrRewound) {
				t.Errorf("Run = %v, want ErrRewound", err)
			}
		})
	}
}

// TestCrashBetweenAnchorAndDatabase loses the checkpoint that the anchor already has: the next one signs the same again.
func TestCrashBetweenAnchorAndDatabase(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	l.append(t, 20)
	l.grow(t, 0)
	want := l.sign(t)
	tamper(t, l, `DELETE FROM checkpoints`)
	if got := l.sign(t); got != want {
		t.Errorf("signed again = %+v, want %+v", got, want)
	}
}

// TestHTTPAnchor keeps the checkpoint at a server, and signs nothing while that does not answer.
func TestHTTPAnchor(t *testing.T) {
	t.Parallel()
	var kept []byte
	down := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case down || r.Header.Get("Authorization") != "Bearer x":
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Method == http.MethodPut:
			kept, _ = io.ReadAll(r.Body)
			w.WriteHeader(http.StatusNoContent)
		case kept == nil:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Write(kept)
		}
	}))
	defer server.Close()
	l := newSignedLedger(t)
	l.Anchors = append(l.Anchors, schema.HTTPAnchor{URL: server.URL, Header: http.Header{"Authorization": {"Bearer x"}}, Client: server.Client()})
	l.append(t, 20)
	l.grow(t, 0)
	if _, err := l.Sign(t.Context()); err == nil || !strings.Contains(err.Error(), server.URL) {
		t.Errorf("Sign without an answer of the anchor = %v, want an error that names it", err)
	}
	down = false
	if c := l.sign(t); c.Note != string(kept) {
		t.Errorf("kept = %q, want %q", kept, c.Note)
	}
	l.append(t, 20)
	l.grow(t, 0)
	if c := l.sign(t); c.Note != string(kept) {
		t.Errorf("kept = %q, want %q", kept, c.Note)
	}
}

// witness is one that keeps to C2SP tlog-witness, for one log.
type witness struct {
	log    note.Verifier
	signer *fnote.Signer

	mu   sync.Mutex
	last evidence.Checkpoint // guarded by mu
	asks int                 // guarded by mu
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asks++
	body, _ := io.ReadAll(r.Body)
	head, signed, _ := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	c, n, err := evidence.OpenCheckpoint([]byte(signed), note.VerifierList(w.log))
	if err != nil || r.URL.Path != "/add-checkpoint" {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	if lines[0] != fmt.Sprintf("old %d", w.last.Size) {
		rw.WriteHeader(http.StatusConflict)
		fmt.Fprintf(rw, "%d\n", w.last.Size)
		return
	}
	var path tlog.TreeProof
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		path = append(path, h)
	}
	if w.last.Size > 0 && evidence.VerifyConsistency(w.last, c, path) != nil {
		rw.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	cosigned, err := note.Sign(&note.Note{Text: n.Text}, w.signer)
	if err != nil {
		rw.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.last = c
	_, line, _ := strings.Cut(string(cosigned), "\n\n")
	io.WriteString(rw, line)
}

func TestWitness(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	secret, public, err := note.GenerateKey(rand.Reader, "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := fnote.NewSignerForCosignatureV1(secret)
	if err != nil {
		t.Fatal(err)
	}
	there := &witness{log: l.Keys.Verifiers[0], signer: signer}
	server := httptest.NewServer(there)
	defer server.Close()
	w, err := schema.NewWitness(server.URL+"/", public, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	l.Witnesses = []schema.Witness{w}
	for range 3 {
		l.append(t, 300)
		l.grow(t, 0)
		l.sign(t)
	}
	if there.asks != 3 {
		t.Errorf("the witness was asked %d times, want 3", there.asks)
	}
	last, err := schema.LastCheckpoint(t.Context(), l.db)
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := evidence.OpenCheckpoint([]byte(last.Note), note.VerifierList(l.Keys.Verifiers[0], w.Verifier))
	if err != nil || len(n.Sigs) != 2 {
		t.Errorf("OpenCheckpoint = %+v, %v, want the log's signature and the witness's", n, err)
	}

	// The witness knows more than the database does of it.
	tamper(t, l, `DELETE FROM cosignatures`)
	l.append(t, 300)
	l.grow(t, 0)
	l.sign(t)
	var cosigned int64
	if err := l.db.QueryRowContext(t.Context(), `SELECT coalesce(max(size), 0) FROM cosignatures`).Scan(&cosigned); err != nil || cosigned != 1200 {
		t.Errorf("cosigned = %d, %v, want 1200", cosigned, err)
	}

	// What somebody else brings is checked before it is kept.
	if n, err := schema.AddCosignatures(t.Context(), l.db, []byte(last.Note), w.Verifier); err != nil || n != 1 {
		t.Errorf("AddCosignatures = %d, %v, want the one that was lost", n, err)
	}
	if n, err := schema.AddCosignatures(t.Context(), l.db, []byte(last.Note), w.Verifier); err != nil || n != 0 {
		t.Errorf("AddCosignatures a second time = %d, %v, want none", n, err)
	}
	forged := strings.Replace(last.Note, "\n900\n", "\n901\n", 1)
	if _, err := schema.AddCosignatures(t.Context(), l.db, []byte(forged), w.Verifier); !errors.Is(err, evidence.ErrSignature) {
		t.Errorf("AddCosignatures to another checkpoint = %v, want ErrSignature", err)
	}
}

// TestRun signs as the ledger grows and ends with its context.
func TestRun(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	l.Every = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	for range 3 {
		l.append(t, 10)
		l.grow(t, 0)
		for {
			c, err := schema.LastCheckpoint(ctx, l.db)
			if err == nil && c.Size == int64(l.made) {
				break
			}
			if err != nil && !errors.Is(err, schema.ErrNotFound) {
				t.Fatal(err)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}
