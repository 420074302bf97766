package schema

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/lib/pq"
	"golang.org/x/mod/sumdb/tlog"
)

// TreeSubscription is the tree's cursor on the ledger; its position is the tree's size. Renaming it builds the tree
// again.
var TreeSubscription = Subscription{Name: "tree", Limit: 20_000, Linger: 50 * time.Millisecond, Yield: time.Second}

// ErrTree is a stored tree that disagrees with itself or with the events. Run verify: it names the first position that
// does not hold.
var ErrTree = errors.New("the tree does not hold")

// GrowTree is the handler of TreeSubscription: it stores the tiles that a slice of the ledger fills. The tree is that
// of RFC 6962 over the events' leaves and nothing else, the event at position p being its leaf number p-1.
//
// There is no other state: what a tile that is not full holds follows from the level below it. Safe to repeat: a tile
// that is there is compared, and one that differs is ErrTree, which parks the subscription.
func GrowTree(ctx context.Context, tx *sql.Tx, s Slice) error {
	first := s.From / tileWidth // the first tile that may become full
	hashes, err := readLeaves(ctx, tx, first*tileWidth, s.To)
	if err != nil {
		return err
	}
	var filled tileRows
	for level := 0; len(hashes) >= tileSize; level++ {
		var roots []byte
		n := first
		for len(hashes) >= tileSize {
			root := subtreeRoot(hashes[:tileSize])
			filled.add(level, n, root, hashes[:tileSize])
			roots, hashes, n = append(roots, root[:]...), hashes[tileSize:], n+1
		}
		// The level above goes on with these roots, behind those of its tile that are there already.
		parent := first / tileWidth
		before, err := readRoots(ctx, tx, level, parent*tileWidth, first)
		if err != nil {
			return err
		}
		hashes, first = append(before, roots...), parent
	}
	return filled.store(ctx, tx)
}

// tileRows are tiles on their way into the table.
type tileRows struct {
	levels, numbers pq.Int64Array
	roots, hashes   pq.ByteaArray
}

func (t *tileRows) add(level int, n int64, root tlog.Hash, hashes []byte) {
	t.levels, t.numbers = append(t.levels, int64(level)), append(t.numbers, n)
	t.roots, t.hashes = append(t.roots, root[:]), append(t.hashes, hashes)
}

func (t *tileRows) store(ctx context.Context, tx *sql.Tx) error {
	if len(t.levels) == 0 {
		return nil
	}
	result, err := tx.ExecContext(ctx, `INSERT INTO tiles (level, n, root, hashes)
		SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[], $4::bytea[]) ON CONFLICT DO NOTHING`,
		t.levels, t.numbers, t.roots, t.hashes)
	if err != nil {
		return fmt.Errorf("store tiles: %w", unavailable(err))
	}
	stored, err := result.RowsAffected()
	if err != nil || stored == int64(len(t.levels)) {
		return err
	}
	// Some were there: the tree is being built again, and must come out the same.
	var level int
	var n int64
	err = tx.QueryRowContext(ctx, `SELECT t.level, t.n
		FROM unnest($1::smallint[], $2::bigint[], $3::bytea[], $4::bytea[]) AS u (level, n, root, hashes) JOIN tiles t USING (level, n)
		WHERE (t.root, t.hashes) <> (u.root, u.hashes) ORDER BY t.n << (8 * t.level) LIMIT 1`,
		t.levels, t.numbers, t.roots, t.hashes).Scan(&level, &n)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("compare tiles: %w", unavailable(err))
	}
	return fmt.Errorf("%w: tile %d of level %d is stored with other hashes than the events give; run: dispatch-ledger verify", ErrTree, n, level)
}

// TreeSize is how many events the tree holds.
func TreeSize(ctx context.Context, q Querier) (size int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT coalesce(max(position), 0) FROM subscriptions WHERE name = $1`, TreeSubscription.Name).Scan(&size)
	if err != nil {
		return 0, fmt.Errorf("size of the tree: %w", unavailable(err))
	}
	return size, nil
}

// TreeRoot is the root of the tree at a size that it has or had, computed from tiles and, for the last of them, from the
// events. The root of the empty tree is SHA-256 of nothing.
func TreeRoot(ctx context.Context, q Querier, size int64) (tlog.Hash, error) {
	return tlog.TreeHash(size, hashReader(tiles{ctx: ctx, q: q}, size))
}

// subtreeRoot is the root over hashes whose number is a power of two.
func subtreeRoot(hashes []byte) tlog.Hash {
	if len(hashes) == tlog.HashSize {
		return tlog.Hash(hashes)
	}
	half := len(hashes) / 2
	return tlog.NodeHash(subtreeRoot(hashes[:half]), subtreeRoot(hashes[half:]))
}

// readLeaves reads the leaves of the events after from, up to to, one behind the other.
func readLeaves(ctx context.Context, q Querier, from, to int64) ([]byte, error) {
	leaves, err := readHashes(ctx, q, (to-from)*tlog.HashSize,
		`SELECT leaf FROM events WHERE position > $1 AND position <= $2 ORDER BY position`, from, to)
	if err == nil && int64(len(leaves)) != (to-from)*tlog.HashSize {
		err = fmt.Errorf("%w: the events after %d, up to %d, are not all there; run: dispatch-ledger verify", ErrTree, from, to)
	}
	return leaves, err
}

// readRoots reads the roots of a level's full tiles from number from, up to but not including number to.
func readRoots(ctx context.Context, q Querier, level int, from, to int64) ([]byte, error) {
	if from == to {
		return nil, nil
	}
	roots, err := readHashes(ctx, q, (to-from)*tlog.HashSize, `SELECT root FROM tiles WHERE level = $1 AND n >= $2 AND n < $3 ORDER BY n`, level, from, to)
	if err == nil && int64(len(roots)) != (to-from)*tlog.HashSize {
		err = fmt.Errorf("%w: the tiles %d to %d of level %d are not all there; run: dispatch-ledger verify", ErrTree, from, to-1, level)
	}
	return roots, err
}

func readHashes(ctx context.Context, q Querier, size int64, query string, args ...any) ([]byte, error) {
	hashes := make([]byte, 0, size)
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read the tree: %w", unavailable(err))
	}
	defer rows.Close()
	for rows.Next() {
		var hash sql.RawBytes
		if err := rows.Scan(&hash); err != nil {
			return nil, fmt.Errorf("read the tree: %w", unavailable(err))
		}
		hashes = append(hashes, hash...)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the tree: %w", unavailable(err))
	}
	return hashes, nil
}

// sameHash compares a hash with stored bytes.
func sameHash(h tlog.Hash, stored []byte) bool { return bytes.Equal(h[:], stored) }
