package schema

import (
	"context"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

// chunk is what verifying a range of the ledger by itself gives: the problems in it, and its part of the tree.
type chunk struct {
	from, to            int64
	events, checkpoints int64
	firstAt, lastAt     int64 // recorded_at
	problems            []Problem
	pieces              []piece        // of the tree, from left to right; a piece ends at a checkpoint or at the end
	roots               []byte         // of the level 0 tiles that end in it
	torn                map[int64]bool // level 0 tiles that disagree with themselves and with a leaf
	kept                int64          // the events up to here were archived: their leaves stand in the tiles alone
	whole               bool           // every leaf of it is known, from the row or from a tile
	err                 error
}

// piece is a range of the tree that ends where a checkpoint was signed, or where the chunk ends.
type piece struct {
	leaves *compact.Range
	signed *evidence.Checkpoint
}

// problem reports one; the same about neighbours is one problem with a range of them.
func (c *chunk) problem(kind ProblemKind, position, to int64, format string, args ...any) {
	p := Problem{Kind: kind, Position: position, To: max(position, to), Message: fmt.Sprintf(format, args...)}
	for i := len(c.problems) - 1; i >= 0 && i > len(c.problems)-3; i-- { // an event has at most two
		if last := &c.problems[i]; last.Kind == kind && last.Message == p.Message && last.To+1 == position {
			last.To = p.To
			return
		}
	}
	if len(c.problems) <= maxProblems {
		c.problems = append(c.problems, p)
	}
}

// chunk verifies the events after from, up to to.
//
// Three things may disagree about an event: its row, its leaf, and the tile. The leaf is compared with what the row
// hashes to; then the tile's hash with the leaf. The tree above is computed from the tiles where they are whole in themselves, so
// that one event that was changed, with its leaf or without, is one problem at its position and not a wrong root as well.
func (v *verification) chunk(ctx context.Context, from, to int64) (c chunk) {
	c = chunk{from: from, to: to, kept: v.report.Archived, whole: true, firstAt: 1<<63 - 1}
	signed, err := v.checkpoints(ctx, &c)
	if err != nil {
		c.err = err
		return c
	}
	stored, err := readTiles(ctx, v.db, 0, from/tileWidth, (to+tileWidth-1)/tileWidth)
	if err != nil {
		c.err = err
		return c
	}
	leaves, err := v.leaves(ctx, &c, stored)
	if err != nil {
		c.err = err
		return c
	}

	b := builder{v: v, c: &c, signed: signed, next: v.ranges.NewEmptyRange(uint64(from))} //nolint:gosec // a position is not negative
	for at := from; at < to && c.whole; {
		end := min((at/tileWidth+1)*tileWidth, to)
		block := leaves[(at-from)*tlog.HashSize : (end-from)*tlog.HashSize]
		t, ok := stored[at/tileWidth]
		if c.err = b.add(block, ok && t.whole && end-at == tileWidth, t.root); c.err != nil {
			return c
		}
		at = end
	}
	c.pieces = append(c.pieces, piece{leaves: b.next})
	for n := from / tileWidth; (n+1)*tileWidth <= to && c.whole; n++ {
		t, ok := stored[n]
		if !ok && (n+1)*tileWidth <= v.treeSize {
			c.problem(ProblemTree, n*tileWidth+1, (n+1)*tileWidth, "tile %d of level 0 is missing", n)
		}
		switch {
		case ok && t.whole:
			c.roots = append(c.roots, t.root[:]...)
		case n*tileWidth >= from:
			root := subtreeRoot(leaves[(n*tileWidth-from)*tlog.HashSize : ((n+1)*tileWidth-from)*tlog.HashSize])
			c.roots = append(c.roots, root[:]...)
		default: // it began before what is verified here, and its tile does not tell: the leaves before are read for it
			before, err := readLeaves(ctx, v.db, n*tileWidth, from)
			if err != nil {
				c.err = err
				return c
			}
			root := subtreeRoot(append(before, leaves[:((n+1)*tileWidth-from)*tlog.HashSize]...))
			c.roots = append(c.roots, root[:]...)
		}
	}
	return c
}

// builder puts a chunk's leaves together, from left to right.
type builder struct {
	v      *verification
	c      *chunk
	signed []evidence.Checkpoint // those still ahead, by size
	next   *compact.Range        // since the last piece
}

// add appends a block of leaves. A whole tile with no checkpoint inside goes in as its root.
func (b *builder) add(block []byte, tile bool, root tlog.Hash) error {
	begin, end := b.next.End(), b.next.End()+uint64(len(block)/tlog.HashSize)
	if tile && (len(b.signed) == 0 || uint64(b.signed[0].Size) >= end) { //nolint:gosec // a size is not negative
		one, err := b.v.ranges.NewRange(begin, end, [][]byte{root[:]})
		if err == nil {
			err = b.next.AppendRange(one, nil)
		}
		if err != nil {
			return err
		}
		b.cut()
		return nil
	}
	for ; len(block) > 0; block = block[tlog.HashSize:] {
		if err := b.next.Append(block[:tlog.HashSize:tlog.HashSize], nil); err != nil {
			return err
		}
		b.cut()
	}
	return nil
}

// cut ends a piece where a checkpoint was signed.
func (b *builder) cut() {
	if len(b.signed) > 0 && uint64(b.signed[0].Size) == b.next.End() { //nolint:gosec // a size is not negative
		b.c.pieces = append(b.c.pieces, piece{leaves: b.next, signed: &b.signed[0]})
		b.signed = b.signed[1:]
		b.next = b.v.ranges.NewEmptyRange(b.next.End())
	}
}

// leaves reads the events of a chunk, checks each, and returns the leaves that the tree over them is made of.
func (v *verification) leaves(ctx context.Context, c *chunk, stored map[int64]storedTile) ([]byte, error) {
	rows, err := v.events.QueryContext(ctx, c.from, c.to)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", unavailable(err))
	}
	defer rows.Close()
	leaves := make([]byte, (c.to-c.from)*tlog.HashSize)
	next := c.from + 1
	var w wireReader
	for rows.Next() {
		e, err := w.scan(rows)
		if err != nil {
			return nil, err
		}
		c.events++
		next = c.missing(leaves, stored, next, e.Position)
		leaf := domain.Leaf(domain.Digest(&e.Event), e.Position, e.Version, e.RecordedAt)
		if !sameHash(leaf, e.Leaf) {
			c.problem(ProblemLeaf, e.Position, 0, "the event is not what its leaf commits to: it was changed after it was appended")
		}
		at := e.RecordedAt.UnixMicro()
		if c.firstAt = min(c.firstAt, at); at < c.lastAt {
			c.problem(ProblemLeaf, e.Position, 0, "the event was recorded before the one before it")
		}
		c.lastAt = at
		c.place(leaves, stored, e.Position, e.Leaf)
		next++
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read events: %w", unavailable(err))
	}
	c.missing(leaves, stored, next, c.to+1)
	for n, t := range stored {
		if !t.whole && !c.torn[n] {
			c.problem(ProblemTree, n*tileWidth+1, (n+1)*tileWidth, "tile %d of level 0 is stored with a root that its hashes do not give", n)
		}
	}
	return leaves, nil
}

