package schema

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

// ProblemKind says what does not hold.
type ProblemKind string

// The kinds of problem.
const (
	ProblemLeaf      ProblemKind = "leaf"      // an event is missing, or is not what its leaf commits to
	ProblemTree      ProblemKind = "tree"      // leaf, tile and signed root do not agree
	ProblemSignature ProblemKind = "signature" // a checkpoint is not what the log, or a witness, signed
	ProblemGuard     ProblemKind = "guard"     // what keeps the tables append-only is missing
)

// Problem is something that does not hold.
type Problem struct {
	Kind     ProblemKind `json:"kind"`
	Position int64       `json:"position,omitempty"` // of the first event that it is about; 0 when it is about none
	To       int64       `json:"to,omitempty"`       // of the last, when it is about several, or cannot tell which of them
	Message  string      `json:"message"`

	disputed bool // event and tile disagree, and it is not known yet which of them is right
}

func (p Problem) String() string {
	switch {
	case p.Position == 0:
		return fmt.Sprintf("%s: %s", p.Kind, p.Message)
	case p.To > p.Position:
		return fmt.Sprintf("%s: positions %d to %d: %s", p.Kind, p.Position, p.To, p.Message)
	}
	return fmt.Sprintf("%s: position %d: %s", p.Kind, p.Position, p.Message)
}

// VerifyOptions say what to verify. The zero value verifies everything.
type VerifyOptions struct {
	Since     []byte         // a signed checkpoint that was verified before; what it covers is not read again
	Keys      note.Verifiers // the log's public keys, from wherever they are trusted; nil takes the database's word for them
	Witnesses []note.Verifier
	Anchors   []Anchor // memories outside the database that the ledger must continue
	Workers   int      // readers at once; 0 is one a processor
	Progress  func(VerifyProgress)
	Clock     func() time.Time // that rate and time are measured with; nil is the system's
}

// VerifyProgress says how far a verification has come.
type VerifyProgress struct {
	Done, Total int64         // events
	Rate        float64       // events a second
	Left        time.Duration // at that rate
}

// VerifyReport is what a verification found.
type VerifyReport struct {
	From        int64         `json:"from"` // the events after this position were verified,
	To          int64         `json:"to"`   // up to this one
	Events      int64         `json:"events"`
	Checkpoints int64         `json:"checkpoints"`
	Archived    int64         `json:"archived,omitempty"` // the events up to this position are in archives; their leaves were taken from the tiles
	Took        time.Duration `json:"took_ns"`
	Rate        float64       `json:"events_per_second"`
	Problems    []Problem     `json:"problems"`       // by position, the first ones
	More        int           `json:"more,omitempty"` // problems beyond those
}

// OK reports whether everything holds.
func (r VerifyReport) OK() bool { return len(r.Problems) == 0 }

// String is the report for people: a line that sums it up, then one a problem.
func (r VerifyReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d events (positions %d to %d) and %d checkpoints in %s, %.0f events/s: ",
		r.Events, r.From+1, r.To, r.Checkpoints, r.Took.Round(time.Millisecond), r.Rate)
	if r.Archived > 0 {
		fmt.Fprintf(&b, "positions 1 to %d are archived, and verified from their files; ", r.Archived)
	}
	if r.OK() {
		b.WriteString("all hold\n")
		return b.String()
	}
	fmt.Fprintf(&b, "%d problems\n", len(r.Problems)+r.More)
	for _, p := range r.Problems {
		b.WriteString(p.String() + "\n")
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "… and %d more\n", r.More)
	}
	return b.String()
}

const (
	// maxProblems bounds a report; the first ones tell the story.
	maxProblems = 100
	// verifyChunk is how many events a worker verifies at a time: whole tiles, a fraction of a second, some megabytes.
	verifyChunk = 64 * tileWidth
)

