package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

var (
	// ErrRewound is a ledger that is not a continuation of what was signed: it lost events, or they were changed. Nothing is
	// signed any more; the message says what to do.
	ErrRewound = errors.New("the ledger does not continue what was signed")
	// ErrTreeBehind is a tree that has not yet grown to where a checkpoint covers what is asked. Try again later.
	ErrTreeBehind = errors.New("the tree is behind")
)

// Checkpoint is a stored one.
type Checkpoint struct {
	evidence.Checkpoint
	Note     string    // the signed note with the cosignatures that have come in, ready to be served as text/plain
	SignedAt time.Time // by our clock
}

// LastCheckpoint is the newest one, or ErrNotFound before the first.
func LastCheckpoint(ctx context.Context, q Querier) (Checkpoint, error) {
	return readCheckpoint(ctx, q, `ORDER BY size DESC LIMIT 1`)
}

// CheckpointAt is the first one that covers the event at a position, or ErrNotFound when none does yet.
func CheckpointAt(ctx context.Context, q Querier, position int64) (Checkpoint, error) {
	return readCheckpoint(ctx, q, `WHERE size >= $1 ORDER BY size LIMIT 1`, position)
}

func readCheckpoint(ctx context.Context, q Querier, which string, args ...any) (c Checkpoint, err error) {
	err = q.QueryRowContext(ctx, `SELECT note || coalesce((SELECT string_agg(line, '' ORDER BY witness) FROM cosignatures s WHERE s.size = c.size), ''), signed_at
		FROM (SELECT * FROM checkpoints `+which+`) c`, args...).Scan(&c.Note, &c.SignedAt)
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("checkpoint: %w", ErrNotFound)
	}
	if err != nil {
		return c, fmt.Errorf("checkpoint: %w", unavailable(err))
	}
	c.SignedAt = c.SignedAt.UTC()
	c.Checkpoint, err = evidence.ParseCheckpoint(c.Note)
	return c, err
}

// Checkpointer signs the tree. Everything that follows from a checkpoint rests on it, so it signs nothing that does not
// continue what was signed before, by this database's memory and by that of its anchors.
//
// Several processes may run one each over the same ledger; they take turns.
type Checkpointer struct {
	DB        *sql.DB
	Origin    string        // name of the log, see Origin
	Keys      SigningKeys   // see Vault.SigningKeys
	Anchors   []Anchor      // memories outside the database; each must answer before anything is signed
	Witnesses []Witness     // asked for a cosignature of each checkpoint
	Every     time.Duration // between checkpoints while the ledger grows; 0 is 5 s
	Clock     func() time.Time
	Log       *slog.Logger // nil discards
}

const defaultCheckpointEvery = 5 * time.Second

