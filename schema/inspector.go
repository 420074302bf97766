package schema

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Bounds of the inspector.
const (
	BinDefault     = 24 * time.Hour      // how long a bin lasts unless told otherwise
	BinLongest     = 30 * 24 * time.Hour // at most
	BinsMax        = 1000                // bins at a time
	BinRequestsMax = 200                 // requests that a bin keeps: the newest
	BinBodyMax     = 256 << 10           // bytes of a body that are kept
)

// ErrBins says that there are as many bins as may be.
var ErrBins = fmt.Errorf("%w: as many inspector bins as may be; delete one, or wait for one to expire", ErrBusy)

// Bin is a place that keeps the requests that reach it, until it expires.
type Bin struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"`
	ExpiresAt time.Time `json:"expires_at"`
	Status    int       `json:"status" doc:"HTTP status that it answers with."`
	Number    int64     `json:"number" doc:"Of the last request; 0 when there was none."`
}

// Inspected is a request as it arrived.
type Inspected struct {
	Number     int64               `json:"number"`
	ReceivedAt time.Time           `json:"received_at"`
	Erased     bool                `json:"erased,omitempty" doc:"It was about somebody who has been erased."`
	Method     string              `json:"method"`
	URL        string              `json:"url" doc:"As it was called, or as it would have been."`
	Protocol   string              `json:"protocol"`
	From       string              `json:"from" doc:"Address of the sender, or the test that it came from."`
	Headers    map[string][]string `json:"headers"`
	Body       []byte              `json:"body,omitempty" doc:"Base64, at most 256 KiB; absent when it is empty."`
	BodyBytes  int64               `json:"body_bytes" doc:"Of the whole body, as far as it was read."`
	Truncated  bool                `json:"truncated,omitempty"`
}

// Inspector keeps the requests that reach its bins, sealed. It is safe for concurrent use.
type Inspector struct {
	db    *sql.DB
	vault *Vault
	clock func() time.Time
	bell  *bell
}

// NewInspector returns the inspector of a migrated database.
func NewInspector(db *sql.DB, v *Vault, clock func() time.Time) *Inspector {
	return &Inspector{db: db, vault: v, clock: clock, bell: newBell()}
}

// Create makes a bin, and sweeps those whose time is over. Zero lasts BinDefault and answers 200. Errors: ErrBins.
func (i *Inspector) Create(ctx context.Context, by string, lasts time.Duration, status int) (Bin, error) {
	if lasts <= 0 {
		lasts = BinDefault
	}
	if status == 0 {
		status = 200
	}
	now := i.clock().UTC().Truncate(time.Microsecond)
	b := Bin{ID: strings.ToLower(rand.Text()), CreatedAt: now, CreatedBy: by, ExpiresAt: now.Add(min(lasts, BinLongest)), Status: status}
	if err := i.Sweep(ctx); err != nil {
		return b, err
	}
	result, err := i.db.ExecContext(ctx, `INSERT INTO inspector_bins (id, created_at, created_by, expires_at, status)
		SELECT $1, $2, $3, $4, $5 WHERE (SELECT count(*) FROM inspector_bins) < $6`, b.ID, b.CreatedAt, by, b.ExpiresAt, status, BinsMax)
	if err != nil {
		return b, fmt.Errorf("inspector: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return b, errors.Join(ErrBins, err)
	}
	return b, nil
}

// Sweep deletes the bins whose time is over, with all that they kept.
func (i *Inspector) Sweep(ctx context.Context) error {
	if _, err := i.db.ExecContext(ctx, `DELETE FROM inspector_bins WHERE expires_at <= $1`, i.clock()); err != nil {
		return fmt.Errorf("inspector: %w", err)
	}
	return nil
}

// Bin gives a bin that has not expired. The error is ErrNotFound.
func (i *Inspector) Bin(ctx context.Context, id string) (b Bin, err error) {
	err = i.db.QueryRowContext(ctx, `SELECT id, created_at, created_by, expires_at, status, number FROM inspector_bins WHERE id = $1 AND expires_at > $2`, id, i.clock()).
		Scan(&b.ID, &b.CreatedAt, &b.CreatedBy, &b.ExpiresAt, &b.Status, &b.Number)
	return b, missingBin(err)
}

func missingBin(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("inspector bin: %w", ErrNotFound)
	}
	return err
}

// Bins lists the bins that have not expired, the newest first.
func (i *Inspector) Bins(ctx context.Context) ([]Bin, error) {
	rows, err := i.db.QueryContext(ctx, `SELECT id, created_at, created_by, expires_at, status, number FROM inspector_bins WHERE expires_at > $1 ORDER BY created_at DESC, id`, i.clock())
	if err != nil {
		return nil, fmt.Errorf("inspector: %w", err)
	}
	defer rows.Close()
	bins := []Bin{}
	for rows.Next() {
		var b Bin
		if err := rows.Scan(&b.ID, &b.CreatedAt, &b.CreatedBy, &b.ExpiresAt, &b.Status, &b.Number); err != nil {
			return nil, fmt.Errorf("inspector: %w", err)
		}
		bins = append(bins, b)
	}
	return bins, rows.Err()
}

