package domain

import (
	"net/url"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// PlatformPolicy says how one platform's suppression list is reached and kept in step with our consent.
type PlatformPolicy struct {
	Name     string `json:"name" yaml:"name" doc:"of the connection; by default the platform's"`
	Platform string `json:"platform" yaml:"platform" doc:"klaviyo, sfmc, braze, dotdigital, yotpo or webhook"`
	Disabled bool   `json:"disabled,omitempty" yaml:"disabled,omitempty" doc:"nothing is read and nothing is written"`

	URL         string            `json:"url,omitempty" yaml:"url,omitempty" doc:"of its API; by default the platform's own, where it has one"`
	Credentials map[string]string `json:"credentials,omitempty" yaml:"credentials,omitempty" doc:"which named secret holds what: key: klaviyo_private_key"`
	Settings    map[string]string `json:"settings,omitempty" yaml:"settings,omitempty" doc:"what else the platform needs: store, account_id, sms_group, …"`

	Channels  []Channel `json:"channels,omitempty" yaml:"channels,omitempty" doc:"that are reconciled; by default all that can be"`
	Every     Duration  `json:"every,omitzero" yaml:"every,omitempty" doc:"between incremental runs; 15m by default"`
	FullEvery Duration  `json:"full_every,omitzero" yaml:"full_every,omitempty" doc:"between full runs; 24h by default"`
	Overlap   Duration  `json:"overlap,omitzero" yaml:"overlap,omitempty" doc:"how far before the last run's start an incremental one reads; 15m by default"`
	Realtime  string    `json:"realtime,omitempty" yaml:"realtime,omitempty" doc:"on (the default): opt-outs are written there as they are recorded; off: by the runs alone"`

	OptOutMeans  []Purpose `json:"opt_out_means,omitempty" yaml:"opt_out_means,omitempty" doc:"purposes that an opt-out there is recorded for here; all by default"`
	PushedFor    []Purpose `json:"pushed_for,omitempty" yaml:"pushed_for,omitempty" doc:"purposes whose opt-out here is written there; all and promo by default"`
	UnknownThere string    `json:"unknown_there,omitempty" yaml:"unknown_there,omitempty" doc:"opt-outs of people whom a full read shows to be unknown there: push (the default), which on most platforms creates them, or skip"`

	Resubscribe bool     `json:"resubscribe,omitempty" yaml:"resubscribe,omitempty" doc:"lift there, by itself, what a person with evidence agreed to again here; off by default"`
	LiftWithin  Duration `json:"lift_within,omitzero" yaml:"lift_within,omitempty" doc:"how fresh such a decision must be, since a second opt-out there cannot be told from the first; 15m by default"`
	LiftedThere string   `json:"lifted_there,omitempty" yaml:"lifted_there,omitempty" doc:"when the platform lifts what we hold: suppress (the default) writes it again and asks; ask leaves it and asks"`

	Cap     float64           `json:"cap,omitempty" yaml:"cap,omitempty" doc:"percent of the suppressed addresses that a run may change without asking; 5 by default, 100 is no cap"`
	CapFrom int64             `json:"cap_from,omitempty" yaml:"cap_from,omitempty" doc:"changes that are always allowed; 100 by default"`
	Exclude []string          `json:"exclude,omitempty" yaml:"exclude,omitempty" doc:"addresses that are nobody's, such as *@example.com and staff-profile-*: never written there"`
	Scopes  map[string]string `json:"scopes,omitempty" yaml:"scopes,omitempty" doc:"what an opt-out of one list or group means here: its id and a purpose, or ignore"`
}

// PlatformPolicyChanged records a new version of a platform's policy: all of it.
type PlatformPolicyChanged struct {
	Policy PlatformPolicy `json:"policy"`
	Reason string         `json:"reason,omitempty" doc:"why it was changed, in words"`
}

var _ = declare("platform.policy_changed", 1, FromLedger, "How a platform's list is reached and kept in step was changed. The event's version in its stream is the policy's version.",
	PlatformPolicyChanged{Policy: examplePolicy, Reason: "connected"})

var examplePolicy = func() PlatformPolicy {
	p := PlatformPolicy{Platform: "klaviyo", Credentials: map[string]string{"key": "klaviyo_private_key"}}
	p.Normalize()
	return p
}()

// The defaults of a policy.
const (
	DefaultEvery      = 15 * time.Minute
	DefaultFullEvery  = 24 * time.Hour
	DefaultOverlap    = 15 * time.Minute
	DefaultLiftWithin = 15 * time.Minute
	DefaultCap        = 5
	DefaultCapFrom    = 100
)

// Values of a policy's choices.
const (
	On           = "on"
	Off          = "off"
	PushUnknown  = "push"
	SkipUnknown  = "skip"
	LiftSuppress = "suppress"
	LiftAsk      = "ask"
	ScopeIgnore  = "ignore"
)

// Normalize fills in the defaults, so that a version in the ledger says everything it means.
func (p *PlatformPolicy) Normalize() {
	text := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	text(&p.Name, p.Platform)
	text(&p.Realtime, On)
	text(&p.UnknownThere, PushUnknown)
	text(&p.LiftedThere, LiftSuppress)
	defaultTo(&p.Every, DefaultEvery)
	defaultTo(&p.FullEvery, DefaultFullEvery)
	defaultTo(&p.Overlap, DefaultOverlap)
	defaultTo(&p.LiftWithin, DefaultLiftWithin)
	if len(p.OptOutMeans) == 0 {
		p.OptOutMeans = []Purpose{PurposeAll}
	}
	if len(p.PushedFor) == 0 {
		p.PushedFor = []Purpose{PurposeAll, Promo}
	}
	if p.Cap == 0 {
		p.Cap = DefaultCap
	}
	if p.CapFrom == 0 {
		p.CapFrom = DefaultCapFrom
	}
}

// Validate reports what is wrong with the policy.
func (p PlatformPolicy) Validate() error {
	if !handlePattern.MatchString(p.Name) {
		return Invalid("/name", "is %q; a name is 1 to 128 letters, digits, '.', '_' and '-', the first a letter or digit", clip(p.Name))
	}
	if !slices.Contains(Platforms, p.Platform) {
		return Invalid("/platform", "is %q; it is one of %v", clip(p.Platform), Platforms)
	}
	if u, err := url.Parse(p.URL); p.URL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil) {
		return Invalid("/url", "is no http or https address without credentials in it")
	}
	for _, choice := range []struct {
		at, value string
		of        []string
	}{
		{"/realtime", p.Realtime, []string{On, Off}},
		{"/unknown_there", p.UnknownThere, []string{PushUnknown, SkipUnknown}},
		{"/lifted_there", p.LiftedThere, []string{LiftSuppress, LiftAsk}},
	} {
		if !slices.Contains(choice.of, choice.value) {
			return Invalid(choice.at, "is %q; it is one of %v", clip(choice.value), choice.of)
		}
	}
	for _, c := range p.Channels {
		if !slices.Contains(Channels, c) {
			return Invalid("/channels", "names %q; there are %v", clip(string(c)), Channels)
		}
	}
	for at, list := range map[string][]Purpose{"/opt_out_means": p.OptOutMeans, "/pushed_for": p.PushedFor} {
		for _, purpose := range list {
			if !slices.Contains(Purposes, purpose) {
				return Invalid(at, "names %q; there are %v", clip(string(purpose)), Purposes)
			}
		}
	}
	for _, pattern := range p.Exclude {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" || pattern == "*" {
			return Invalid("/exclude", "holds %q, which is no pattern such as *@example.com", clip(pattern))
		}
	}
	for scope, meaning := range p.Scopes {
		if meaning != ScopeIgnore && !slices.Contains(Purposes, Purpose(meaning)) {
			return Invalid("/scopes/"+scope, "is %q; it is a purpose (%v) or ignore", clip(meaning), Purposes)
		}
	}
	switch {
	case p.Cap < 0 || p.Cap > 100:
		return Invalid("/cap", "is %v; it is a percentage, 0 to 100", p.Cap)
	case p.CapFrom < 0:
		return Invalid("/cap_from", "is negative")
	case time.Duration(p.Every) < time.Minute || time.Duration(p.FullEvery) < time.Duration(p.Every):
		return Invalid("/every", "is less than a minute, or more than full_every")
	}
	return nil
}

