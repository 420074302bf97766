package omneo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers that a webhook is signed with.
const (
	// SignatureHeader holds the hex HMAC-SHA256 of the raw body under the shared secret.
	SignatureHeader = "X-Omneo-Hmac-SHA256"
	// TimestampHeader, where a sender gives it, holds when the webhook was sent: Unix seconds or RFC 3339. The signature
	// then covers it, a dot and the body, or the body alone.
	TimestampHeader = "X-Omneo-Timestamp"
)

// ReplayWindow is how far a webhook's own timestamp may be from our clock.
const ReplayWindow = 5 * time.Minute

// ErrSignature is a webhook that nothing proves to come from the CRM.
var ErrSignature = errors.New("the webhook's signature does not hold")

// Verify checks a webhook's signature over the raw body, under any of the secrets: the current one, and while it is
// being rotated the one before it. A timestamp that lies outside the replay window is refused too.
func Verify(h http.Header, body []byte, now time.Time, secrets ...string) error {
	given, err := hex.DecodeString(strings.ToLower(strings.TrimSpace(h.Get(SignatureHeader))))
	if err != nil || len(given) != sha256.Size {
		return fmt.Errorf("%w: %s is missing or not a hex SHA-256", ErrSignature, SignatureHeader)
	}
	stamp := strings.TrimSpace(h.Get(TimestampHeader))
	signed := false
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		signed = signed || hmac.Equal(sum(secret, body), given) || stamp != "" && hmac.Equal(sum(secret, []byte(stamp+"."), body), given)
	}
	if !signed {
		return ErrSignature
	}
	if stamp == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, stamp)
	if seconds, notNumber := strconv.ParseInt(stamp, 10, 64); notNumber == nil {
		at, err = time.Unix(seconds, 0), nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s is neither Unix seconds nor RFC 3339", ErrSignature, TimestampHeader)
	}
	if off := now.Sub(at).Abs(); off > ReplayWindow {
		return fmt.Errorf("%w: it was sent %s away from our clock, the most is %s", ErrSignature, off.Round(time.Second), ReplayWindow)
	}
	return nil
}

func sum(secret string, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}