// Verify recomputes everything that the ledger's proofs rest on from the rows: digest and leaf of each event, each
// tile, the root at each checkpoint, each signature; and looks whether the tables are still guarded. It reads the ledger
// in ranges, several at once, holds no snapshot longer than one range takes, and may run while the ledger is in use.
//
// What does not hold is in the report. An error is about the verification itself: a database that does not answer, or a
// Since that no key signed.
func Verify(ctx context.Context, db *sql.DB, o VerifyOptions) (VerifyReport, error) {
	if o.Clock == nil {
		o.Clock = time.Now //nolint:forbidigo // a measure of this run; nothing that is verified depends on it
	}
	v := verification{db: db, options: o, start: o.Clock(), ranges: &compact.RangeFactory{Hash: nodeHash}}
	report, err := v.run(ctx)
	if err != nil {
		return report, fmt.Errorf("verify: %w", err)
	}
	return report, nil
}

// nodeHash is RFC 6962's, for package compact.
func nodeHash(left, right []byte) []byte {
	h := tlog.NodeHash(tlog.Hash(left), tlog.Hash(right))
	return h[:]
}

// verification is one run of Verify.
type verification struct {
	db      *sql.DB
	options VerifyOptions
	start   time.Time
	ranges  *compact.RangeFactory
	keys    note.Verifiers
	events  *sql.Stmt
	report  VerifyReport

	treeSize int64
	tree     *compact.Range // over the leaves verified so far; nil once it can no longer be known
	torn     bool           // level 0 has a hole, so that no tile above it can be known
	good     int64          // size of the last checkpoint whose root came out
	edge     [][]byte       // of the tree at that size
	last     int64          // recorded_at of the last event, in PostgreSQL's microseconds
	upper    [tileHeight]*upperTile
}

// upperTile collects the roots of one level that make a tile of the next.
type upperTile struct {
	n     int64 // number of the tile that is being filled
	roots []byte
}

func (v *verification) run(ctx context.Context) (VerifyReport, error) {
	if err := v.prepare(ctx); err != nil {
		return v.report, err
	}
	defer v.events.Close()
	if err := v.guards(ctx); err != nil {
		return v.report, err
	}
	if holds, err := v.begin(ctx); err != nil || !holds {
		return v.finish(), err
	}
	if err := v.readAll(ctx); err != nil {
		return v.report, err
	}
	if err := v.anchors(ctx); err != nil {
		return v.report, err
	}
	return v.finish(), nil
}

func (v *verification) prepare(ctx context.Context) (err error) {
	if v.options.Workers <= 0 {
		v.options.Workers = runtime.GOMAXPROCS(0)
	}
	if v.options.Progress == nil {
		v.options.Progress = func(VerifyProgress) {}
	}
	if v.keys = v.options.Keys; v.keys == nil {
		if v.keys, err = PublicSigningKeys(ctx, v.db); err != nil {
			return err
		}
	}
	v.keys = verifiers{v.keys, note.VerifierList(v.options.Witnesses...)}
	v.events, err = v.db.PrepareContext(ctx, selectWire)
	return unavailable(err)
}

// verifiers are those of the first list that knows a key.
type verifiers []note.Verifiers

// Verifier finds a key.
func (l verifiers) Verifier(name string, hash uint32) (v note.Verifier, err error) {
	for _, list := range l {
		if v, err = list.Verifier(name, hash); err == nil {
			return v, nil
		}
	}
	return nil, err
}

// begin finds out what there is to verify, and starts the tree where Since left it. It reports false when Since does
// not hold, so that nothing can build on it.
func (v *verification) begin(ctx context.Context) (bool, error) {
	// In this order, so that each is covered by the next unless something is wrong.
	var signed int64
	if err := v.db.QueryRowContext(ctx, `SELECT coalesce(max(size), 0) FROM checkpoints`).Scan(&signed); err != nil {
		return false, unavailable(err)
	}
	var err error
	if v.treeSize, err = TreeSize(ctx, v.db); err != nil {
		return false, err
	}
	head, err := Head(ctx, v.db)
	if err != nil {
		return false, err
	}
	v.report.To = head
	if v.report.Archived, err = Detached(ctx, v.db); err != nil {
		return false, err
	}
	if v.treeSize > head {
		v.problem(ProblemTree, head+1, v.treeSize, "the tree holds %d events, and the ledger ends at %d: its end was cut off", v.treeSize, head)
	}
	if signed > v.treeSize {
		v.problem(ProblemTree, v.treeSize+1, signed, "a checkpoint covers %d events, and the tree holds %d", signed, v.treeSize)
	}
	v.tree = v.ranges.NewEmptyRange(0)
	for level := range v.upper {
		v.upper[level] = &upperTile{}
	}
	if v.options.Since == nil {
		return true, nil
	}
	since, _, err := evidence.OpenCheckpoint(v.options.Since, v.keys)
	if err != nil {
		return false, fmt.Errorf("since: %w", err)
	}
	return v.resume(ctx, since)
}

