package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

// ManifestFormat opens every manifest, so that another layout can never be mistaken for this one.
const ManifestFormat = "dispatch-ledger/export/v1"

// ManifestName is the manifest's file.
const ManifestName = "manifest.json"

const maxManifest = 64 << 20

// ErrDamaged is an export whose files are not what its manifest says.
var ErrDamaged = errors.New("the export is damaged")

// Manifest says what an export holds and what proves it.
type Manifest struct {
	Format     string               `json:"format"`
	Files      Format               `json:"files"` // parquet, ndjson or csv
	From       int64                `json:"from"`  // the events after this position,
	To         int64                `json:"to"`    // up to this one
	Sealed     bool                 `json:"sealed"`
	Complete   bool                 `json:"complete"`
	Count      int64                `json:"count"`
	Types      map[string]int64     `json:"types"`           // events of each type
	Checkpoint string               `json:"checkpoint"`      // a signed note, C2SP tlog-checkpoint, that covers the range
	Proof      *evidence.RangeProof `json:"proof,omitempty"` // joins the range to the checkpoint's root
	Parts      []Part               `json:"parts"`
}

// Part is one file of an export.
type Part struct {
	File   string `json:"file"`
	From   int64  `json:"from"` // the events after this position,
	To     int64  `json:"to"`   // up to this one
	Count  int64  `json:"count"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // hex
}

// ReadManifest reads a folder's manifest. Errors: fs.ErrNotExist, ErrDamaged.
func ReadManifest(dir string) (Manifest, error) {
	var m Manifest
	f, err := os.Open(filepath.Join(dir, ManifestName))
	if err != nil {
		return m, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return m, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrDamaged, f.Name(), err)
	}
	if m.Format != ManifestFormat {
		return m, fmt.Errorf("%w: the manifest's format is %.64q, and this program reads %q", ErrDamaged, m.Format, ManifestFormat)
	}
	at := m.From
	for _, p := range m.Parts {
		if p.From != at || p.To <= p.From || p.Count != p.To-p.From || p.File != filepath.Base(p.File) {
			return m, fmt.Errorf("%w: the manifest's part %q does not follow the one before it", ErrDamaged, p.File)
		}
		at = p.To
	}
	if at > m.To || m.Complete && at != m.To {
		return m, fmt.Errorf("%w: the manifest's parts reach %d, and it says %d", ErrDamaged, at, m.To)
	}
	return m, nil
}

// Digest is the SHA-256 of a folder's manifest, which holds those of all its files.
func Digest(dir string) (string, error) {
	_, sum, err := hashFile(filepath.Join(dir, ManifestName))
	return sum, err
}

func (m Manifest) write(dir string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, ManifestName), func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// at is the position behind the last part.
func (m Manifest) at() int64 {
	if len(m.Parts) == 0 {
		return m.From
	}
	return m.Parts[len(m.Parts)-1].To
}

// hashFile reads a file once for its length and hash.
func hashFile(name string) (n int64, sum string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	if n, err = io.Copy(h, f); err != nil {
		return n, "", err
	}
	return n, hex.EncodeToString(h.Sum(nil)), nil
}

// intact checks a part's file against the manifest, without looking into it.
func (p Part) intact(dir string) error {
	n, sum, err := hashFile(filepath.Join(dir, p.File))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s is missing", ErrDamaged, p.File)
	case err != nil:
		return err
	case n != p.Bytes || sum != p.SHA256:
		return fmt.Errorf("%w: %s is not the file that was written (its SHA-256 is another)", ErrDamaged, p.File)
	}
	return nil
}

// replace writes a file whole or not at all: beside its name, synced, then renamed.
func replace(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".part-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
