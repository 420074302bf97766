package domain

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Target is a named outbound endpoint and what is sent to it. A target is never edited: each change is a new
// version in the ledger.
type Target struct {
	Handle      string            `json:"handle" yaml:"handle" doc:"what a reaction references; 1 to 128 letters, digits, '.', '_' and '-'"`
	Name        string            `json:"name" yaml:"name" doc:"for people"`
	Description string            `json:"description,omitempty" yaml:"description,omitempty" doc:"what it is for"`
	Notes       string            `json:"notes,omitempty" yaml:"notes,omitempty" doc:"for whoever works on it"`
	Platform    string            `json:"platform" yaml:"platform" doc:"klaviyo, sfmc, braze, dotdigital, yotpo or webhook: whose dialect the endpoint speaks"`
	Method      string            `json:"method,omitempty" yaml:"method,omitempty" doc:"POST (the default), PUT or PATCH"`
	URL         string            `json:"url" yaml:"url" doc:"http or https; a template"`
	ContentType string            `json:"content_type,omitempty" yaml:"content_type,omitempty" doc:"of the body; application/json by default"`
	Headers     map[string]string `json:"headers,omitempty" yaml:"headers,omitempty" doc:"values are templates; secrets by name: {{ secret('klaviyo_private_key') }}"`
	Body        string            `json:"body,omitempty" yaml:"body,omitempty" doc:"the Twig template of the request body"`
	Condition   json.RawMessage   `json:"condition,omitempty" yaml:"-" doc:"JSON Logic over the context; the delivery is withheld unless it is true"`
	Consent     *ConsentRule      `json:"consent,omitempty" yaml:"consent,omitempty" doc:"what is asked of the person's consent; absent asks nothing"`
	Unresolved  string            `json:"unresolved,omitempty" yaml:"unresolved,omitempty" doc:"a variable that the context lacks: error, warn (the default) or ignore"`
	Retry       Retry             `json:"retry,omitzero" yaml:"retry,omitempty" doc:"max_attempts, timeout, base, max, budget, on: how often and how patiently an attempt is repeated"`
	Limits      Limits            `json:"limits,omitzero" yaml:"limits,omitempty" doc:"rate (50/s) and concurrency"`
	Breaker     Breaker           `json:"breaker,omitzero" yaml:"breaker,omitempty" doc:"failures and pause: when a target that keeps failing is left alone, and how long at first; discard_after: what is held longer is cancelled"`
	QuietHours  *QuietHours       `json:"quiet_hours,omitempty" yaml:"quiet_hours,omitempty" doc:"from, to, zone: when nothing is sent; what falls into them waits for their end"`
	Priority    string            `json:"priority,omitempty" yaml:"priority,omitempty" doc:"transactional goes before promotional; by default what the consent rule's purpose says"`
	Order       string            `json:"order,omitempty" yaml:"order,omitempty" doc:"profile: what is for one person is sent in the order in which it was planned; absent: as it comes"`
	ExpireAfter Duration          `json:"expire_after,omitzero" yaml:"expire_after,omitempty" doc:"not sent later than this after its firing was recorded; absent: no limit but the retries'"`
	Signing     []string          `json:"signing,omitempty" yaml:"signing,omitempty" doc:"secrets that sign the request, by name, newest first: whsec_… in the Standard Webhooks format; a rotated secret signs with both values"`
	HMAC        string            `json:"hmac,omitempty" yaml:"hmac,omitempty" doc:"secret that signs the body in the CRM's own way, by name: X-Omneo-Hmac-SHA256, in lower-case hex"`
	Auth        *Auth             `json:"auth,omitempty" yaml:"auth,omitempty" doc:"basic or oauth2: what goes into the Authorization header, where a header template does not do"`
	TLS         *TLS              `json:"tls,omitempty" yaml:"tls,omitempty" doc:"certificate and ca: secrets, by name, for receivers that ask for a client certificate or have one of a private authority"`
	Redirects   int               `json:"redirects,omitempty" yaml:"redirects,omitempty" doc:"how many redirects are followed, 0 (the default) to 5; only those that keep method and body (307, 308)"`
	Form        map[string]string `json:"form,omitempty" yaml:"form,omitempty" doc:"instead of body: the fields of a form, each value a template, encoded when it is sent"`
	Variables   map[string]any    `json:"variables,omitempty" yaml:"variables,omitempty" doc:"constants that its templates may name: texts, numbers, true and false"`

	Environments map[string]map[string]any `json:"environments,omitempty" yaml:"environments,omitempty" doc:"constants that differ by environment, by the name that serve --environment gives; they go before variables"`
	Sample       json.RawMessage           `json:"sample,omitempty" yaml:"-" doc:"a context to test with when none is given; it stands in the ledger in the open, so nobody's real data"`
	Approval     string                    `json:"approval,omitempty" yaml:"approval,omitempty" doc:"required: a change is proposed, and holds once somebody else approves it"`
}

