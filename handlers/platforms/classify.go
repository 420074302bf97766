package platforms

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// MaxRetryAfter is the longest wait that a platform can ask for. A longer one, by mistake or malice, would hold a
// delivery past any use.
const MaxRetryAfter = 24 * time.Hour

// ByStatus reads an answer by its HTTP status class alone. It is what a dialect falls back to, and all there is for
// a receiver that says nothing more.
func ByStatus(status int, header http.Header, now time.Time) Verdict {
	v := Verdict{Native: nativeStatus(status), Limit: RateLimitOf(header, now)}
	switch {
	case status >= 200 && status < 300:
		v.Kind, v.Reason = domain.Accepted, "the receiver took it"
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired:
		v.Kind, v.Reason = domain.AuthExpired, "the receiver refused the credential: check the target's headers and the secret they name"
	case status == http.StatusGone:
		v.Kind, v.Disable, v.Reason = domain.Permanent, true, "the endpoint is gone: point the target at its successor"
	case status == http.StatusTooManyRequests:
		v.Kind, v.Reason = domain.RetryLater, "the receiver is rate limiting us"
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		v.Kind, v.Reason = domain.RetryLater, "the receiver asked for it again"
	case status == http.StatusConflict:
		v.Kind, v.Reason = domain.RetryLater, "the receiver is still busy with an earlier request of the same key"
	case status == http.StatusNotImplemented, status == http.StatusHTTPVersionNotSupported:
		v.Kind, v.Reason = domain.Permanent, "the receiver does not do this at all: check the target's URL"
	case status >= 500 && status < 600:
		v.Kind, v.Reason = domain.RetryLater, "the receiver failed"
	case status >= 300 && status < 400:
		v.Kind, v.Reason = domain.Permanent, "the receiver redirects, and redirects are not followed: put the final URL into the target"
		v.Said = clip(header.Get("Location"), 200)
	case status >= 400 && status < 500:
		v.Kind, v.Reason = domain.Permanent, "the receiver refused the request as it stands"
	default:
		v.Kind, v.Reason = domain.RetryLater, "the answer is not a final HTTP status"
	}
	if v.Kind == domain.RetryLater {
		v.RetryAt = RetryAfter(header, now)
	}
	return v
}

// ClassifyError reads a request that got no answer. A timeout is told apart because the platform may have taken the
// request before it.
func ClassifyError(err error) Verdict {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return Verdict{Kind: domain.Timeout, Reason: "no answer in time; the platform may have taken it", Native: clip(err.Error(), 200)}
	}
	return Verdict{Kind: domain.NetworkError, Reason: "no answer: " + clip(err.Error(), 200), Native: clip(err.Error(), 200)}
}

// RetryAfter reads the Retry-After header, in seconds or as an HTTP date, as a time not before now and at most
// [MaxRetryAfter] away. Zero: the header is absent or unreadable.
func RetryAfter(header http.Header, now time.Time) time.Time {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if text == "" {
		return time.Time{}
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return after(now, seconds)
	}
	if at, err := http.ParseTime(text); err == nil {
		return ClampRetry(at, now)
	}
	return time.Time{}
}

// ClampRetry keeps a retry time within now and [MaxRetryAfter] from now.
func ClampRetry(at, now time.Time) time.Time {
	if at.Before(now) {
		return now
	}
	if latest := now.Add(MaxRetryAfter); at.After(latest) {
		return latest
	}
	return at
}

// epochFrom is the smallest number that a Reset header can only mean as an epoch: as seconds from now it would be
// three decades.
const epochFrom = 1e9

// RateLimitOf reads the quota headers in any of the spellings in use (RateLimit-*, X-RateLimit-*). Their Reset means
// seconds left to some senders and an epoch to others; a value above 1e9 can only be an epoch.
func RateLimitOf(header http.Header, now time.Time) RateLimit {
	var l RateLimit
	for _, prefix := range []string{"RateLimit-", "X-RateLimit-"} {
		if n, ok := leadingNumber(header.Get(prefix + "Limit")); ok {
			l.Limit, l.Known = clampInt(n), true
		}
		if n, ok := leadingNumber(header.Get(prefix + "Remaining")); ok {
			l.Remaining, l.Known = clampInt(n), true
		}
		if n, ok := leadingNumber(header.Get(prefix + "Reset")); ok {
			l.Known = true
			if n >= epochFrom {
				l.Reset = ClampRetry(time.Unix(int64(math.Min(n, math.MaxInt32*2)), 0).UTC(), now)
			} else {
				l.Reset = after(now, n)
			}
		}
		if scope := header.Get(prefix + "Scope"); scope != "" {
			l.Scope = clip(scope, 64)
		}
	}
	return l
}

// after is a number of seconds from now, kept within [MaxRetryAfter].
func after(now time.Time, seconds float64) time.Time {
	switch {
	case math.IsNaN(seconds):
		return time.Time{}
	case seconds <= 0:
		return now
	case seconds >= MaxRetryAfter.Seconds():
		return now.Add(MaxRetryAfter)
	}
	return now.Add(time.Duration(seconds * float64(time.Second)))
}

// leadingNumber reads the number at the start of a header such as "350, 350;w=1, 3500;w=60".
func leadingNumber(text string) (float64, bool) {
	text = strings.TrimSpace(text)
	if cut := strings.IndexAny(text, ",; "); cut >= 0 {
		text = text[:cut]
	}
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil && !math.IsNaN(n) && !math.IsInf(n, 0)
}

func clampInt(n float64) int {
	return int(math.Max(0, math.Min(n, math.MaxInt32)))
}

func nativeStatus(status int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
}

// Clip shortens a platform's text to at most max bytes, on a rune's edge, so that one talkative answer cannot fill
// an event.
func Clip(text string, max int) string { return clip(text, max) }

func clip(text string, max int) string {
	text = strings.ToValidUTF8(strings.TrimSpace(text), "\uFFFD")
	if len(text) <= max {
		return text
	}
	cut := max
	for cut > 0 && text[cut]&0xC0 == 0x80 {
		cut--
	}
	return text[:cut] + "…"
}