// resume takes the tree's right edge at a checkpoint from the tiles, and checks that it has the root that was signed.
func (v *verification) resume(ctx context.Context, since evidence.Checkpoint) (bool, error) {
	v.report.From = since.Size
	if since.Size > v.report.To {
		v.problem(ProblemTree, v.report.To+1, since.Size, "the checkpoint to go on from covers %d events, and the ledger ends at %d: it was cut short or set back", since.Size, v.report.To)
		return false, nil
	}
	r := tiles{ctx: ctx, q: v.db}
	var indexes []int64
	for _, id := range compact.RangeNodes(0, uint64(since.Size), nil) { //nolint:gosec // a size is not negative
		indexes = append(indexes, tlog.StoredHashIndex(int(id.Level), int64(id.Index))) //nolint:gosec // below the tree's size
	}
	hashes, err := hashReader(r, since.Size).ReadHashes(indexes)
	if errors.Is(err, ErrTree) {
		v.problem(ProblemTree, 1, since.Size, "the tree of the checkpoint to go on from: %s: verify all of it", err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	edge := make([][]byte, len(hashes))
	for i := range hashes {
		edge[i] = hashes[i][:]
	}
	if v.tree, err = v.ranges.NewRange(0, uint64(since.Size), edge); err != nil { //nolint:gosec // a size is not negative
		return false, err
	}
	if root := rootOf(v.tree); root != since.Root {
		v.problem(ProblemTree, 1, since.Size, "the checkpoint to go on from signed root %s, and the tree of that size has root %s: verify all of it", since.Root, root)
		return false, nil
	}
	v.passed(since.Size)
	for level := 1; level < tileHeight; level++ {
		have := since.Size >> (tileHeight * level) // full tiles of the level below
		v.upper[level].n = have / tileWidth
		if v.upper[level].roots, err = readRoots(ctx, v.db, level-1, have/tileWidth*tileWidth, have); err != nil {
			return false, err
		}
	}
	return true, nil
}

func rootOf(r *compact.Range) tlog.Hash {
	root, err := r.GetRootHash(nil)
	if err != nil || root == nil {
		h, _ := tlog.TreeHash(0, nil)
		return h
	}
	return tlog.Hash(root)
}

// readAll has the workers verify chunk after chunk, and joins what they found in order.
func (v *verification) readAll(ctx context.Context) (err error) {
	ctx, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stop()

	type job struct {
		from, to int64
		result   chan chunk
	}
	jobs := make(chan job)
	inOrder := make(chan job, v.options.Workers) // bounds how far the fastest worker may run ahead
	for range v.options.Workers {
		workers.Go(func() {
			for j := range jobs {
				j.result <- v.chunk(ctx, j.from, j.to)
			}
		})
	}
	workers.Go(func() {
		defer close(inOrder)
		defer close(jobs)
		for from := v.report.From; from < v.report.To; {
			to := min((from/verifyChunk+1)*verifyChunk, v.report.To)
			j := job{from, to, make(chan chunk, 1)}
			for _, send := range []chan job{inOrder, jobs} {
				select {
				case send <- j:
				case <-ctx.Done():
					return
				}
			}
			from = to
		}
	})
	for j := range inOrder {
		var c chunk
		select {
		case c = <-j.result:
		case <-ctx.Done():
			return ctx.Err()
		}
		if c.err != nil {
			return c.err
		}
		if err := v.join(ctx, c); err != nil {
			return err
		}
		v.progress(j.to)
	}
	return ctx.Err()
}

func (v *verification) progress(at int64) {
	p := VerifyProgress{Done: at - v.report.From, Total: v.report.To - v.report.From}
	if took := v.options.Clock().Sub(v.start).Seconds(); took > 0 {
		p.Rate = float64(p.Done) / took
		p.Left = time.Duration(float64(p.Total-p.Done) / p.Rate * float64(time.Second))
	}
	v.options.Progress(p)
}

// join adds a chunk to the tree and compares what has become whole: roots with checkpoints, upper tiles with their table.
func (v *verification) join(ctx context.Context, c chunk) error {
	v.report.Events += c.events
	v.report.Checkpoints += c.checkpoints
	for _, p := range c.problems {
		v.add(p)
	}
	if c.events > 0 {
		if c.firstAt < v.last {
			v.problem(ProblemLeaf, c.from+1, 0, "the event was recorded before the one before it")
		}
		v.last = c.lastAt
	}
	if !c.whole {
		v.tree, v.torn = nil, true // an event is missing that no tile remembers: no root can be known from here on
	}
	for _, p := range c.pieces {
		if v.tree == nil {
			break
		}
		if err := v.tree.AppendRange(p.leaves, nil); err != nil {
			return err
		}
		if p.signed == nil {
			continue
		}
		if root := rootOf(v.tree); root != p.signed.Root {
			byRows, err := v.byRows(ctx, *p.signed)
			if err != nil {
				return err
			}
			if byRows != nil {
				v.blameTiles(p.signed.Size)
				v.tree = byRows
				v.passed(p.signed.Size)
				continue
			}
			v.problem(ProblemTree, v.good+1, p.signed.Size, "the events up to %d give root %s, and the checkpoint signed %s: "+
				"at least one of these was changed after it was signed, together with its leaf; or another tree was signed", p.signed.Size, root, p.signed.Root)
			v.tree = nil // what follows builds on it and says nothing more
			break
		}
		v.passed(p.signed.Size)
	}
	if v.torn {
		return nil
	}
	return v.fill(ctx, 1, c.roots)
}

// passed notes that a checkpoint's root came out.
func (v *verification) passed(size int64) { v.good, v.edge = size, slices.Clone(v.tree.Hashes()) }

// byRows computes the tree at a checkpoint from the events' own leaves since the last one that came out, when a tile
// that disagrees with them did not give the root that was signed. It returns nil when they do not give it either.
func (v *verification) byRows(ctx context.Context, signed evidence.Checkpoint) (*compact.Range, error) {
	if !slices.ContainsFunc(v.report.Problems, func(p Problem) bool { return p.disputed && p.Position <= signed.Size && p.To > v.good }) {
		return nil, nil
	}
	tree, err := v.ranges.NewRange(0, uint64(v.good), slices.Clone(v.edge)) //nolint:gosec // a size is not negative
	if err != nil {
		return nil, err
	}
	for from := v.good; from < signed.Size; from += verifyChunk {
		leaves, err := readLeaves(ctx, v.db, from, min(from+verifyChunk, signed.Size))
		if errors.Is(err, ErrTree) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for leaf := range slices.Chunk(leaves, tlog.HashSize) {
			if err := tree.Append(slices.Clone(leaf), nil); err != nil {
				return nil, err
			}
		}
	}
	if rootOf(tree) != signed.Root {
		return nil, nil
	}
	return tree, nil
}

// blameTiles says of the disputes up to a position that the events are in the right.
func (v *verification) blameTiles(upTo int64) {
	for i := range v.report.Problems {
		if p := &v.report.Problems[i]; p.disputed && p.To > v.good && p.Position <= upTo {
			p.Message = "the tile over the event was changed: it holds another leaf, and the events give the root that was signed"
		}
	}
}

// fill adds roots of the level below to a level, and compares each tile that becomes full with the stored one.
func (v *verification) fill(ctx context.Context, level int, roots []byte) error {
	u := v.upper[level]
	u.roots = append(u.roots, roots...)
	var above []byte
	for len(u.roots) >= tileSize {
		full := u.roots[:tileSize]
		if err := v.compareTile(ctx, level, u.n, full); err != nil {
			return err
		}
		root := subtreeRoot(full)
		above = append(above, root[:]...)
		u.roots, u.n = slices.Clone(u.roots[tileSize:]), u.n+1
	}
	if len(above) == 0 || level+1 == tileHeight {
		return nil
	}
	return v.fill(ctx, level+1, above)
}

func (v *verification) compareTile(ctx context.Context, level int, n int64, want []byte) error {
	span := int64(1) << (tileHeight * level) // events under one hash
	first := n * tileWidth * span
	if first+tileWidth*span > v.treeSize {
		return nil // the tree has not got there yet
	}
	stored, err := readTiles(ctx, v.db, level, n, n+1)
	if err != nil {
		return err
	}
	t, ok := stored[n]
	if !ok {
		v.problem(ProblemTree, first+1, first+tileWidth*span, "tile %d of level %d is missing", n, level)
		return nil
	}
	for i := range int64(tileWidth) {
		if at := i * tlog.HashSize; string(t.hashes[at:at+tlog.HashSize]) != string(want[at:at+tlog.HashSize]) {
			v.problem(ProblemTree, first+i*span+1, first+(i+1)*span, "tile %d of level %d holds another hash for these events than they give", n, level)
			return nil
		}
	}
	if !t.whole {
		v.problem(ProblemTree, first+1, first+tileWidth*span, "tile %d of level %d is stored with a root that its hashes do not give", n, level)
	}
	return nil
}

// anchors compares the ledger with what was kept outside the database.
func (v *verification) anchors(ctx context.Context) error {
	for _, a := range v.options.Anchors {
		origin, err := Origin(ctx, v.db)
		if err != nil {
			return err
		}
		kept, err := a.Last(ctx, origin)
		if err != nil {
			return fmt.Errorf("ask %s for the last checkpoint: %w", a, err)
		}
		if kept == nil {
			continue
		}
		c, _, err := evidence.OpenCheckpoint(kept, v.keys)
		if err != nil {
			v.problem(ProblemSignature, 0, 0, "the checkpoint kept at %s: %s", a, err)
			continue
		}
		if c.Size > v.report.To {
			head, err := Head(ctx, v.db) // it may have been signed since this began
			if err != nil {
				return err
			}
			if c.Size > head {
				v.problem(ProblemTree, head+1, c.Size, "the checkpoint kept at %s covers %d events, and the ledger ends at %d: it was cut short or set back", a, c.Size, head)
				continue
			}
		}
		root, err := TreeRoot(ctx, v.db, c.Size)
		switch {
		case Transient(err):
			return err
		case err != nil:
			v.problem(ProblemTree, 0, 0, "the checkpoint kept at %s: %s", a, err)
		case root != c.Root:
			v.problem(ProblemTree, 1, c.Size, "the checkpoint kept at %s signed root %s, and the tree of that size has root %s", a, c.Root, root)
		}
	}
	return nil
}

func (v *verification) problem(kind ProblemKind, position, to int64, format string, args ...any) {
	v.add(Problem{Kind: kind, Position: position, To: to, Message: fmt.Sprintf(format, args...)})
}

func (v *verification) add(p Problem) {
	if len(v.report.Problems) == maxProblems {
		v.report.More++
		return
	}
	v.report.Problems = append(v.report.Problems, p)
}

func (v *verification) finish() VerifyReport {
	for i := range v.report.Problems {
		if p := &v.report.Problems[i]; p.To <= p.Position {
			p.To = 0
		}
	}
	slices.SortStableFunc(v.report.Problems, func(a, b Problem) int { return cmp.Compare(a.Position, b.Position) })
	v.report.Took = v.options.Clock().Sub(v.start)
	if seconds := v.report.Took.Seconds(); seconds > 0 {
		v.report.Rate = float64(v.report.Events) / seconds
	}
	return v.report
}