// Limits bound the pace of one target over all processes.
type Limits struct {
	Rate        Rate `json:"rate,omitzero" yaml:"rate,omitempty"`                // such as 50/s; none by default
	Concurrency int  `json:"concurrency,omitempty" yaml:"concurrency,omitempty"` // requests in flight in one process; 16 by default
}

// Breaker says when a target that keeps failing is left alone for a while. What is queued for it is held meanwhile.
type Breaker struct {
	Failures     int      `json:"failures,omitempty" yaml:"failures,omitempty" doc:"in a row, over all processes; 20 by default"`
	Pause        Duration `json:"pause,omitzero" yaml:"pause,omitempty" doc:"the first one; each failed probe doubles it, up to 10m; 30s by default"`
	DiscardAfter Duration `json:"discard_after,omitzero" yaml:"discard_after,omitempty" doc:"a delivery that is held longer than this is cancelled; absent: it is held until the target is resumed"`
}

// The priorities of a target.
const (
	Transactional = "transactional"
	Promotional   = "promotional"
)

// OrderByProfile is the order of a target that sends each person's messages one after the other.
const OrderByProfile = "profile"

// The defaults of a target.
const (
	DefaultFailures    = 20
	DefaultPause       = 30 * time.Second
	MaxPause           = 10 * time.Minute
	DefaultMaxAttempts = 8
	DefaultTimeout     = 10 * time.Second
	DefaultRetryBase   = 2 * time.Second
	DefaultRetryMax    = time.Hour
	DefaultConcurrency = 16
)

// Platforms lists whose dialects a target may speak.
var Platforms = []string{"klaviyo", "sfmc", "braze", "dotdigital", "yotpo", "webhook"}

// The answers to a variable that the context lacks.
const (
	UnresolvedError  = "error"
	UnresolvedWarn   = "warn"
	UnresolvedIgnore = "ignore"
)

var handlePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Normalize fills in the defaults, so that a version in the ledger says everything it means.
func (t *Target) Normalize() {
	if t.Name == "" {
		t.Name = t.Handle
	}
	if t.Platform == "" {
		t.Platform = "webhook"
	}
	if t.Method == "" {
		t.Method = "POST"
	}
	t.Method = strings.ToUpper(t.Method)
	if t.ContentType == "" {
		t.ContentType = "application/json"
		if len(t.Form) > 0 {
			t.ContentType = formType
		}
	}
	if t.Unresolved == "" {
		t.Unresolved = UnresolvedWarn
	}
	if t.Consent != nil && t.Consent.Mode == "" {
		c := *t.Consent
		c.Mode = Enforce
		t.Consent = &c
	}
	if t.Retry.MaxAttempts == 0 {
		t.Retry.MaxAttempts = DefaultMaxAttempts
	}
	defaultTo(&t.Retry.Timeout, DefaultTimeout)
	defaultTo(&t.Retry.Base, DefaultRetryBase)
	defaultTo(&t.Retry.Max, DefaultRetryMax)
	if t.Limits.Concurrency == 0 {
		t.Limits.Concurrency = DefaultConcurrency
	}
	if t.Breaker.Failures == 0 {
		t.Breaker.Failures = DefaultFailures
	}
	defaultTo(&t.Breaker.Pause, DefaultPause)
	if t.Priority == "" {
		t.Priority = Transactional
		if t.Consent != nil && t.Consent.Purpose.Promotional() {
			t.Priority = Promotional
		}
	}
}