// missing reports the events from one position up to but not including another, and takes their leaves from the tiles.
func (c *chunk) missing(leaves []byte, stored map[int64]storedTile, from, to int64) int64 {
	if from == to {
		return to
	}
	if gone := max(from, c.kept+1); gone < to {
		c.problem(ProblemLeaf, gone, to-1, "the event is missing: it was deleted, or its position was changed")
	}
	for p := from; p < to; p++ {
		t, ok := stored[(p-1)/tileWidth]
		if !ok || !t.whole {
			c.whole = false
			continue
		}
		copy(leaves[(p-1-c.from)*tlog.HashSize:], t.hash(p))
	}
	return to
}

// place puts an event's leaf where it belongs, after comparing it with the tile's.
func (c *chunk) place(leaves []byte, stored map[int64]storedTile, position int64, leaf []byte) {
	at := leaves[(position-1-c.from)*tlog.HashSize:][:tlog.HashSize]
	copy(at, leaf)
	t, ok := stored[(position-1)/tileWidth]
	if !ok {
		return
	}
	if kept := t.hash(position); string(kept) != string(leaf) {
		if n := (position - 1) / tileWidth; !t.whole {
			if c.torn == nil {
				c.torn = map[int64]bool{}
			}
			c.torn[n] = true
			c.problem(ProblemTree, position, 0, "tile %d of level 0 holds another hash than the event's leaf, and its hashes do not give its root: the tile was changed", n)
			return
		}
		c.problem(ProblemTree, position, 0, "the event's leaf is not the one that the tree took in: the event was rewritten together with its leaf")
		c.problems[len(c.problems)-1].disputed = true
		copy(at, kept)
	}
}

