package schema

import (
	"context"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

// RangeProof proves a stretch of the ledger, the events after from, up to to, in the tree of a checkpoint. Errors: ErrTreeBehind
// when the checkpoint does not cover it; ErrTree when what is stored does not prove it.
func RangeProof(ctx context.Context, q Querier, from, to int64, c evidence.Checkpoint) (evidence.RangeProof, error) {
	p := evidence.RangeProof{From: from, To: to}
	if to > c.Size {
		return p, fmt.Errorf("proof of positions %d to %d: %w: the checkpoint covers %d events", from+1, to, ErrTreeBehind, c.Size)
	}
	left, right := evidence.RangeNodes(from, to, c.Size)
	reader := tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: c.Root}, tiles{ctx: ctx, q: q})
	read := func(nodes []compact.NodeID) ([]tlog.Hash, error) {
		if len(nodes) == 0 {
			return nil, nil
		}
		indexes := make([]int64, len(nodes))
		for i, n := range nodes {
			indexes[i] = tlog.StoredHashIndex(int(n.Level), int64(n.Index)) //nolint:gosec // below the tree's size
		}
		return reader.ReadHashes(indexes)
	}
	var err error
	if p.Left, err = read(left); err == nil {
		p.Right, err = read(right)
	}
	return p, treeError(err, "proof of positions %d to %d", from+1, to)
}