func defaultTo(d *Duration, v time.Duration) {
	if *d == 0 {
		*d = Duration(v)
	}
}

const (
	maxBody    = 256 << 10 // bytes of a body template
	maxHeaders = 64
)

// Validate reports what is wrong with a normalized target. CompileTarget checks its templates besides.
func (t Target) Validate() error {
	switch {
	case !handlePattern.MatchString(t.Handle):
		return Invalid("/handle", "is %q; a handle is 1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit", clip(t.Handle))
	case len(t.Name) > 256:
		return Invalid("/name", "is longer than 256 bytes")
	case !slices.Contains(Platforms, t.Platform):
		return Invalid("/platform", "is %q; it is one of %v", clip(t.Platform), Platforms)
	case !slices.Contains([]string{"POST", "PUT", "PATCH"}, t.Method):
		return Invalid("/method", "is %q; it is POST, PUT or PATCH", clip(t.Method))
	case !hasHTTPScheme(t.URL):
		return Invalid("/url", "is %q; it starts with https:// or http:// and names a host", clip(t.URL))
	case t.Body == "" && len(t.Form) == 0:
		return Invalid("/body", "is empty, and there is no form either")
	case len(t.Body) > maxBody:
		return Invalid("/body", "is %d bytes, more than %d", len(t.Body), maxBody)
	case !slices.Contains([]string{UnresolvedError, UnresolvedWarn, UnresolvedIgnore}, t.Unresolved):
		return Invalid("/unresolved", "is %q; it is error, warn or ignore", clip(t.Unresolved))
	case t.Limits.Concurrency < 1 || t.Limits.Concurrency > 1024:
		return Invalid("/limits/concurrency", "is %d; it is 1 to 1024", t.Limits.Concurrency)
	case t.Breaker.Failures < 1 || t.Breaker.Failures > 10_000:
		return Invalid("/breaker/failures", "is %d; it is 1 to 10000", t.Breaker.Failures)
	case t.Breaker.Pause < Duration(100*time.Millisecond) || t.Breaker.Pause > Duration(MaxPause):
		return Invalid("/breaker/pause", "is %s; it is 100ms to %s", t.Breaker.Pause, MaxPause)
	case t.Breaker.DiscardAfter != 0 && t.Breaker.DiscardAfter < Duration(time.Second):
		return Invalid("/breaker/discard_after", "is %s; it is at least 1s, or left out", t.Breaker.DiscardAfter)
	case t.Priority != Transactional && t.Priority != Promotional:
		return Invalid("/priority", "is %q; it is %s or %s", clip(t.Priority), Transactional, Promotional)
	case t.Order != "" && t.Order != OrderByProfile:
		return Invalid("/order", "is %q; it is %s, or left out", clip(t.Order), OrderByProfile)
	case len(t.Signing) > 0 && t.Platform != "webhook":
		return Invalid("/signing", "is for platform webhook; %s authenticates otherwise", t.Platform)
	case len(t.Signing) > 4:
		return Invalid("/signing", "names %d secrets, more than 4", len(t.Signing))
	case len(t.Headers) > maxHeaders:
		return Invalid("/headers", "holds %d headers, more than %d", len(t.Headers), maxHeaders)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		if err := validateHeader(name, t.Headers[name]); err != nil {
			return within("/headers/"+pointerToken(name), err)
		}
	}
	for _, check := range []func() error{t.validateURL, t.validateContent, t.validateAuth, t.validateVariables, t.validateProcess} {
		if err := check(); err != nil {
			return err
		}
	}
	if t.Consent != nil {
		if err := t.Consent.validate(); err != nil {
			return within("/consent", err)
		}
	}
	if t.QuietHours != nil {
		if err := t.QuietHours.validate(); err != nil {
			return within("/quiet_hours", err)
		}
	}
	if err := t.Retry.validate(); err != nil {
		return within("/retry", err)
	}
	return nil
}

