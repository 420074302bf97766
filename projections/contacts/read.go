package contacts

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Address is one address of a profile, by its keyed hash.
type Address struct {
	ProfileID uuid.UUID           `json:"profile_id"`
	Channel   domain.Channel      `json:"channel"`
	Hash      string              `json:"hash" doc:"Keyed hash of the normalised address."`
	Current   bool                `json:"current" doc:"The address that the profile has now; false for a former one."`
	FirstAt   time.Time           `json:"first_at"`
	SeenAt    time.Time           `json:"seen_at"`
	Position  int64               `json:"position" doc:"Of the event that saw it last."`
	Fact      *domain.AddressFact `json:"fact,omitempty" doc:"The last report on whether it works."`
}

// Of lists the addresses of a profile, current and former, the ones seen last first.
func Of(ctx context.Context, q schema.Querier, profile uuid.UUID) ([]Address, error) {
	return list(ctx, q, `c.profile_id = $1`, profile)
}

// Whose lists the profiles that have, or had, one of these addresses on a channel: whom a platform's word about an address
// is about. Read by the index on hashes.
func Whose(ctx context.Context, q schema.Querier, c domain.Channel, hashes []string) ([]Address, error) {
	return list(ctx, q, `c.channel = $1 AND c.hash = ANY($2)`, string(c), pq.Array(hashes))
}

// AnyErased reports whether an address is known of anybody who was erased.
func AnyErased(ctx context.Context, q schema.Querier) (found bool, err error) {
	if err := q.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM erased_contacts)`).Scan(&found); err != nil {
		return false, fmt.Errorf("contacts: %w", err)
	}
	return found, nil
}

// Erased says which of these addresses somebody had who was erased.
func Erased(ctx context.Context, q schema.Querier, hashes []domain.ContactHash) (map[domain.ContactHash]bool, error) {
	found := map[domain.ContactHash]bool{}
	if len(hashes) == 0 {
		return found, nil
	}
	channels, values := make([]string, len(hashes)), make([]string, len(hashes))
	for i, h := range hashes {
		channels[i], values[i] = string(h.Channel), h.Hash
	}
	rows, err := q.QueryContext(ctx, `SELECT DISTINCT x.channel, x.hash FROM unnest($1::text[], $2::text[]) AS a (channel, hash)
		JOIN erased_contacts x ON x.channel = a.channel AND x.hash = a.hash`, pq.Array(channels), pq.Array(values))
	if err != nil {
		return nil, fmt.Errorf("contacts: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var h domain.ContactHash
		if err := rows.Scan(&h.Channel, &h.Hash); err != nil {
			return nil, fmt.Errorf("contacts: %w", err)
		}
		found[h] = true
	}
	return found, rows.Err()
}

func list(ctx context.Context, q schema.Querier, where string, args ...any) ([]Address, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT c.profile_id, c.channel, c.hash, c.first_at, c.seen_at, c.position,
		       NOT EXISTS (SELECT FROM contacts l WHERE l.profile_id = c.profile_id AND l.channel = c.channel
		                   AND (l.seen_at > c.seen_at OR l.seen_at = c.seen_at AND l.hash > c.hash)),
		       f.status, f.reported_at, f.reported_by, f.position
		FROM contacts c
		LEFT JOIN LATERAL (
			SELECT a.* FROM address_facts a WHERE a.channel = c.channel AND a.hash = c.hash AND a.hash <> ''
			ORDER BY a.reported_at DESC, (a.status IN ('bounced', 'invalid')) DESC LIMIT 1
		) f ON true
		WHERE c.hash <> '' AND `+where+`
		ORDER BY c.profile_id, c.channel, c.seen_at DESC, c.hash`, args...)
	if err != nil {
		return nil, fmt.Errorf("contacts: %w", err)
	}
	defer rows.Close()
	out := []Address{}
	for rows.Next() {
		var a Address
		var status, by *string
		var at *time.Time
		var position *int64
		if err := rows.Scan(&a.ProfileID, &a.Channel, &a.Hash, &a.FirstAt, &a.SeenAt, &a.Position, &a.Current, &status, &at, &by, &position); err != nil {
			return nil, fmt.Errorf("contacts: %w", err)
		}
		if status != nil {
			a.Fact = &domain.AddressFact{Status: domain.AddressStatus(*status), ReportedAt: *at, ReportedBy: *by, Position: *position}
		}
		out = append(out, a)
	}
	return out, rows.Err()
}
