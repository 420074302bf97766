package schema

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// Witness is somebody else's server that cosigns our checkpoints when each continues the one before (C2SP
// tlog-witness). With a witness, showing two people two different ledgers, or one of them an old one, needs the witness's help.
type Witness struct {
	URL      string        // submission prefix
	Verifier note.Verifier // the witness's key
	Client   *http.Client  // nil is http.DefaultClient; give one with a timeout
}

// NewWitness reads a witness's public key (a C2SP vkey, type 0x04 or 0x01).
func NewWitness(url, vkey string, client *http.Client) (Witness, error) {
	v, err := fnote.NewVerifierForCosignatureV1(vkey)
	if err != nil {
		return Witness{}, fmt.Errorf("key of the witness at %s: %w", url, err)
	}
	return Witness{URL: strings.TrimSuffix(url, "/"), Verifier: v, Client: client}, nil
}

// askWitnesses asks each for its cosignature. One that does not answer is asked again at the next checkpoint.
func (c *Checkpointer) askWitnesses(ctx context.Context, signed Checkpoint) {
	for _, w := range c.Witnesses {
		if err := w.cosign(ctx, c.DB, signed); err != nil {
			c.log().WarnContext(ctx, "a witness did not cosign", slog.String("witness", w.Verifier.Name()), slog.Int64("size", signed.Size), slog.Any("error", err))
		}
	}
}

// cosign submits a checkpoint with the proof that it continues the last one that the witness saw, and stores the answer. Which one
// that was is what we last heard from it; when the witness knows better it says so, and is asked once more.
func (w Witness) cosign(ctx context.Context, q Querier, c Checkpoint) error {
	var old int64
	if err := q.QueryRowContext(ctx, `SELECT coalesce(max(size), 0) FROM cosignatures WHERE witness = $1`, signingKeyID(w.Verifier)).Scan(&old); err != nil {
		return unavailable(err)
	}
	for range 2 {
		status, body, err := w.submit(ctx, q, old, c)
		switch {
		case err != nil:
			return err
		case status == http.StatusOK:
			_, err := AddCosignatures(ctx, q, append([]byte(c.Note), body...), w.Verifier)
			return err
		case status != http.StatusConflict:
			return fmt.Errorf("add-checkpoint answered %d: %s", status, bytes.TrimSpace(body))
		}
		known, err := strconv.ParseInt(strings.TrimSpace(string(body)), 10, 64)
		if err != nil || known < 0 || known == old {
			return fmt.Errorf("add-checkpoint answered 409: %s", bytes.TrimSpace(body))
		}
		if known > c.Size {
			return fmt.Errorf("%w: the witness has cosigned %d events, and this checkpoint covers %d", ErrRewound, known, c.Size)
		}
		old = known
	}
	return fmt.Errorf("the witness keeps changing its mind about what it saw last")
}

func (w Witness) submit(ctx context.Context, q Querier, old int64, c Checkpoint) (int, []byte, error) {
	path, err := ConsistencyProof(ctx, q, old, c.Size)
	if err != nil {
		return 0, nil, err
	}
	var body bytes.Buffer
	fmt.Fprintf(&body, "old %d\n", old)
	if old < c.Size {
		for _, h := range path {
			fmt.Fprintf(&body, "%s\n", h)
		}
	}
	fmt.Fprintf(&body, "\n%s", c.Note)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/add-checkpoint", &body)
	if err != nil {
		return 0, nil, err
	}
	return send(w.Client, req)
}

// cosignedAt is the time that a witness put under its signature.
func cosignedAt(s note.Signature) (time.Time, error) {
	at, err := fnote.CoSigV1Timestamp(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("cosignature of %s: %w", s.Name, err)
	}
	return at.UTC(), nil
}
