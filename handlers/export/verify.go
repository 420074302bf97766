package export

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"

	"github.com/parquet-go/parquet-go"
	"golang.org/x/mod/sumdb/note"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

// Report is what verifying an export found.
type Report struct {
	From, To   int64 // the events after this position, up to this one
	Count      int64
	Checkpoint evidence.Checkpoint
}

// Verify checks an export from its files and the log's public keys alone: that each file is the one that was written, that every
// row hashes to its leaf, and that the leaves, with the manifest's proof, give the root of a checkpoint that one of the keys signed.
//
// A file is hashed before it is decoded, because a decoder is no place for what somebody else wrote. Errors: ErrDamaged;
// evidence.ErrLeaf with the first position that does not hold; evidence.ErrTree; evidence.ErrSignature.
func Verify(dir string, keys note.Verifiers) (Report, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return Report{}, err
	}
	r := Report{From: m.From, To: m.To, Count: m.Count}
	if !m.Complete || m.Proof == nil || m.Proof.From != m.From || m.Proof.To != m.To {
		return r, fmt.Errorf("%w: it is not complete; run the export again to go on with it", ErrDamaged)
	}
	if r.Checkpoint, _, err = evidence.OpenCheckpoint([]byte(m.Checkpoint), keys); err != nil {
		return r, err
	}
	for _, p := range m.Parts {
		if err := p.intact(dir); err != nil {
			return r, err
		}
	}
	verifier, err := evidence.NewRangeVerifier(*m.Proof)
	if err != nil {
		return r, err
	}
	for row, err := range rows(dir, m) {
		if err != nil {
			return r, err
		}
		leaf := row.leaf()
		if string(leaf[:]) != string(row.Leaf) {
			return r, fmt.Errorf("%w: the event at position %d is not what its leaf commits to", evidence.ErrLeaf, row.Position)
		}
		verifier.Add(leaf)
	}
	return r, verifier.Verify(r.Checkpoint)
}

// Events reads the events of an export that was verified, with their sealed parts. An event is good until the next one.
func Events(dir string, m Manifest) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		if m.Files != Parquet || !m.Sealed {
			yield(nil, fmt.Errorf("%w: an archive is an export to Parquet with its sealed parts", ErrDamaged))
			return
		}
		for row, err := range rows(dir, m) {
			if err != nil {
				yield(nil, err)
				return
			}
			e := row.event()
			if !yield(&e, nil) {
				return
			}
		}
	}
}

// rows reads the rows of all parts, in order. A row is good until the next one.
func rows(dir string, m Manifest) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		for _, p := range m.Parts {
			next := p.From + 1
			for row, err := range partRows(filepath.Join(dir, p.File), m.Files) {
				if err == nil && row.Position != next {
					err = fmt.Errorf("%w: %s holds position %d where %d belongs", ErrDamaged, p.File, row.Position, next)
				}
				if !yield(row, err) || err != nil {
					return
				}
				next++
			}
			if next != p.To+1 {
				yield(nil, fmt.Errorf("%w: %s ends before position %d", ErrDamaged, p.File, next))
				return
			}
		}
	}
}

// partRows reads a file's rows.
func partRows(name string, format Format) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		f, err := os.Open(name)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		if lines := map[Format]func(*os.File) iter.Seq2[*Row, error]{NDJSON: ndjsonRows, CSV: csvRows}[format]; lines != nil {
			for row, err := range lines(f) {
				if err != nil {
					err = fmt.Errorf("%w: %s: %w", ErrDamaged, filepath.Base(name), err)
				}
				if !yield(row, err) || err != nil {
					return
				}
			}
			return
		}
		reader, err := open(f)
		if err != nil {
			yield(nil, fmt.Errorf("%w: %s: %w", ErrDamaged, filepath.Base(name), err))
			return
		}
		defer reader.Close()
		batch := make([]Row, 512)
		for {
			n, err := reader.Read(batch)
			for i := range n {
				if !yield(&batch[i], nil) {
					return
				}
				batch[i] = Row{} // a null must not keep what the row before had
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("%w: %s: %w", ErrDamaged, filepath.Base(name), err))
				return
			}
		}
	}
}

// open reads a Parquet file's footer, of which the library panics on some that are none.
func open(f *os.File) (r *parquet.GenericReader[Row], err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("no Parquet file of events: %v", p)
		}
	}()
	return parquet.NewGenericReader[Row](f), nil
}