// checkpoints reads and checks those signed within a chunk, and returns those that hold.
func (v *verification) checkpoints(ctx context.Context, c *chunk) ([]evidence.Checkpoint, error) {
	rows, err := v.db.QueryContext(ctx, `SELECT size, root, note || coalesce((SELECT string_agg(line, '' ORDER BY witness) FROM cosignatures s WHERE s.size = c.size), '')
		FROM checkpoints c WHERE size > $1 AND size <= $2 ORDER BY size`, c.from, c.to)
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", unavailable(err))
	}
	defer rows.Close()
	var signed []evidence.Checkpoint
	for rows.Next() {
		var size int64
		var root []byte
		var text string
		if err := rows.Scan(&size, &root, &text); err != nil {
			return nil, fmt.Errorf("read checkpoints: %w", unavailable(err))
		}
		c.checkpoints++
		opened, _, err := evidence.OpenCheckpoint([]byte(text), v.keys)
		switch {
		case err != nil:
			c.problem(ProblemSignature, size, 0, "the checkpoint of this size: %s", err)
		case opened.Size != size || !sameHash(opened.Root, root):
			c.problem(ProblemSignature, size, 0, "the checkpoint is stored as size %d and root %x, and what was signed says size %d and root %x", size, root, opened.Size, opened.Root[:])
		default:
			signed = append(signed, opened)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", unavailable(err))
	}
	return signed, nil
}

// storedTile is a full tile as the table has it.
type storedTile struct {
	root   tlog.Hash
	hashes []byte
	whole  bool // the hashes give the root
}

// hash is the one at an event's position, in a tile of level 0.
func (t storedTile) hash(position int64) []byte {
	at := (position - 1) % tileWidth * tlog.HashSize
	return t.hashes[at : at+tlog.HashSize]
}

// readTiles reads a level's tiles from number from, up to but not including number to.
func readTiles(ctx context.Context, q Querier, level int, from, to int64) (map[int64]storedTile, error) {
	rows, err := q.QueryContext(ctx, `SELECT n, root, hashes FROM tiles WHERE level = $1 AND n >= $2 AND n < $3`, level, from, to)
	if err != nil {
		return nil, fmt.Errorf("read tiles: %w", unavailable(err))
	}
	defer rows.Close()
	stored := make(map[int64]storedTile, to-from)
	for rows.Next() {
		var n int64
		var root, hashes []byte
		if err := rows.Scan(&n, &root, &hashes); err != nil {
			return nil, fmt.Errorf("read tiles: %w", unavailable(err))
		}
		if len(root) == tlog.HashSize && len(hashes) == tileSize { // one that is neither is none
			stored[n] = storedTile{root: tlog.Hash(root), hashes: hashes, whole: sameHash(subtreeRoot(hashes), root)}
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read tiles: %w", unavailable(err))
	}
	return stored, nil
}