// hasHTTPScheme looks at the part of a URL template that must not come from the context: how the endpoint is spoken to.
func hasHTTPScheme(u string) bool {
	lower := strings.ToLower(u)
	for _, scheme := range []string{"https://", "http://"} {
		if rest, ok := strings.CutPrefix(lower, scheme); ok {
			return rest != "" && rest[0] != '/' && !strings.ContainsAny(u, "\t\r\n")
		}
	}
	return false
}

var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// credentialHeaders carry secrets, which belong in the vault and not in an event that is kept for ever.
var credentialHeaders = []string{"authorization", "proxy-authorization", "x-api-key", "api-key", "apikey", "x-auth-token", "cookie"}

// transportHeaders are the HTTP client's own.
var transportHeaders = []string{"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}

func validateHeader(name, value string) error {
	lower := strings.ToLower(name)
	switch {
	case !headerName.MatchString(name):
		return Invalid("", "is not a header name")
	case slices.Contains(transportHeaders, lower):
		return Invalid("", "is set by the client itself; leave it out")
	case strings.ContainsAny(value, "\r\n\x00"):
		return Invalid("", "holds a line break")
	case slices.Contains(credentialHeaders, lower) && !strings.Contains(value, "secret("):
		return Invalid("", "holds a credential in plain text; store it with 'dispatch-ledger secret set NAME' and write {{ secret('NAME') }}")
	}
	return nil
}

// TargetChanged records a new version of a target: all of it, so that each version stands alone.
type TargetChanged struct {
	Target
	Reason   string    `json:"reason,omitempty" doc:"why it was changed, in words"`
	Restores int64     `json:"restores,omitempty" doc:"the earlier version that this one repeats, when it was rolled back to"`
	Approved *Approval `json:"approved,omitempty" doc:"the proposal that it follows, when its change took two people; the second one is the actor"`
}

var _ = declare("target.changed", 1, FromLedger,
	"A target was created or changed. The event's version in its stream is the target's version.",
	TargetChanged{Target: exampleTarget()})

func exampleTarget() Target {
	t := Target{
		Handle: "klaviyo-reward-earned", Name: "Klaviyo: Reward Earned", Platform: "klaviyo",
		URL:     "https://a.klaviyo.com/api/events",
		Headers: map[string]string{"Authorization": "Klaviyo-API-Key {{ secret('klaviyo_private_key') }}", "revision": "2026-07-15"},
		Body:    `{"data": {"type": "event", "attributes": {"properties": {"reward_amount": {{ reward.amount }}}}}}`,
		Consent: &ConsentRule{Channel: Email, Purpose: Promo, Mode: Enforce},
	}
	t.Normalize()
	return t
}

// Stream is the target's.
func (t TargetChanged) Stream() string { return TargetStream(t.Handle) }

// TargetStream names the stream of a target's versions.
func TargetStream(handle string) string { return "target-" + handle }

// Keys selects by target.
func (t TargetChanged) Keys() Keys { return Keys{Target: t.Handle, State: "enabled"} }

// TargetDisabled records that nothing is sent through a target until it is changed or enabled again.
type TargetDisabled struct {
	Handle string `json:"handle"`
	Reason string `json:"reason,omitempty" doc:"why, in words"`
}

// TargetEnabled records that a disabled target sends again.
type TargetEnabled struct {
	Handle string `json:"handle"`
	Reason string `json:"reason,omitempty" doc:"why, in words"`
}

// TargetDeleted records that a target was withdrawn; its versions stay in the ledger.
type TargetDeleted struct {
	Handle string `json:"handle"`
	Reason string `json:"reason,omitempty" doc:"why, in words"`
}

var (
	_ = declare("target.disabled", 1, FromLedger, "A target was switched off; its firings are withheld from then on.",
		TargetDisabled{Handle: "klaviyo-reward-earned", Reason: "the endpoint answered 410 Gone"})
	_ = declare("target.enabled", 1, FromLedger, "A target that was switched off sends again.",
		TargetEnabled{Handle: "klaviyo-reward-earned"})
	_ = declare("target.deleted", 1, FromLedger, "A target was withdrawn; firings that name it are rejected from then on.",
		TargetDeleted{Handle: "klaviyo-reward-earned"})
)

// Stream is the target's.
func (t TargetDisabled) Stream() string { return TargetStream(t.Handle) }

// Keys selects by target.
func (t TargetDisabled) Keys() Keys { return Keys{Target: t.Handle, State: "disabled"} }

// Validate reports what is wrong with the payload.
func (t TargetDisabled) Validate() error { return validHandle(t.Handle) }

// Stream is the target's.
func (t TargetEnabled) Stream() string { return TargetStream(t.Handle) }

// Keys selects by target.
func (t TargetEnabled) Keys() Keys { return Keys{Target: t.Handle, State: "enabled"} }

// Validate reports what is wrong with the payload.
func (t TargetEnabled) Validate() error { return validHandle(t.Handle) }

// Stream is the target's.
func (t TargetDeleted) Stream() string { return TargetStream(t.Handle) }

// Keys selects by target.
func (t TargetDeleted) Keys() Keys { return Keys{Target: t.Handle, State: "deleted"} }

// Validate reports what is wrong with the payload.
func (t TargetDeleted) Validate() error { return validHandle(t.Handle) }

func validHandle(h string) error {
	if !handlePattern.MatchString(h) {
		return Invalid("/handle", "is %q; a handle is 1 to 128 letters, digits, '.', '_' and '-'", clip(h))
	}
	return nil
}

// Duration is a time.Duration that reads and writes itself as "10s".
type Duration time.Duration

// String writes it as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes it as "10s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads "10s", "1m30s", "2h".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration such as 500ms, 10s or 2h", clip(string(text)))
	}
	*d = Duration(v)
	return nil
}

