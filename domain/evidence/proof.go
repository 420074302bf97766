package evidence

import (
	"fmt"
	"math"

	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Proof says that the event at Position stands in the tree that Checkpoint signs.
type Proof struct {
	Position   int64            // of the event, from 1; its index in the tree is one less
	Path       tlog.RecordProof // sibling hashes from the leaf up, RFC 6962 section 2.1.1
	Checkpoint []byte           // the signed note, cosignatures included
}

// MarshalText writes the proof as C2SP tlog-proof has it; the file's extension is .tlog-proof.
func (p Proof) MarshalText() ([]byte, error) {
	if p.Position < 1 {
		return nil, fmt.Errorf("%w: a proof of position %d", ErrFormat, p.Position)
	}
	raw := proof.TLogProof{Index: uint64(p.Position - 1), Checkpoint: p.Checkpoint}
	for _, h := range p.Path {
		raw.Hashes = append(raw.Hashes, h)
	}
	return raw.Marshal(), nil
}

// UnmarshalText reads a tlog-proof. Extra data in it is passed over: it is not under the signature. Errors: ErrFormat.
func (p *Proof) UnmarshalText(text []byte) error {
	var raw proof.TLogProof
	if err := raw.Unmarshal(text); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if raw.Index >= math.MaxInt64 || len(raw.Hashes) > 63 {
		return fmt.Errorf("%w: the proof's index or length is out of range", ErrFormat)
	}
	*p = Proof{Position: int64(raw.Index) + 1, Checkpoint: raw.Checkpoint}
	for _, h := range raw.Hashes {
		p.Path = append(p.Path, h)
	}
	return nil
}

// Verify checks that leaf stands at the proof's position in a tree that one of the known keys signed, and returns the
// checkpoint that says so. Errors: ErrSignature, ErrTree, ErrFormat.
func (p Proof) Verify(leaf tlog.Hash, known note.Verifiers) (Checkpoint, *note.Note, error) {
	c, n, err := OpenCheckpoint(p.Checkpoint, known)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, n, p.in(c, leaf)
}

// in checks the path from the leaf to the root of a checkpoint that is known to be good.
func (p Proof) in(c Checkpoint, leaf tlog.Hash) error {
	if p.Position < 1 || p.Position > c.Size {
		return fmt.Errorf("%w: position %d is not among the %d events that the checkpoint covers", ErrTree, p.Position, c.Size)
	}
	if err := tlog.CheckRecord(p.Path, c.Size, c.Root, p.Position-1, leaf); err != nil {
		return fmt.Errorf("%w: the event is not the one that the ledger signed at position %d", ErrTree, p.Position)
	}
	return nil
}

// VerifyConsistency checks that a later checkpoint's tree begins with an earlier one's: nothing was changed or
// taken away in between. Errors: ErrTree.
func VerifyConsistency(earlier, later Checkpoint, path tlog.TreeProof) error {
	switch {
	case earlier.Origin != later.Origin:
		return fmt.Errorf("%w: one is of %s, the other of %s", ErrTree, earlier.Origin, later.Origin)
	case earlier.Size > later.Size:
		return fmt.Errorf("%w: the later checkpoint covers %d events, the earlier one %d", ErrTree, later.Size, earlier.Size)
	case earlier.Size == 0:
		return nil // everything continues nothing
	}
	if err := tlog.CheckTree(path, later.Size, later.Root, earlier.Size, earlier.Root); err != nil {
		return fmt.Errorf("%w: the first %d events are not those that were signed before", ErrTree, earlier.Size)
	}
	return nil
}
