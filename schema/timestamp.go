package schema

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

// Timestamper has a time stamping authority (RFC 3161) confirm the newest checkpoint once a day. The token is an event, so it
// is kept, and under the next checkpoint itself. It is off unless an operator names an authority.
type Timestamper struct {
	Ledger *Ledger
	URL    string         // of the authority
	Client *http.Client   // nil is http.DefaultClient; give one with a timeout
	Roots  *x509.CertPool // who is trusted to certify an authority; nil is the system's
	Every  time.Duration  // 0 is a day
	Clock  func() time.Time
	Log    *slog.Logger // nil discards
}

// Run stamps until the context ends. What fails is logged and tried again within the hour.
func (s *Timestamper) Run(ctx context.Context) {
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ticker := time.NewTicker(min(s.every(), time.Hour))
	defer ticker.Stop()
	for {
		if _, err := s.Stamp(ctx); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "the checkpoint was not time-stamped; trying again", slog.String("authority", s.URL), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Timestamper) every() time.Duration {
	if s.Every <= 0 {
		return 24 * time.Hour
	}
	return s.Every
}

// Stamp has the newest checkpoint stamped and records it, if the last time stamp is older than Every and there is a newer
// checkpoint than it covers. It reports whether it did. Of several processes that try, one records it.
func (s *Timestamper) Stamp(ctx context.Context) (bool, error) {
	size, stamped, version, err := s.last(ctx)
	if err != nil {
		return false, err
	}
	if version > 0 && s.Clock().Sub(stamped) < s.every() {
		return false, nil
	}
	c, err := LastCheckpoint(ctx, s.Ledger.DB())
	if errors.Is(err, ErrNotFound) || err == nil && c.Size <= size {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	signed, err := signedNote(ctx, s.Ledger.DB(), c.Size)
	if err != nil {
		return false, err
	}
	token, at, err := s.ask(ctx, signed)
	if err != nil {
		return false, err
	}
	event, _, err := domain.New(uuid.New(), domain.CheckpointTimestamped{
		Origin: c.Origin, Size: c.Size, Checkpoint: signed, Authority: s.URL, StampedAt: at, Token: token,
	})
	if err != nil {
		return false, err
	}
	event.Actor, event.Source, event.OccurredAt, event.Expected = "timestamper", "/timestamper", at, &version
	if _, err := s.Ledger.Append(ctx, event); err != nil {
		if errors.Is(err, ErrConflict) {
			return false, nil // another process was first
		}
		return false, err
	}
	return true, nil
}

// last is the newest time stamp: the size it covers, its time by our clock, and its version in the stream; zeros before the first.
func (s *Timestamper) last(ctx context.Context) (size int64, at time.Time, version int64, err error) {
	for e, err := range Events(ctx, s.Ledger.DB(), Filter{Stream: domain.CheckpointStream, Descending: true, Limit: 1}) {
		if err != nil {
			return 0, time.Time{}, 0, err
		}
		p, err := domain.DecodeAs[domain.CheckpointTimestamped](e.Data, nil)
		return p.Size, e.RecordedAt, e.Version, err
	}
	return 0, time.Time{}, 0, nil
}

// signedNote is a checkpoint as the log signed it, without cosignatures, which may still come in.
func signedNote(ctx context.Context, q Querier, size int64) (signed string, err error) {
	err = q.QueryRowContext(ctx, `SELECT note FROM checkpoints WHERE size = $1`, size).Scan(&signed)
	return signed, unavailable(err)
}

// ask gets a token for a checkpoint and checks it before it is kept.
func (s *Timestamper) ask(ctx context.Context, signed string) (token []byte, at time.Time, err error) {
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, at, err
	}
	query, err := timestamp.CreateRequest(bytes.NewReader([]byte(signed)), &timestamp.RequestOptions{Hash: crypto.SHA256, Certificates: true, Nonce: nonce})
	if err != nil {
		return nil, at, fmt.Errorf("time stamp request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(query))
	if err != nil {
		return nil, at, err
	}
	req.Header.Set("Content-Type", "application/timestamp-query")
	status, answer, err := send(s.Client, req)
	if err != nil {
		return nil, at, err
	}
	if status != http.StatusOK {
		return nil, at, fmt.Errorf("the authority answered %d", status)
	}
	ts, err := timestamp.ParseResponse(answer)
	if err != nil {
		return nil, at, fmt.Errorf("the authority's answer: %w", err)
	}
	if ts.Nonce == nil || ts.Nonce.Cmp(nonce) != 0 {
		return nil, at, fmt.Errorf("%w: the authority answered another request", evidence.ErrTimestamp)
	}
	at, err = evidence.VerifyTimestamp(ts.RawToken, signed, s.Roots)
	return ts.RawToken, at, err
}