// Excluded reports whether the policy leaves a normalised address out.
func (p PlatformPolicy) Excluded(address string) bool {
	address = strings.ToLower(address)
	return slices.ContainsFunc(p.Exclude, func(pattern string) bool {
		ok, err := path.Match(strings.ToLower(pattern), address)
		return ok && err == nil
	})
}

// PlatformStream names the stream of a connection's policy.
func PlatformStream(name string) string { return "platform-" + name }

// Stream is the connection's.
func (p PlatformPolicyChanged) Stream() string { return PlatformStream(p.Policy.Name) }

// Keys has the state that the event sets.
func (p PlatformPolicyChanged) Keys() Keys {
	if p.Policy.Disabled {
		return Keys{State: "disabled"}
	}
	return Keys{State: "enabled"}
}

// Validate reports what is wrong with the payload.
func (p PlatformPolicyChanged) Validate() error { return p.Policy.Validate() }

// ParsePlatformPolicy reads a policy strictly: a field that it does not have is a mistake, not something to drop.
func ParsePlatformPolicy(raw []byte) (PlatformPolicy, error) {
	var p PlatformPolicy
	if err := decodeStrict(raw, &p); err != nil {
		return p, locate(err, raw, reflect.TypeFor[PlatformPolicy]())
	}
	return p, nil
}

// ParsePlatformPolicyFile reads a policy from a YAML or JSON file, as strictly.
func ParsePlatformPolicyFile(content []byte) (PlatformPolicy, error) {
	raw, err := yaml.YAMLToJSON(content)
	if err != nil {
		message, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
		return PlatformPolicy{}, Invalid("", "is neither YAML nor JSON: %s", message)
	}
	return ParsePlatformPolicy(raw)
}
