package schema

import (
	"context"
	"fmt"

	"github.com/lib/pq"
	"golang.org/x/mod/sumdb/tlog"
)

// Measures of C2SP tlog-tiles.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight           // hashes of a full tile
	tileSize   = tileWidth * tlog.HashSize // bytes of a full tile
)

// Tile reads the hashes of one tile, as GET <prefix>/tile/<level>/<n>[.p/<width>] serves them: width hashes of 32 bytes. A
// width of 256 is the full tile. ErrNotFound is a tile, or a width of one, that the tree has not grown to.
func Tile(ctx context.Context, q Querier, level int, n int64, width int) ([]byte, error) {
	if level < 0 || level >= tileHeight || n < 0 || width < 1 || width > tileWidth {
		return nil, fmt.Errorf("tile %d/%d of width %d: %w", level, n, width, ErrNotFound)
	}
	size, err := TreeSize(ctx, q)
	if err != nil {
		return nil, err
	}
	if have := size >> (tileHeight * level); n*tileWidth+int64(width) > have {
		return nil, fmt.Errorf("tile %d/%d of width %d: %w: the tree holds %d events", level, n, width, ErrNotFound, size)
	}
	data, err := tiles{ctx: ctx, q: q}.ReadTiles([]tlog.Tile{{H: tileHeight, L: level, N: n, W: width}})
	if err != nil {
		return nil, err
	}
	return data[0], nil
}

// tiles reads tiles for package tlog. Nothing in them is to be believed before it was checked against a root.
type tiles struct {
	ctx context.Context //nolint:containedctx // tlog's interface has none to hand on; a value lives for one call
	q   Querier
}

// Height is that of the stored tiles.
func (t tiles) Height() int { return tileHeight }

// SaveTiles keeps nothing.
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles reads full tiles from the table, narrower ones from the full tile that they have become part of, or else from the
// level below.
func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var levels, numbers pq.Int64Array
	for _, w := range wanted {
		levels, numbers = append(levels, int64(w.L)), append(numbers, w.N)
	}
	rows, err := t.q.QueryContext(t.ctx, `SELECT u.i, t.hashes
		FROM unnest($1::smallint[], $2::bigint[]) WITH ORDINALITY AS u (level, n, i) JOIN tiles t USING (level, n)`, levels, numbers)
	if err != nil {
		return nil, fmt.Errorf("read tiles: %w", unavailable(err))
	}
	defer rows.Close()
	data := make([][]byte, len(wanted))
	for rows.Next() {
		var i int
		var hashes []byte
		if err := rows.Scan(&i, &hashes); err != nil {
			return nil, fmt.Errorf("read tiles: %w", unavailable(err))
		}
		data[i-1] = hashes[:wanted[i-1].W*tlog.HashSize]
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read tiles: %w", unavailable(err))
	}
	for i, w := range wanted {
		if data[i] != nil {
			continue
		}
		from, to := w.N*tileWidth, w.N*tileWidth+int64(w.W)
		if w.L == 0 {
			data[i], err = readLeaves(t.ctx, t.q, from, to)
		} else {
			data[i], err = readRoots(t.ctx, t.q, w.L-1, from, to)
		}
		if err != nil {
			return nil, err
		}
	}
	return data, nil
}

// hashReader reads the nodes of a tree of a size, unchecked: it is for computing a root, and tlog.TileHashReader for
// everything that follows from a root that is known.
func hashReader(t tiles, size int64) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		place := map[tlog.Tile]int{}
		var wanted []tlog.Tile
		of := make([]tlog.Tile, len(indexes))
		for i, index := range indexes {
			tile := tlog.TileForIndex(tileHeight, index)
			tile.W = int(min(tileWidth, size>>(tileHeight*tile.L)-tile.N*tileWidth))
			if _, ok := place[tile]; !ok {
				place[tile] = len(wanted)
				wanted = append(wanted, tile)
			}
			of[i] = tile
		}
		data, err := t.ReadTiles(wanted)
		if err != nil {
			return nil, err
		}
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			if hashes[i], err = tlog.HashFromTile(of[i], data[place[of[i]]], index); err != nil {
				return nil, err
			}
		}
		return hashes, nil
	})
}
