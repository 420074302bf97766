package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	desk "github.com/dispatch-ledger/dispatch-ledger/handlers/privacy"
)

type policiesPage struct {
	Consent      api.ConsentPolicy
	Position     int64 // of the event that made it; 0 for the default
	Channels     []domain.Channel
	Chosen       map[domain.Channel]bool
	Calendars    []string
	MayConsent   bool
	Retentions   []desk.Retention
	Kept         []string // event types with sealed parts, for which none was ever set
	MayRetain    bool
	MayRetention bool // see it
	Platforms    []api.Platform
	MayPlatform  bool
}

func (c *console) showPolicies(v *visit) error {
	ctx := v.r.Context()
	consent, err := api.GetConsentPolicy.Call(ctx, c.Service, v.who, api.GetConsentPolicy.In())
	if err != nil {
		return err
	}
	p := policiesPage{
		Consent: consent.Body.ConsentPolicy, Position: consent.Body.Position, Channels: domain.Channels, Chosen: map[domain.Channel]bool{}, Calendars: domain.Calendars(),
		MayConsent: v.may(api.PutConsentPolicy.ID), MayRetain: v.may(api.PutRetention.ID), MayRetention: v.may(api.ListRetentions.ID), MayPlatform: v.may(api.PutPlatform.ID),
	}
	for _, ch := range p.Consent.Channels {
		p.Chosen[ch] = true
	}
	if p.MayRetention {
		out, err := api.ListRetentions.Call(ctx, c.Service, v.who, api.ListRetentions.In())
		if err != nil {
			return err
		}
		p.Retentions = out.Body.Items
		set := map[string]bool{}
		for _, r := range p.Retentions {
			set[r.Type] = true
		}
		for _, d := range domain.Declarations() {
			if d.Seals() && !set[d.Type] {
				p.Kept = append(p.Kept, d.Type)
			}
		}
	}
	in := api.ListPlatforms.In()
	in.Limit = 500
	platforms, err := api.ListPlatforms.Call(ctx, c.Service, v.who, in)
	if err != nil {
		return err
	}
	p.Platforms = platforms.Body.Items
	return c.page(v, "policies", "Policies", p)
}

func (c *console) putConsentPolicy(v *visit) error {
	in := api.PutConsentPolicy.In()
	in.IfMatch = `"` + v.value("position") + `"`
	b := &in.Body
	b.NeverAsked, b.Imported, b.Reason = v.value("never_asked"), v.value("imported"), v.value("reason")
	if b.Reason == "" {
		return needsReason()
	}
	if b.NeverAsked == domain.PolicySend {
		for _, ch := range domain.Channels {
			for _, given := range v.r.Form["channel"] {
				if given == string(ch) {
					b.Channels = append(b.Channels, ch)
				}
			}
		}
		if text := v.value("until"); text != "" {
			until, err := parseMoment(text)
			if err != nil {
				return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The day cannot be read", NextStep: "Give a day such as 2027-03-31."}
			}
			until = until.Add(24*time.Hour - time.Second) // to the end of that day
			b.Until = &until
		}
	}
	if days := v.value("business_days"); days != "" {
		n, err := strconv.Atoi(days)
		if err != nil {
			return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The number of business days cannot be read", NextStep: "Give a whole number, such as 5."}
		}
		b.Promptness.BusinessDays, b.Promptness.Calendar, b.Promptness.TimeZone = n, v.value("calendar"), v.value("time_zone")
	}
	if text := v.value("within"); text != "" {
		if err := b.Promptness.Within.UnmarshalText([]byte(text)); err != nil {
			return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The time cannot be read", NextStep: "Give a duration such as 72h, or none and business days instead."}
		}
		b.Promptness.BusinessDays, b.Promptness.Calendar, b.Promptness.TimeZone = 0, "", ""
	}
	if _, err := api.PutConsentPolicy.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/policies", "policy")
}

func (c *console) putRetention(v *visit) error {
	in := api.PutRetention.In()
	in.Type, in.Body.Reason = v.value("type"), v.value("reason")
	days, err := strconv.Atoi(v.value("days"))
	if err != nil || days < 0 {
		return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The number of days cannot be read", NextStep: "Give a whole number of days; 0 keeps it for as long as the person is not erased."}
	}
	if in.Body.Days = days; in.Body.Reason == "" {
		return needsReason()
	}
	if _, err := api.PutRetention.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/policies", "retention")
}

type platformPage struct {
	Name     string
	Platform *api.Platform // nil for a new one
	ETag     string
	Text     string
	Reason   string
	Problem  *api.Problem
	MayEdit  bool
}

// newPlatform leads to the page of a connection that is to be.
func (c *console) newPlatform(v *visit) error {
	if v.value("name") == "" {
		return v.back("/policies", "")
	}
	return v.back("/policies/platforms/"+url.PathEscape(v.value("name")), "")
}

func (c *console) showPlatform(v *visit) error {
	p := platformPage{Name: v.r.PathValue("name"), MayEdit: v.may(api.PutPlatform.ID)}
	if err := c.fillPlatform(v, &p); err != nil {
		return err
	}
	if p.Platform == nil && !p.MayEdit {
		return &api.Problem{Status: http.StatusNotFound, Title: "There is no such connection", NextStep: "Choose one of the list under Policies."}
	}
	return c.page(v, "platform", p.Name, p)
}

// fillPlatform reads the connection, and its policy into the form unless something stands there.
func (c *console) fillPlatform(v *visit, p *platformPage) error {
	in := api.GetPlatform.In()
	in.Name = p.Name
	out, err := api.GetPlatform.Call(v.r.Context(), c.Service, v.who, in)
	var problem *api.Problem
	if errors.As(err, &problem) && problem.Status == http.StatusNotFound {
		if p.Text == "" {
			p.Text = "platform: klaviyo\ncredentials: {}\nevery: 15m\nfull_every: 24h\n"
		}
		return nil
	}
	if err != nil {
		return err
	}
	p.Platform, p.ETag = &out.Body, out.ETag
	if p.Text == "" {
		raw, err := json.Marshal(out.Body.PlatformPolicy)
		if err != nil {
			return err
		}
		text, err := yaml.JSONToYAML(raw)
		if err != nil {
			return err
		}
		p.Text = string(text)
	}
	return nil
}

func (c *console) putPlatform(v *visit) error {
	p := platformPage{Name: v.r.PathValue("name"), Text: normal(v.r.PostFormValue("file")), Reason: v.value("reason"), ETag: v.value("etag"), MayEdit: true}
	in := api.PutPlatform.In()
	in.Name, in.IfMatch, in.Reason = p.Name, p.ETag, p.Reason
	policy, err := domain.ParsePlatformPolicyFile([]byte(p.Text))
	if err == nil {
		if in.RawBody, err = json.Marshal(policy); err == nil {
			_, err = api.PutPlatform.Call(v.r.Context(), c.Service, v.who, in)
		}
	}
	if err == nil {
		return v.back("/policies/platforms/"+p.Name, "policy")
	}
	if !errors.As(err, &p.Problem) {
		p.Problem = c.Service.Problem(v.r.Context(), err)
	}
	etag := p.ETag
	if err := c.fillPlatform(v, &p); err != nil {
		return err
	}
	p.ETag = etag // the change was decided on what was shown then
	c.show(v.w, v.r, v, p.Problem.Status, "platform", strings.TrimSpace(p.Name), p)
	return nil
}