// Delete drops a bin with all that it kept. The error is ErrNotFound.
func (i *Inspector) Delete(ctx context.Context, id string) error {
	result, err := i.db.ExecContext(ctx, `DELETE FROM inspector_bins WHERE id = $1`, id)
	if err != nil {
		return fmt.Errorf("inspector: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(missingBin(sql.ErrNoRows), err)
	}
	return nil
}

// Key opens a bin's page to whoever has it. It follows from the vault's key and is kept nowhere, and knowing where a bin
// is does not tell it.
func (i *Inspector) Key(id string) string {
	return hex.EncodeToString(hash(i.vault.fingerprint, "inspector", id)[:16])
}

// Opens reports whether a key is the bin's.
func (i *Inspector) Opens(id, key string) bool { return hmac.Equal([]byte(i.Key(id)), []byte(key)) }

// Whose gives the person that an event, or a delivery, is about; nobody's id when there is neither.
func (i *Inspector) Whose(ctx context.Context, id uuid.UUID) (uuid.UUID, error) {
	e, err := EventByID(ctx, i.db, id)
	if !errors.Is(err, ErrNotFound) {
		return e.Subject, err
	}
	first, err := allEvents(ctx, i.db, Filter{Stream: domain.DeliveryStream(id), Limit: 1})
	if err != nil || len(first) == 0 {
		return uuid.Nil, err
	}
	return first[0].Subject, nil
}

// Forget drops what arrived before a time: a request is kept no longer than what it was made of.
func (i *Inspector) Forget(ctx context.Context, before time.Time) error {
	if _, err := i.db.ExecContext(ctx, `DELETE FROM inspector_requests WHERE received_at < $1`, before); err != nil {
		return fmt.Errorf("inspector: %w", err)
	}
	return nil
}

// Capture keeps a request under a person's key, or under nobody's, and gives its number and the status to answer with. A bin
// keeps the newest. Errors: ErrNotFound; ErrErased.
func (i *Inspector) Capture(ctx context.Context, bin string, subject uuid.UUID, r Inspected) (number int64, status int, err error) {
	id := uuid.New()
	plain, err := json.Marshal(r)
	if err != nil {
		return 0, 0, err
	}
	subject = sealingSubject(subject)
	sealer, err := i.vault.Sealer(ctx, []uuid.UUID{subject})
	if err != nil {
		return 0, 0, err
	}
	sealed, err := sealer.Seal(subject, id[:], plain)
	if err != nil {
		return 0, 0, err
	}
	tx, err := i.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, err
	}
	defer tx.Rollback()
	now := i.clock()
	err = tx.QueryRowContext(ctx, `UPDATE inspector_bins SET number = number + 1 WHERE id = $1 AND expires_at > $2 RETURNING number, status`, bin, now).Scan(&number, &status)
	if err != nil {
		return 0, 0, missingBin(err)
	}
	if _, err = tx.ExecContext(ctx, `INSERT INTO inspector_requests (bin, number, received_at, id, subject, sealed) VALUES ($1, $2, $3, $4, $5, $6)`,
		bin, number, now, id, subject, sealed); err != nil {
		return 0, 0, fmt.Errorf("inspector: %w", err)
	}
	if _, err = tx.ExecContext(ctx, `DELETE FROM inspector_requests WHERE bin = $1 AND number <= $2`, bin, number-BinRequestsMax); err != nil {
		return 0, 0, fmt.Errorf("inspector: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return 0, 0, err
	}
	i.bell.ring(bin)
	return number, status, nil
}

// Arrived is closed when the next request reaches a bin through this process. Take it before looking.
func (i *Inspector) Arrived(bin string) <-chan struct{} { return i.bell.next(bin) }

// Requests gives what reached a bin after a number, in order, at most so many. Whether the bin is there is the caller's to ask.
func (i *Inspector) Requests(ctx context.Context, bin string, after int64, limit int) ([]Inspected, error) {
	rows, err := i.db.QueryContext(ctx, `SELECT r.number, r.received_at, r.id, r.subject, r.sealed FROM inspector_requests r JOIN inspector_bins b ON b.id = r.bin
		WHERE r.bin = $1 AND r.number > $2 AND b.expires_at > $3 ORDER BY r.number LIMIT $4`, bin, after, i.clock(), limit)
	if err != nil {
		return nil, fmt.Errorf("inspector: %w", err)
	}
	defer rows.Close()
	type row struct {
		number      int64
		at          time.Time
		id, subject uuid.UUID
		sealed      []byte
	}
	var found []row
	var subjects []uuid.UUID
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.number, &r.at, &r.id, &r.subject, &r.sealed); err != nil {
			return nil, fmt.Errorf("inspector: %w", err)
		}
		found, subjects = append(found, r), append(subjects, r.subject)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("inspector: %w", err)
	}
	opener, err := i.vault.Opener(ctx, subjects)
	if err != nil {
		return nil, err
	}
	out := make([]Inspected, len(found))
	for n, r := range found {
		plain, err := opener.Open(r.subject, r.id[:], r.sealed)
		switch {
		case errors.Is(err, ErrErased):
			out[n].Erased, out[n].Headers = true, map[string][]string{}
		case err != nil:
			return nil, fmt.Errorf("inspector: request %d: %w", r.number, err)
		default:
			if err := json.Unmarshal(plain, &out[n]); err != nil {
				return nil, fmt.Errorf("inspector: request %d: %w", r.number, err)
			}
		}
		out[n].Number, out[n].ReceivedAt = r.number, r.at.UTC()
	}
	return out, nil
}
