package schema_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// signedLedger is a ledger with its tree, its checkpoints and a memory outside the database.
type signedLedger struct {
	*schema.Checkpointer
	db     *schematest.DB
	ledger *schema.Ledger
	vault  *schema.Vault
	anchor schema.FileAnchor
	now    time.Time
	made   int // events appended by this test
}

func newSignedLedger(t *testing.T) *signedLedger {
	t.Helper()
	l := &signedLedger{db: schematest.Open(t), now: time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)}
	l.ledger = schema.OpenLedger(l.db.DB, nil, nil)
	t.Cleanup(l.ledger.Close)
	l.anchor = schema.FileAnchor{Path: filepath.Join(t.TempDir(), "outside", "checkpoint")}
	clock := func() time.Time { return l.now }
	var err error
	if l.vault, err = schema.OpenVault(t.Context(), l.db.DB, treeMasterKey(t), clock); err != nil {
		t.Fatal(err)
	}
	origin, err := schema.Origin(t.Context(), l.db)
	if err != nil {
		t.Fatal(err)
	}
	l.Checkpointer = &schema.Checkpointer{DB: l.db.DB, Origin: origin, Anchors: []schema.Anchor{l.anchor}, Clock: clock}
	l.reloadKeys(t)
	return l
}

func treeMasterKey(t *testing.T) schema.MasterKey {
	t.Helper()
	master, err := schema.ParseMasterKey("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		t.Fatal(err)
	}
	return master
}

func (l *signedLedger) reloadKeys(t *testing.T) {
	t.Helper()
	var err error
	if l.Keys, err = l.vault.SigningKeys(t.Context(), l.Origin); err != nil {
		t.Fatal(err)
	}
}

// append adds n events to the ledger; every seventh has a sealed part.
func (l *signedLedger) append(t testing.TB, n int) {
	t.Helper()
	events := make([]domain.Event, n)
	for i := range events {
		l.made++
		events[i] = domain.Event{
			ID: uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, l.made)), Type: "consent.changed", Stream: fmt.Sprintf("profile-%d", l.made%5),
			Keys:       domain.Keys{Subject: uuid.NewSHA1(uuid.NameSpaceDNS, fmt.Append(nil, l.made%5)), Channel: "email", Purpose: "promo", State: "opted_in"},
			OccurredAt: l.now.Add(time.Duration(l.made) * time.Microsecond), Actor: "reaction-engine", Source: "/test",
			CorrelationID: uuid.New(), Data: fmt.Appendf(nil, `{"n": %d, "name": "Zoë"}`, l.made),
		}
		if l.made%7 == 0 {
			events[i].Sealed = fmt.Append(nil, "sealed", l.made)
		}
	}
	if _, err := l.ledger.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}

// grow brings the tree up to a position as its subscription does, in one slice; 0 is the head.
func (l *signedLedger) grow(t testing.TB, to int64) {
	t.Helper()
	if err := growTree(t.Context(), l.db.DB, to); err != nil {
		t.Fatal(err)
	}
}

