package export

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Options say what is exported.
type Options struct {
	Format Format
	From   int64 // the events after this position,
	To     int64 // up to this one; 0 is where the newest checkpoint ends
	Sealed bool  // with the personal data as it is stored, encrypted; without it its hash stands in its place
	Part   int64 // events in one file; 1,000,000 by default

	Progress func(Progress) // may be nil
	Clock    func() time.Time
}

// Progress is how far an export has come.
type Progress struct {
	Done, Total int64 // events
	Rate        float64
	Left        time.Duration
}

const (
	defaultPart   = 1_000_000
	progressEvery = 20_000
)

// Run writes the events of a range into a folder, part by part, with a manifest. One that was interrupted goes on behind its last
// whole part, when it is asked for the same; a folder that holds another export is left alone.
//
// It holds a row group in memory and no snapshot. Errors: schema.ErrTreeBehind when no checkpoint covers the range yet;
// schema.ErrNotFound for events that were archived; ErrDamaged when what is in the folder is not what its manifest says.
func Run(ctx context.Context, db *sql.DB, dir string, o Options) (Manifest, error) {
	m, err := begin(ctx, db, dir, &o)
	if err != nil {
		return m, fmt.Errorf("export: %w", err)
	}
	start, began := o.Clock(), m.at()
	for m.at() < m.To {
		from := m.at()
		part, types, err := writePart(ctx, db, dir, m, from, min(from+o.Part, m.To), func(at int64) {
			if o.Progress == nil {
				return
			}
			p := Progress{Done: at - m.From, Total: m.To - m.From}
			if took := o.Clock().Sub(start).Seconds(); took > 0 && at > began {
				p.Rate = float64(at-began) / took
				p.Left = time.Duration(float64(m.To-at) / p.Rate * float64(time.Second))
			}
			o.Progress(p)
		})
		if err != nil {
			return m, fmt.Errorf("export: %w", err)
		}
		m.Parts = append(m.Parts, part)
		m.Count += part.Count
		for t, n := range types {
			m.Types[t] += n
		}
		m.Complete = m.at() == m.To
		// If we were to crash before this, the part is written again.
		if err := m.write(dir); err != nil {
			return m, fmt.Errorf("export: %w", err)
		}
	}
	return m, nil
}

// begin finds what an earlier run left in the folder, or decides on a new export.
func begin(ctx context.Context, db *sql.DB, dir string, o *Options) (Manifest, error) {
	if o.Part <= 0 {
		o.Part = defaultPart
	}
	if o.Clock == nil {
		o.Clock = time.Now //nolint:forbidigo // a measure of this run; nothing that is written depends on it
	}
	if _, err := newEncoder(o.Format, io.Discard); err != nil {
		return Manifest{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // an export is for others to read
		return Manifest{}, err
	}
	earlier, err := ReadManifest(dir)
	switch {
	case err == nil:
		return earlier, resume(earlier, dir, *o)
	case !errors.Is(err, fs.ErrNotExist):
		return Manifest{}, err
	}
	if o.To == 0 {
		c, err := schema.LastCheckpoint(ctx, db)
		if errors.Is(err, schema.ErrNotFound) {
			err = fmt.Errorf("%w: no checkpoint has been signed", schema.ErrTreeBehind)
		}
		if err != nil {
			return Manifest{}, err
		}
		o.To = c.Size
	}
	if o.From < 0 || o.To <= o.From {
		return Manifest{}, fmt.Errorf("from %d to %d there is no event", o.From+1, o.To)
	}
	c, err := schema.CheckpointAt(ctx, db, o.To)
	if errors.Is(err, schema.ErrNotFound) {
		err = fmt.Errorf("%w: no checkpoint reaches position %d", schema.ErrTreeBehind, o.To)
	}
	if err != nil {
		return Manifest{}, err
	}
	proof, err := schema.RangeProof(ctx, db, o.From, o.To, c.Checkpoint)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{
		Format: ManifestFormat, Files: o.Format, From: o.From, To: o.To, Sealed: o.Sealed, Types: map[string]int64{},
		Checkpoint: c.Note, Proof: &proof, Parts: []Part{},
	}
	return m, m.write(dir)
}

// resume checks that an earlier run was asked for the same, and that what it wrote is still there.
func resume(m Manifest, dir string, o Options) error {
	if m.Files != o.Format || m.From != o.From || o.To != 0 && m.To != o.To || m.Sealed != o.Sealed {
		return fmt.Errorf("%s holds another export (%s, positions %d to %d); name another folder", dir, m.Files, m.From+1, m.To)
	}
	for _, p := range m.Parts {
		if err := p.intact(dir); err != nil {
			return err
		}
	}
	if m.Types == nil || m.Proof == nil {
		return fmt.Errorf("%w: its manifest is not whole", ErrDamaged)
	}
	return nil
}

// writePart writes one file.
func writePart(ctx context.Context, db *sql.DB, dir string, m Manifest, from, to int64, progress func(at int64)) (Part, map[string]int64, error) {
	types := map[string]int64{}
	p := Part{File: fmt.Sprintf("events-%012d-%012d.%s", from+1, to, m.Files), From: from, To: to, Count: to - from}
	err := replace(filepath.Join(dir, p.File), func(w io.Writer) error {
		enc, err := newEncoder(m.Files, w)
		if err != nil {
			return err
		}
		for e, err := range schema.Stream(ctx, db, from, to) {
			if err != nil {
				return err
			}
			types[e.Type]++
			row := rowOf(e, m.Sealed)
			if err := enc.write(&row); err != nil {
				return err
			}
			if e.Position%progressEvery == 0 || e.Position == to {
				progress(e.Position)
			}
		}
		return enc.close()
	})
	if err != nil {
		return p, nil, err
	}
	p.Bytes, p.SHA256, err = hashFile(filepath.Join(dir, p.File))
	return p, types, err
}
