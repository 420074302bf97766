package schema

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Errors of links that people follow.
var (
	// ErrLink says that a token is not one of ours: cut short, changed, or of another ledger.
	ErrLink = errors.New("the link is not valid")
	// ErrLinkExpired says that a token was ours and its time has passed.
	ErrLinkExpired = errors.New("the link has expired")
)

// Links makes and reads the tokens in links to people's own pages. A token is sealed, so that it says nothing about the
// person and cannot be made or changed by anybody else, and deterministic, so that rendering a message again gives the
// same message. It is safe for concurrent use.
type Links struct{ aead tink.DeterministicAEAD }

// linkFormat is the first byte of a token's content; after it come kind, profile, delivery, expiry in hours since 1970,
// and the lengths and texts of channel and purpose.
const linkFormat = 1

const linkFixed = 1 + 1 + 16 + 16 + 4

// linkPurpose names the key in link_keys and binds tokens to what they are for.
const linkPurpose = "portal"

// linkMax bounds what is decoded at all.
const linkMax = 512

// Links reads the ledger's link key, and makes it if there is none.
func (v *Vault) Links(ctx context.Context) (*Links, error) {
	handle, err := keyset.NewHandle(daead.AESSIVKeyTemplate())
	if err != nil {
		return nil, err
	}
	name := "dispatch-ledger/vault/links/" + linkPurpose
	wrapped, label, err := v.master.wrap(handle, name)
	if err != nil {
		return nil, err
	}
	// Whoever comes first makes it; the others use that one.
	err = v.db.QueryRowContext(ctx, `WITH made AS (
			INSERT INTO link_keys (purpose, wrapped, master, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (purpose) DO NOTHING RETURNING wrapped, master
		) SELECT wrapped, master FROM made UNION ALL SELECT wrapped, master FROM link_keys WHERE purpose = $1 LIMIT 1`,
		linkPurpose, wrapped, label, v.clock()).Scan(&wrapped, &label)
	if errors.Is(err, sql.ErrNoRows) { // made by another process at this moment
		err = v.db.QueryRowContext(ctx, `SELECT wrapped, master FROM link_keys WHERE purpose = $1`, linkPurpose).Scan(&wrapped, &label)
	}
	if err != nil {
		return nil, fmt.Errorf("link key: %w", unavailable(err))
	}
	if handle, err = v.master.unwrap(wrapped, label, name); err != nil {
		return nil, err
	}
	primitive, err := daead.New(handle)
	if err != nil {
		return nil, err
	}
	return &Links{aead: primitive}, nil
}

// Token makes the token of a link, in the URL alphabet of base64.
func (l *Links) Token(link domain.Link) (string, error) {
	b := make([]byte, 0, linkFixed+2+len(link.Channel)+len(link.Purpose))
	b = append(b, linkFormat, byte(link.Kind))
	b = append(b, link.ProfileID[:]...)
	b = append(b, link.DeliveryID[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(link.ExpiresAt.Unix()/3600)) //nolint:gosec // until the year 491,936
	for _, text := range []string{string(link.Channel), string(link.Purpose)} {
		if len(text) > 255 {
			return "", fmt.Errorf("%w: too long", ErrLink)
		}
		b = append(append(b, byte(len(text))), text...) //nolint:gosec // checked above
	}
	sealed, err := l.aead.EncryptDeterministically(b, []byte(linkPurpose))
	if err != nil {
		return "", fmt.Errorf("link: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Open reads a token at a moment. Errors: ErrLink; ErrLinkExpired, with the link all the same.
func (l *Links) Open(token string, now time.Time) (domain.Link, error) {
	var link domain.Link
	if len(token) > linkMax {
		return link, ErrLink
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimSpace(token))
	if err != nil {
		return link, ErrLink
	}
	b, err := l.aead.DecryptDeterministically(sealed, []byte(linkPurpose))
	if err != nil || len(b) < linkFixed+2 || b[0] != linkFormat {
		return link, ErrLink
	}
	link.Kind = domain.LinkKind(b[1])
	link.ProfileID, link.DeliveryID = uuid.UUID(b[2:18]), uuid.UUID(b[18:34])
	link.ExpiresAt = time.Unix(int64(binary.BigEndian.Uint32(b[34:]))*3600, 0).UTC()
	rest := b[linkFixed:]
	for _, into := range []*string{(*string)(&link.Channel), (*string)(&link.Purpose)} {
		if len(rest) == 0 || len(rest) <= int(rest[0]) {
			return domain.Link{}, ErrLink
		}
		*into, rest = string(rest[1:1+rest[0]]), rest[1+rest[0]:]
	}
	if !now.Before(link.ExpiresAt) {
		return link, ErrLinkExpired
	}
	return link, nil
}