// Rate is a number of requests in a time, written "50/s", "750/m" or "1000/h".
type Rate struct {
	Count int           // 0 is no limit
	Per   time.Duration // second, minute or hour
}

var rateUnits = []struct {
	suffix string
	per    time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}}

// PerSecond gives the rate as requests a second; +Inf when there is no limit.
func (r Rate) PerSecond() float64 {
	if r.Count == 0 {
		return math.Inf(1)
	}
	return float64(r.Count) / r.Per.Seconds()
}

// MarshalText writes "50/s", or nothing when there is no limit.
func (r Rate) MarshalText() ([]byte, error) {
	if r.Count == 0 {
		return nil, nil
	}
	for _, u := range rateUnits {
		if r.Per == u.per {
			return []byte(strconv.Itoa(r.Count) + "/" + u.suffix), nil
		}
	}
	return nil, fmt.Errorf("a rate is per second, minute or hour, not per %s", r.Per)
}

// UnmarshalText reads "50/s".
func (r *Rate) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = Rate{}
		return nil
	}
	count, suffix, ok := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(strings.TrimSpace(count))
	if ok && err == nil && n > 0 {
		for _, u := range rateUnits {
			if strings.TrimSpace(suffix) == u.suffix {
				*r = Rate{Count: n, Per: u.per}
				return nil
			}
		}
	}
	return fmt.Errorf("%q is not a rate such as 50/s, 750/m or 1000/h", clip(string(text)))
}
