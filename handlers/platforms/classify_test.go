package platforms_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

var noon = time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)

func TestByStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]domain.Verdict{
		200: domain.Accepted, 202: domain.Accepted, 204: domain.Accepted, 299: domain.Accepted,
		301: domain.Permanent, 304: domain.Permanent,
		400: domain.Permanent, 401: domain.AuthExpired, 403: domain.AuthExpired, 404: domain.Permanent, 407: domain.AuthExpired,
		408: domain.RetryLater, 409: domain.RetryLater, 410: domain.Permanent, 413: domain.Permanent, 422: domain.Permanent,
		425: domain.RetryLater, 429: domain.RetryLater,
		500: domain.RetryLater, 501: domain.Permanent, 502: domain.RetryLater, 503: domain.RetryLater, 504: domain.RetryLater, 524: domain.RetryLater,
		0: domain.RetryLater, 101: domain.RetryLater, 999: domain.RetryLater,
	} {
		v := platforms.ByStatus(status, nil, noon)
		if v.Kind != want || v.Reason == "" {
			t.Errorf("ByStatus(%d) = %s %q, want %s and a reason", status, v.Kind, v.Reason, want)
		}
		if v.Disable != (status == http.StatusGone) {
			t.Errorf("ByStatus(%d) disables the target: %v", status, v.Disable)
		}
	}
}

func TestRateLimitOf(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		header map[string]string
		want   platforms.RateLimit
	}{
		"nothing said":          {},
		"seconds left":          {header: map[string]string{"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, want: platforms.RateLimit{Reset: noon.Add(30 * time.Second), Known: true}},
		"an epoch":              {header: map[string]string{"X-RateLimit-Limit": "250000", "X-RateLimit-Reset": fmt.Sprint(noon.Add(time.Minute).Unix())}, want: platforms.RateLimit{Limit: 250000, Reset: noon.Add(time.Minute), Known: true}},
		"an epoch in the past":  {header: map[string]string{"X-RateLimit-Reset": "1500000000"}, want: platforms.RateLimit{Reset: noon, Known: true}},
		"an epoch in 10,000 AD": {header: map[string]string{"X-RateLimit-Reset": "1e300"}, want: platforms.RateLimit{Reset: noon.Add(platforms.MaxRetryAfter), Known: true}},
		"a list of policies":    {header: map[string]string{"RateLimit-Limit": "3, 3;w=1, 60;w=60"}, want: platforms.RateLimit{Limit: 3, Known: true}},
		"words":                 {header: map[string]string{"RateLimit-Limit": "plenty", "RateLimit-Reset": "NaN"}},
		"a negative remainder":  {header: map[string]string{"RateLimit-Remaining": "-4"}, want: platforms.RateLimit{Known: true}},
		"the quota has a name":  {header: map[string]string{"X-RateLimit-Limit": "9", "X-RateLimit-Scope": "medium"}, want: platforms.RateLimit{Limit: 9, Scope: "medium", Known: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			for k, v := range tc.header {
				header.Set(k, v)
			}
			if got := platforms.RateLimitOf(header, noon); got != tc.want {
				t.Errorf("RateLimitOf = %+v, want %+v", got, tc.want)
			}
		})
	}
}

// Whatever a platform puts into Retry-After, nothing waits in the past or past a day.
func TestRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.String(),
			rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.Float64().Draw(t, "seconds")) }),
			rapid.Custom(func(t *rapid.T) string {
				return time.Unix(rapid.Int64Range(0, 1<<36).Draw(t, "epoch"), 0).UTC().Format(http.TimeFormat)
			}),
		).Draw(t, "Retry-After")
		at := platforms.RetryAfter(http.Header{"Retry-After": {text}}, noon)
		if !at.IsZero() && (at.Before(noon) || at.After(noon.Add(platforms.MaxRetryAfter))) {
			t.Fatalf("RetryAfter(%q) = %v", text, at)
		}
	})
}

func TestClassifyError(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err  error
		want domain.Verdict
	}{
		"the deadline passed":  {err: fmt.Errorf("post: %w", context.DeadlineExceeded), want: domain.Timeout},
		"the socket timed out": {err: fmt.Errorf("read: %w", os.ErrDeadlineExceeded), want: domain.Timeout},
		"nobody listens":       {err: errors.New("connection refused"), want: domain.NetworkError},
		"we are shutting down": {err: context.Canceled, want: domain.NetworkError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if v := platforms.ClassifyError(tc.err); v.Kind != tc.want || v.Reason == "" {
				t.Errorf("ClassifyError = %+v, want %s", v, tc.want)
			}
		})
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text, most := rapid.String().Draw(t, "text"), rapid.IntRange(0, 40).Draw(t, "max")
		got := platforms.Clip(text, most)
		if !utf8.ValidString(got) || len(strings.TrimSuffix(got, "…")) > max(most, len(strings.TrimSpace(text))) {
			t.Fatalf("Clip(%q, %d) = %q", text, most, got)
		}
		if !strings.HasPrefix(strings.TrimSpace(text), strings.TrimSuffix(got, "…")) {
			t.Fatalf("Clip(%q, %d) = %q is not how it starts", text, most, got)
		}
	})
}

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ body, says string }{
		"an object":              {body: `{"a":1}`},
		"an array":               {body: ` [1, 2] `},
		"a name twice":           {body: `{"a":{"b":1,"b":2}}`, says: "/a/b"},
		"a bare word":            {body: "{\n  \"amount\": \n}", says: "line 3, column 1"},
		"two values":             {body: `{} {}`, says: "something follows"},
		"text that is not UTF-8": {body: "\"\xff\"", says: "UTF-8"},
		"nothing":                {body: "\n", says: "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := platforms.CheckJSON("webhook", []byte(tc.body))
			if (err != nil) != (tc.says != "") || err != nil && (!errors.Is(err, platforms.ErrBody) || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("CheckJSON = %v, want it to say %q", err, tc.says)
			}
		})
	}
}
