package console

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

type projectionsPage struct {
	Projections, Readers, Builds []projections.Status
	MayRebuild, MayResume        bool
	Busy                         bool // something is being built
}

func (c *console) listProjections(v *visit) error {
	in := api.ListProjections.In()
	in.Limit = 500
	out, err := api.ListProjections.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	p := projectionsPage{MayRebuild: v.may(api.RebuildProjection.ID), MayResume: v.may(api.ResumeReader.ID)}
	building := []string{"asked", "running"}
	for _, s := range out.Body.Items {
		p.Busy = p.Busy || s.Rebuild != nil && slices.Contains(building, s.Rebuild.State) || s.Kind == "build" && slices.Contains(building, s.State)
		switch s.Kind {
		case "projection":
			p.Projections = append(p.Projections, s)
		case "build":
			p.Builds = append(p.Builds, s)
		default:
			p.Readers = append(p.Readers, s)
		}
	}
	return c.page(v, "projections", "Projections", p)
}

func (c *console) rebuild(v *visit) error {
	in := api.RebuildProjection.In()
	in.Name = v.r.PathValue("name")
	if _, err := api.RebuildProjection.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/projections", "rebuild")
}

// resumeReader has a parked reader try again, after what stopped it was mended.
func (c *console) resumeReader(v *visit) error {
	in := api.ResumeReader.In()
	in.Name = v.r.PathValue("name")
	if _, err := api.ResumeReader.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/projections", "reader_resumed")
}

// skipEvent has a parked reader pass over the event that it cannot read.
func (c *console) skipEvent(v *visit) error {
	in := api.SkipEvent.In()
	in.Name, in.Body.Reason = v.r.PathValue("name"), v.value("reason")
	in.Body.Position, _ = strconv.ParseInt(v.value("position"), 10, 64)
	if in.Body.Reason == "" {
		return needsReason()
	}
	if _, err := api.SkipEvent.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/projections", "skipped")
}

type settingsPage struct {
	Session    schema.Session
	Tokens     []schema.Token
	Secrets    []schema.SecretInfo
	Roles      []schema.Role
	MayTokens  bool
	MayCreate  bool
	MaySecrets bool
	MaySet     bool
	Created    *api.CreatedToken
	Acts       []api.Event
}

// acts are the types of event that say who changed what may be done.
var acts = []string{
	"token.created", "token.revoked", "secret.changed", "secret.deleted", "secret.retired", "session.opened", "session.closed",
	"target.changed", "target.disabled", "target.enabled", "target.deleted", "target.proposed", "target.approved", "target.declined", "target.paused", "target.resumed", "partial.changed", "partial.deleted",
	"consent.policy_changed", "platform.policy_changed", "retention.changed", "reconciliation.approved", "finding.resolved", "replay.asked", "reader.skipped", "profile.erased", "ledger.verified",
}

func (c *console) settings(v *visit) error { return c.showSettings(v, nil) }

func (c *console) showSettings(v *visit, created *api.CreatedToken) error {
	ctx := v.r.Context()
	p := settingsPage{
		Session: v.ses, Roles: schema.Roles, Created: created,
		MayTokens: v.may(api.ListTokens.ID), MayCreate: v.may(api.CreateToken.ID), MaySecrets: v.may(api.ListSecrets.ID), MaySet: v.may(api.PutSecret.ID),
	}
	if p.MayTokens {
		in := api.ListTokens.In()
		in.Limit = 500
		out, err := api.ListTokens.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Tokens = out.Body.Items
		slices.Reverse(p.Tokens)
	}
	if p.MaySecrets {
		in := api.ListSecrets.In()
		in.Limit = 500
		out, err := api.ListSecrets.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Secrets = out.Body.Items
	}
	if v.may(api.ListEvents.ID) {
		var known []string
		for _, t := range acts {
			if _, err := domain.Declared(t); err == nil {
				known = append(known, t)
			}
		}
		in := api.ListEvents.In()
		in.Type, in.Limit, in.Order = strings.Join(known, ","), 20, "desc"
		out, err := api.ListEvents.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Acts = out.Body.Items
	}
	return c.page(v, "settings", "Settings", p)
}

func (c *console) createToken(v *visit) error {
	in := api.CreateToken.In()
	in.Body.Name, in.Body.Role = v.value("name"), schema.Role(v.value("role"))
	if text := v.value("expires"); text != "" {
		at, err := parseMoment(text)
		if err != nil {
			return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The day cannot be read", NextStep: "Give a day such as 2027-03-31, or none."}
		}
		at = at.Add(24*time.Hour - time.Second) // to the end of that day
		in.Body.ExpiresAt = &at
	}
	out, err := api.CreateToken.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	// Shown in the answer itself: a redirection would have to carry the token.
	return c.showSettings(v, &out.Body)
}

func (c *console) revokeToken(v *visit) error {
	in := api.RevokeToken.In()
	in.Name = v.r.PathValue("name")
	if _, err := api.RevokeToken.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/settings", "revoked")
}

func (c *console) putSecret(v *visit) error {
	in := api.PutSecret.In()
	in.Name, in.Body.Value = v.value("name"), v.r.PostFormValue("value")
	if in.Body.Value == "" {
		return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The value is empty", NextStep: "Paste the secret's value."}
	}
	if _, err := api.PutSecret.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/settings", "secret")
}