func growTree(ctx context.Context, db *sql.DB, to int64) error {
	from, err := schema.TreeSize(ctx, db)
	if err != nil {
		return err
	}
	if to == 0 {
		if to, err = schema.Head(ctx, db); err != nil {
			return err
		}
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	failure, err := schema.Attempt(ctx, tx, schema.Slice{From: from, To: to}, schema.GrowTree)
	if err != nil || failure != nil {
		return errors.Join(err, fmt.Errorf("grow: %+v", failure))
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO subscriptions (name, position) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET position = excluded.position`, schema.TreeSubscription.Name, to); err != nil {
		return err
	}
	return tx.Commit()
}

func (l *signedLedger) sign(t testing.TB) schema.Checkpoint {
	t.Helper()
	c, err := l.Sign(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// leaves are the leaves of all events, recomputed from their rows.
func (l *signedLedger) leaves(t testing.TB) []tlog.Hash {
	t.Helper()
	var leaves []tlog.Hash
	for e, err := range schema.Events(t.Context(), l.db, schema.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, domain.Leaf(domain.Digest(&e.Event), e.Position, e.Version, e.RecordedAt))
	}
	return leaves
}

// mth is the Merkle tree hash as RFC 6962 section 2.1 defines it, word for word.
func mth(leaves []tlog.Hash) tlog.Hash {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	return tlog.NodeHash(mth(leaves[:k]), mth(leaves[k:]))
}

// TestTreeGrows holds the tree, however its slices fall, to the definition: at every size its root, and
// from every checkpoint's size the proofs of every event and of every earlier size.
func TestTreeGrows(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	l.append(t, 1025)
	leaves := l.leaves(t)
	rapid.Check(t, func(r *rapid.T) {
		tamper(t, l, `TRUNCATE tiles, checkpoints, cosignatures`, `DELETE FROM subscriptions`)
		l.Anchors = nil
		total := rapid.SampledFrom([]int{1, 2, 255, 256, 257, 511, 512, 700, 1025}).Draw(r, "events")
		var sizes []int64
		for at := 0; at < total; {
			at = min(total, at+rapid.SampledFrom([]int{1, 3, 100, 255, 256, 300, 2000}).Draw(r, "slice"))
			l.grow(t, int64(at))
			if rapid.Bool().Draw(r, "checkpoint") || at == total {
				if c := l.sign(t); c.Size != int64(at) || c.Root != mth(leaves[:at]) {
					r.Fatalf("checkpoint of size %d = %d, %s, want root %s", at, c.Size, c.Root, mth(leaves[:at]))
				}
				sizes = append(sizes, int64(at))
			}
		}
		for range 10 {
			size := rapid.SampledFrom(sizes).Draw(r, "proof in")
			position := rapid.Int64Range(1, size).Draw(r, "position")
			proof, err := schema.InclusionProof(t.Context(), l.db, position, size)
			if err != nil {
				r.Fatal(err)
			}
			if c, _, err := proof.Verify(leaves[position-1], note.VerifierList(l.Keys.Verifiers...)); err != nil || c.Size != size {
				r.Fatalf("Verify = %+v, %v, want size %d", c, err, size)
			}
			other := leaves[position-1]
			other[0] ^= 1
			if _, _, err := proof.Verify(other, note.VerifierList(l.Keys.Verifiers...)); !errors.Is(err, evidence.ErrTree) {
				r.Fatalf("Verify of another leaf = %v, want ErrTree", err)
			}
			from := rapid.Int64Range(1, size).Draw(r, "consistent from")
			path, err := schema.ConsistencyProof(t.Context(), l.db, from, size)
			if err != nil {
				r.Fatal(err)
			}
			earlier := evidence.Checkpoint{Origin: l.Origin, Size: from, Root: mth(leaves[:from])}
			later := evidence.Checkpoint{Origin: l.Origin, Size: size, Root: mth(leaves[:size])}
			if err := evidence.VerifyConsistency(earlier, later, path); err != nil {
				r.Fatal(err)
			}
			if earlier.Root[0] ^= 1; evidence.VerifyConsistency(earlier, later, path) == nil {
				r.Fatal("another earlier root is consistent too")
			}
		}
	})
}

// TestTreeIsBuiltAgain shows that the tree's cursor may be set back: the tiles come out the same, and one that would not stops it.
func TestTreeIsBuiltAgain(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	l.append(t, 600)
	l.grow(t, 0)
	want := l.sign(t)
	if _, err := l.db.ExecContext(t.Context(), `UPDATE subscriptions SET position = 0 WHERE name = 'tree'`); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sign(t.Context()); !errors.Is(err, schema.ErrTreeBehind) {
		t.Errorf("Sign while the tree is being built again = %v, want ErrTreeBehind", err)
	}
	l.grow(t, 300)
	l.grow(t, 0)
	if got := l.sign(t); got.Checkpoint != want.Checkpoint {
		t.Errorf("built again = %+v, want %+v", got, want)
	}

	tamper(t, l, `UPDATE tiles SET hashes = set_byte(hashes, 40, 255 - get_byte(hashes, 40)) WHERE n = 1`,
		`UPDATE subscriptions SET position = 0 WHERE name = 'tree'`)
	if err := growTree(t.Context(), l.db.DB, 0); err == nil || !strings.Contains(err.Error(), "tile 1 of level 0") {
		t.Errorf("grow over a tile that was changed = %v, want ErrTree that names it", err)
	}
}

// tamper does what somebody with the database's administrator rights could: triggers do not fire for them.
func tamper(t testing.TB, l *signedLedger, statements ...string) {
	t.Helper()
	tx, err := l.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append([]string{"SET LOCAL session_replication_role = replica"}, statements...) {
		if _, err := tx.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestTile(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	l.append(t, 600)
	l.grow(t, 0)
	leaves := l.leaves(t)
	for name, tc := range map[string]struct {
		level   int
		n       int64
		width   int
		want    []tlog.Hash
		wantErr bool
	}{
		"a full tile of leaves":                    {0, 1, 256, leaves[256:512], false},
		"the last tile, partly filled":             {0, 2, 88, leaves[512:], false},
		"a narrower tile, of a smaller tree":       {0, 1, 10, leaves[256:266], false},
		"tiles of the level below, by their roots": {1, 0, 2, []tlog.Hash{mth(leaves[:256]), mth(leaves[256:512])}, false},
		"wider than the tree has grown":            {0, 2, 89, nil, true},
		"a level that the tree has not reached":    {2, 0, 1, nil, true},
		"no width":                                 {0, 0, 0, nil, true},
		"a tile before the first":                  {0, -1, 256, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := schema.Tile(t.Context(), l.db, tc.level, tc.n, tc.width)
			if tc.wantErr {
				if !errors.Is(err, schema.ErrNotFound) {
					t.Errorf("Tile = %v, want ErrNotFound", err)
				}
				return
			}
			var want []byte
			for _, h := range tc.want {
				want = append(want, h[:]...)
			}
			if err != nil || string(got) != string(want) {
				t.Errorf("Tile = %x, %v, want %x", got, err, want)
			}
		})
	}
}

// liveEvent is one of a writer's events.
func liveEvent(writer, call, n int) domain.Event {
	return domain.Event{
		ID: uuid.New(), Type: "consent.changed", Stream: fmt.Sprintf("profile-%d", writer), Actor: "test", Source: "/test",
		Data: fmt.Appendf(nil, `{"writer":%d,"call":%d,"n":%d}`, writer, call, n),
	}
}