// Run signs a checkpoint whenever the tree has grown, at most once in Every, until the context ends. A failure is
// logged and tried again; only ErrRewound ends it, because nothing but a person can mend that.
func (c *Checkpointer) Run(ctx context.Context) error {
	every := c.Every
	if every <= 0 {
		every = defaultCheckpointEvery
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		_, err := c.Sign(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrRewound):
			c.log().ErrorContext(ctx, "checkpoints are no longer signed", slog.Any("error", err))
			return err
		case errors.Is(err, ErrTreeBehind):
			c.log().DebugContext(ctx, "no checkpoint yet", slog.Any("error", err))
		case err != nil:
			c.log().WarnContext(ctx, "no checkpoint was signed; trying again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (c *Checkpointer) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// Sign signs the tree as it stands and returns the newest checkpoint, which is the one before if nothing was appended
// since. Errors: ErrRewound; ErrTree; ErrTreeBehind while the tree is being built again; an anchor's.
func (c *Checkpointer) Sign(ctx context.Context) (Checkpoint, error) {
	last, signed, err := c.sign(ctx)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("sign checkpoint: %w", err)
	}
	if signed {
		c.log().InfoContext(ctx, "checkpoint signed", slog.Int64("size", last.Size), slog.String("root", last.Root.String()))
		c.askWitnesses(ctx, last)
	}
	return last, nil
}

func (c *Checkpointer) sign(ctx context.Context) (last Checkpoint, signed bool, err error) {
	tx, err := c.DB.BeginTx(ctx, nil)
	if err != nil {
		return last, false, unavailable(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.checkpoint', 0))`); err != nil {
		return last, false, unavailable(err)
	}
	size, err := TreeSize(ctx, tx)
	if err != nil {
		return last, false, err
	}
	last, err = LastCheckpoint(ctx, tx)
	first := errors.Is(err, ErrNotFound)
	switch {
	case first && size == 0:
		return last, false, fmt.Errorf("%w: it holds no event", ErrTreeBehind)
	case first:
	case err != nil:
		return last, false, err
	default:
		all, err := PublicSigningKeys(ctx, tx) // the last one may have been signed under another origin
		if err != nil {
			return last, false, err
		}
		if err := continues(ctx, tx, size, []byte(last.Note), all, "the last checkpoint in the database"); err != nil {
			return last, false, err
		}
	}
	own := note.VerifierList(c.Keys.Verifiers...)
	for _, a := range c.Anchors {
		kept, err := a.Last(ctx, c.Origin)
		if err != nil {
			return last, false, fmt.Errorf("ask %s for the last checkpoint: %w", a, err)
		}
		if kept == nil {
			continue
		}
		if err := continues(ctx, tx, size, kept, own, "the checkpoint kept at "+a.String()); err != nil {
			return last, false, err
		}
	}
	if !first && last.Size == size {
		return last, false, c.keep(ctx, []byte(last.Note))
	}

	root, err := TreeRoot(ctx, tx, size)
	if err != nil {
		return last, false, err
	}
	next := Checkpoint{Checkpoint: evidence.Checkpoint{Origin: c.Origin, Size: size, Root: root}, SignedAt: c.Clock().UTC().Truncate(time.Microsecond)}
	text, err := note.Sign(&note.Note{Text: next.Text()}, c.Keys.Signers...)
	if err != nil {
		return last, false, err
	}
	next.Note = string(text)
	// The anchors first. If we were to crash after this, an anchor has a checkpoint that the database has not; the tree under
	// it is committed, so the next run finds that it continues it, and signs the same again.
	if err := c.keep(ctx, text); err != nil {
		return last, false, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO checkpoints (size, root, note, signed_at) VALUES ($1, $2, $3, $4)`,
		next.Size, next.Root[:], next.Note, next.SignedAt); err != nil {
		return last, false, unavailable(err)
	}
	return next, true, unavailable(tx.Commit())
}

func (c *Checkpointer) keep(ctx context.Context, signed []byte) error {
	for _, a := range c.Anchors {
		if err := a.Keep(ctx, c.Origin, signed); err != nil {
			return fmt.Errorf("keep the checkpoint at %s: %w", a, err)
		}
	}
	return nil
}

// continues checks that the tree of a size begins with what a checkpoint signed.
func continues(ctx context.Context, q Querier, size int64, signed []byte, known note.Verifiers, where string) error {
	before, _, err := evidence.OpenCheckpoint(signed, known)
	if err != nil {
		return fmt.Errorf("%w: %s: %w. If the ledger was given a new signing key or origin on purpose, put that checkpoint aside, and keep it", ErrRewound, where, err)
	}
	if before.Size > size {
		head, err := Head(ctx, q)
		if err != nil {
			return err
		}
		if head >= before.Size {
			return fmt.Errorf("%w: it holds %d events and is being built up to %d again", ErrTreeBehind, size, before.Size)
		}
		return fmt.Errorf("%w: %s covers %d events, and the ledger ends at %d. The database was restored from an older backup or cut short. "+
			"Restore one that reaches position %d. If there is none, the events are lost: put that checkpoint aside as the proof of it; what is "+
			"signed from then on forks from it, and whoever saw it will notice", ErrRewound, where, before.Size, head, before.Size)
	}
	root, err := TreeRoot(ctx, q, before.Size)
	if err != nil {
		return err
	}
	if root != before.Root {
		return fmt.Errorf("%w: %s signed the first %d events with root %s, and they now have root %s. Events, or the tree over them, were changed after they were signed. "+
			"Find which with: dispatch-ledger verify. Then restore the database from a backup that holds them as they were", ErrRewound, where, before.Size, before.Root, root)
	}
	return nil
}

// AddCosignatures stores the witnesses' signatures in a signed note of a stored checkpoint, those that hold. A later one of
// the same witness is passed over. It returns how many were new. ErrNotFound is a checkpoint that was never signed here.
func AddCosignatures(ctx context.Context, q Querier, signed []byte, witnesses ...note.Verifier) (int, error) {
	text, _, _ := strings.Cut(string(signed), "\n\n")
	c, err := evidence.ParseCheckpoint(text + "\n")
	if err != nil {
		return 0, err
	}
	n, err := note.Open(signed, note.VerifierList(witnesses...))
	if err != nil {
		return 0, fmt.Errorf("%w: cosignatures: %w", evidence.ErrSignature, err)
	}
	stored, err := readCheckpoint(ctx, q, `WHERE size = $1`, c.Size)
	if err != nil {
		return 0, err
	}
	if stored.Checkpoint != c {
		return 0, fmt.Errorf("checkpoint of size %d and root %s: %w", c.Size, c.Root, ErrNotFound)
	}
	added := int64(0)
	for _, s := range n.Sigs {
		at, err := cosignedAt(s)
		if err != nil {
			return int(added), err
		}
		result, err := q.ExecContext(ctx, `INSERT INTO cosignatures (size, witness, line, cosigned_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			c.Size, fmt.Sprintf("%s+%08x", s.Name, s.Hash), fmt.Sprintf("— %s %s\n", s.Name, s.Base64), at)
		if err != nil {
			return int(added), fmt.Errorf("store cosignature: %w", unavailable(err))
		}
		one, err := result.RowsAffected()
		if err != nil {
			return int(added), err
		}
		added += one
	}
	return int(added), nil
}

// InclusionProof proves that the event at a position stands in the tree of a checkpoint's size. A size of 0 is that of the
// newest checkpoint. Errors: ErrTreeBehind when no checkpoint covers the event yet; ErrTree when what is stored does not
// prove it; ErrNotFound when no checkpoint has that size.
func InclusionProof(ctx context.Context, q Querier, position, size int64) (evidence.Proof, error) {
	var c Checkpoint
	var err error
	if size == 0 {
		c, err = LastCheckpoint(ctx, q)
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("%w: no checkpoint has been signed", ErrTreeBehind)
		}
	} else {
		c, err = readCheckpoint(ctx, q, `WHERE size = $1`, size)
	}
	if err != nil {
		return evidence.Proof{}, fmt.Errorf("proof of position %d: %w", position, err)
	}
	path, err := inclusionPath(ctx, q, position, c.Checkpoint)
	return evidence.Proof{Position: position, Path: path, Checkpoint: []byte(c.Note)}, err
}

func inclusionPath(ctx context.Context, q Querier, position int64, c evidence.Checkpoint) (tlog.RecordProof, error) {
	switch {
	case position < 1:
		return nil, fmt.Errorf("proof of position %d: %w", position, ErrNotFound)
	case position > c.Size:
		return nil, fmt.Errorf("proof of position %d: %w: the checkpoint covers %d events", position, ErrTreeBehind, c.Size)
	}
	path, err := tlog.ProveRecord(c.Size, position-1, tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: c.Root}, tiles{ctx: ctx, q: q}))
	return path, treeError(err, "proof of position %d", position)
}

// ConsistencyProof proves that the tree of size to begins with the tree of size from; both must be sizes of stored
// checkpoints, or from 0, which needs no proof. Errors as InclusionProof.
func ConsistencyProof(ctx context.Context, q Querier, from, to int64) (tlog.TreeProof, error) {
	c, err := readCheckpoint(ctx, q, `WHERE size = $1`, to)
	if err != nil {
		return nil, fmt.Errorf("consistency of %d with %d: %w", from, to, err)
	}
	if from == 0 {
		return nil, nil
	}
	if from < 0 || from > to {
		return nil, fmt.Errorf("consistency of %d with %d: %w", from, to, ErrNotFound)
	}
	path, err := tlog.ProveTree(to, from, tlog.TileHashReader(tlog.Tree{N: to, Hash: c.Root}, tiles{ctx: ctx, q: q}))
	return path, treeError(err, "consistency of %d with %d", from, to)
}

// treeError tells a tree that does not hold from a database that does not answer.
func treeError(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	switch {
	case err == nil:
		return nil
	case Transient(err), errors.Is(err, ErrTree), errors.Is(err, ErrNotFound):
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrTree, err)
}
