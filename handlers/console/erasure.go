package console

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
)

// erasePage says what an erasure would do before it is done.
type erasePage struct {
	ID      uuid.UUID
	Events  int // about the person, that hold something sealed
	More    bool
	Waiting []api.DeliverySummary // that would be stopped
	Kept    []consent.Entry       // opt-outs that stay in force
	Lists   []api.ListedAddress   // where platforms know an address, which is theirs to erase
}

// counted is how many events and deliveries are counted before an erasure; more are told as more.
const counted = 500

func (c *console) askErasure(v *visit) error {
	ctx := v.r.Context()
	id, err := uuid.Parse(v.r.PathValue("id"))
	if err != nil {
		return v.back("/people", "")
	}
	p := erasePage{ID: id}
	held := api.GetConsent.In()
	held.ID = id.String()
	now, err := api.GetConsent.Call(ctx, c.Service, v.who, held)
	if err != nil {
		return err
	}
	if now.Body.Erased {
		return v.back("/people/"+id.String(), "")
	}
	for _, e := range now.Body.Items {
		if e.Status == domain.OptedOut {
			p.Kept = append(p.Kept, e)
		}
	}
	events := api.ListEvents.In()
	events.Profile, events.Limit = id.String(), counted
	about, err := api.ListEvents.Call(ctx, c.Service, v.who, events)
	if err != nil {
		return err
	}
	for _, e := range about.Body.Items {
		if e.Sealed != nil && e.Sealed.Sealed {
			p.Events++
		}
	}
	p.More = about.Body.Next != nil
	waiting := api.ListDeliveries.In()
	waiting.Profile, waiting.Limit = id.String(), counted
	for i, o := range []domain.Outcome{domain.Pending, domain.Sending, domain.Retrying, domain.Held} {
		if i > 0 {
			waiting.Outcome += ","
		}
		waiting.Outcome += string(o)
	}
	queued, err := api.ListDeliveries.Call(ctx, c.Service, v.who, waiting)
	if err != nil {
		return err
	}
	p.Waiting = queued.Body.Items
	lists := api.ListSuppressions.In()
	lists.ID = id.String()
	listed, err := api.ListSuppressions.Call(ctx, c.Service, v.who, lists)
	if err != nil {
		return err
	}
	p.Lists = listed.Body.Items
	return c.page(v, "erase", "Erase "+id.String()[:8], p)
}

func (c *console) erasePerson(v *visit) error {
	in := api.EraseProfile.In()
	in.ID, in.Body.Reason = v.r.PathValue("id"), v.value("reason")
	switch {
	case in.Body.Reason == "":
		return needsReason()
	case len(in.ID) < 8 || v.value("confirm") != in.ID[:8]:
		return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The confirmation does not match", Detail: "To erase somebody for ever, type the first eight characters of the id.", NextStep: "Go back and type them."}
	}
	if _, err := api.EraseProfile.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/people/"+in.ID, "erased")
}

// accessPerson gives everything that is held on a person, as the file that they are sent. That it was opened is recorded.
func (c *console) accessPerson(v *visit) error {
	in := api.AccessPage.In()
	in.ID, in.Reason = v.r.PathValue("id"), v.value("reason")
	if in.Reason == "" {
		return needsReason()
	}
	out, err := api.AccessPage.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return v.download("access-"+in.ID+".html", out.ContentType, out.Body)
}

// setConsent records an answer that somebody gave in another way than the CRM's.
func (c *console) setConsent(v *visit) error {
	in := api.PutConsent.In()
	in.ID = v.r.PathValue("id")
	var b api.ConsentDecision
	b.Changes = []domain.ConsentChange{{
		Channel: domain.Channel(one(v, "channel", domain.Channels)), Purpose: domain.Purpose(one(v, "purpose", domain.Purposes)),
		Status: domain.ConsentStatus(one(v, "status", []domain.ConsentStatus{domain.OptedIn, domain.OptedOut, domain.Unknown})),
	}}
	b.DecidedBy, b.Method, b.Note = one(v, "decided_by", domain.DecidedBy), v.value("method"), v.value("note")
	if text := v.value("decided_at"); text != "" {
		at, err := parseMoment(text)
		if err != nil {
			return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The time cannot be read", NextStep: "Give a time such as 2026-11-23T04:05, or none for now."}
		}
		b.DecidedAt = &at
	}
	if text := v.value("evidence"); text != "" {
		b.Evidence = map[string]string{"note": strings.TrimSpace(text)}
	}
	var err error
	if in.RawBody, err = json.Marshal(b); err != nil {
		return err
	}
	if _, err := api.PutConsent.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/people/"+in.ID, "answered")
}
