package evidence

import (
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/tlog"
)

// RangeProof proves that a stretch of the ledger is what a checkpoint covers: with the leaves of all its events, the hashes to
// the left of it and to the right give the checkpoint's root. There are about two for each doubling of the tree.
type RangeProof struct {
	From  int64       `json:"from"` // the events after this position,
	To    int64       `json:"to"`   // up to this one
	Left  []tlog.Hash `json:"left"`
	Right []tlog.Hash `json:"right"`
}

// RangeNodes are the nodes whose hashes a range proof consists of: those of the compact ranges before and behind the stretch.
func RangeNodes(from, to, size int64) (left, right []compact.NodeID) {
	return compact.RangeNodes(0, uint64(from), nil), compact.RangeNodes(uint64(to), uint64(size), nil) //nolint:gosec // positions are not negative
}

// RangeVerifier takes a stretch's leaves in order, and then says whether they prove it.
type RangeVerifier struct {
	proof   RangeProof
	factory *compact.RangeFactory
	tree    *compact.Range
	err     error
}

// NewRangeVerifier begins. A proof that cannot be one is ErrFormat.
func NewRangeVerifier(p RangeProof) (*RangeVerifier, error) {
	v := &RangeVerifier{proof: p, factory: &compact.RangeFactory{Hash: func(left, right []byte) []byte {
		h := tlog.NodeHash(tlog.Hash(left), tlog.Hash(right))
		return h[:]
	}}}
	if p.From < 0 || p.To <= p.From {
		return nil, fmt.Errorf("%w: a proof of the events after %d, up to %d", ErrFormat, p.From, p.To)
	}
	var err error
	if v.tree, err = v.factory.NewRange(0, uint64(p.From), bytesOf(p.Left)); err != nil {
		return nil, fmt.Errorf("%w: range proof: %w", ErrFormat, err)
	}
	return v, nil
}

func bytesOf(hashes []tlog.Hash) [][]byte {
	out := make([][]byte, len(hashes))
	for i := range hashes {
		out[i] = hashes[i][:]
	}
	return out
}

// Add takes the next leaf.
func (v *RangeVerifier) Add(leaf tlog.Hash) {
	if v.err == nil {
		v.err = v.tree.Append(leaf[:], nil)
	}
}

// Verify checks that all leaves came, and that they give the checkpoint's root. Errors: ErrFormat, ErrTree.
func (v *RangeVerifier) Verify(c Checkpoint) error {
	switch {
	case v.err != nil:
		return fmt.Errorf("%w: range proof: %w", ErrFormat, v.err)
	case v.tree.End() != uint64(v.proof.To): //nolint:gosec // positive, see NewRangeVerifier
		return fmt.Errorf("%w: it holds the events up to %d, and its proof is of those up to %d", ErrTree, v.tree.End(), v.proof.To)
	case c.Size < v.proof.To:
		return fmt.Errorf("%w: the checkpoint covers %d events, and the range ends at %d", ErrTree, c.Size, v.proof.To)
	}
	right, err := v.factory.NewRange(uint64(v.proof.To), uint64(c.Size), bytesOf(v.proof.Right)) //nolint:gosec // positive
	if err != nil {
		return fmt.Errorf("%w: range proof: %w", ErrFormat, err)
	}
	if err := v.tree.AppendRange(right, nil); err != nil {
		return fmt.Errorf("%w: range proof: %w", ErrFormat, err)
	}
	root, err := v.tree.GetRootHash(nil)
	if err != nil {
		return fmt.Errorf("%w: range proof: %w", ErrFormat, err)
	}
	if tlog.Hash(root) != c.Root {
		return fmt.Errorf("%w: the events after %d, up to %d, are not those that the checkpoint covers", ErrTree, v.proof.From, v.proof.To)
	}
	return nil
}
