package evidence

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Errors of proof. All wrap ErrUnproven.
var (
	// ErrUnproven is the parent of everything that keeps a claim from being proven.
	ErrUnproven = errors.New("not proven")
	// ErrSignature is a checkpoint that no known key signed, or whose signature does not hold.
	ErrSignature = fmt.Errorf("%w: signature", ErrUnproven)
	// ErrLeaf is an event that is not the one that was recorded.
	ErrLeaf = fmt.Errorf("%w: leaf", ErrUnproven)
	// ErrTree is a leaf that is not in the tree, or a tree that does not continue another.
	ErrTree = fmt.Errorf("%w: tree", ErrUnproven)
	// ErrFormat is a file that is not in its format.
	ErrFormat = fmt.Errorf("%w: malformed", ErrUnproven)
)

// Checkpoint says that the log called Origin had this root when it held Size events.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// Text is the checkpoint as it is signed: three lines (C2SP tlog-checkpoint).
func (c Checkpoint) Text() string {
	return string(log.Checkpoint{Origin: c.Origin, Size: uint64(c.Size), Hash: c.Root[:]}.Marshal()) //nolint:gosec // a size is not negative
}

// OpenCheckpoint reads a signed checkpoint and checks its signatures. At least one of the known keys must have signed
// it under the checkpoint's origin, and no signature of a known key may fail; signatures of unknown keys are passed over.
// The note's Sigs are those that hold, witnesses' among them. Errors: ErrSignature, ErrFormat.
func OpenCheckpoint(signed []byte, known note.Verifiers) (Checkpoint, *note.Note, error) {
	n, err := note.Open(signed, known)
	if err != nil {
		var unverified *note.UnverifiedNoteError
		var invalid *note.InvalidSignatureError
		switch {
		case errors.As(err, &unverified):
			return Checkpoint{}, nil, fmt.Errorf("%w: the checkpoint is signed by none of the known keys, but by %s", ErrSignature, names(unverified.Note.UnverifiedSigs))
		case errors.As(err, &invalid):
			return Checkpoint{}, nil, fmt.Errorf("%w: the checkpoint or its signature by %s+%08x was changed", ErrSignature, invalid.Name, invalid.Hash)
		}
		return Checkpoint{}, nil, fmt.Errorf("%w: checkpoint: %w", ErrFormat, err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	for _, s := range n.Sigs {
		if s.Name == c.Origin {
			return c, n, nil
		}
	}
	return Checkpoint{}, nil, fmt.Errorf("%w: the checkpoint of %s carries no signature of that log, only by %s", ErrSignature, c.Origin, names(n.Sigs))
}

// ParseCheckpoint reads the text of a checkpoint, unchecked. Lines after the third are passed over, as the format asks.
func ParseCheckpoint(text string) (Checkpoint, error) {
	var raw log.Checkpoint
	if _, err := raw.Unmarshal([]byte(text)); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint: %w", ErrFormat, err)
	}
	if len(raw.Hash) != tlog.HashSize || raw.Size > math.MaxInt64 {
		return Checkpoint{}, fmt.Errorf("%w: the checkpoint's root or size is out of range", ErrFormat)
	}
	c := Checkpoint{Origin: raw.Origin, Size: int64(raw.Size), Root: tlog.Hash(raw.Hash)}
	if !strings.HasPrefix(text, c.Text()) { // such as a size with leading zeros
		return Checkpoint{}, fmt.Errorf("%w: the checkpoint is not written in its one form", ErrFormat)
	}
	return c, nil
}

func names(sigs []note.Signature) string {
	if len(sigs) == 0 {
		return "nobody"
	}
	all := make([]string, len(sigs))
	for i, s := range sigs {
		all[i] = fmt.Sprintf("%s+%08x", s.Name, s.Hash)
	}
	return strings.Join(all, ", ")
}
