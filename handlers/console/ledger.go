package console

import (
	"errors"
	"strconv"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

type ledgerPage struct {
	Items      []api.Event
	Next       *string
	Types      []audit.Name
	Filter     map[string]string
	Head       int64
	Checkpoint *schema.Checkpoint
}

func (c *console) listEvents(v *visit) (err error) {
	ctx := v.r.Context()
	in := api.ListEvents.In()
	in.Stream, in.Profile, in.Target, in.Actor, in.Cursor, in.Limit, in.Order = v.value("stream"), v.value("profile"), v.value("target"), v.value("actor"), v.value("cursor"), pageSize, "desc"
	if t := v.value("type"); t != "" {
		if _, err := domain.Declared(t); err == nil {
			in.Type = t
		}
	}
	if v.value("order") == "asc" {
		in.Order = "asc"
	}
	if in.From, in.To, err = v.period(); err != nil {
		return err
	}
	if v.wantsCSV() {
		return export(v, c, "events", api.ListEvents, in, &in.Paging)
	}
	out, err := api.ListEvents.Call(ctx, c.Service, v.who, in)
	if err != nil {
		return err
	}
	p := ledgerPage{
		Items: out.Body.Items, Next: out.Body.Next,
		Filter: map[string]string{"type": in.Type, "stream": in.Stream, "profile": in.Profile, "target": in.Target, "actor": in.Actor, "order": in.Order, "from": v.value("from"), "to": v.value("to")},
	}
	if p.Types, err = audit.Names(ctx, c.DB, "type"); err != nil {
		return err
	}
	if p.Head, err = schema.Head(ctx, c.DB); err != nil {
		return err
	}
	switch checkpoint, err := schema.LastCheckpoint(ctx, c.DB); {
	case err == nil:
		p.Checkpoint = &checkpoint
	case !errors.Is(err, schema.ErrNotFound):
		return err
	}
	return c.page(v, "ledger", "Ledger", p)
}

type eventPage struct {
	api.Event
	Summary   string
	MayProve  bool
	MayReveal bool
}

func (c *console) showEvent(v *visit) error {
	in := api.GetEvent.In()
	var err error
	if in.Position, err = positionOf(v); err != nil {
		return v.back("/ledger", "")
	}
	out, err := api.GetEvent.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return c.eventPage(v, out.Body)
}

// positionOf is the position in the address.
func positionOf(v *visit) (int64, error) {
	position, err := strconv.ParseInt(v.r.PathValue("position"), 10, 64)
	if err == nil && position < 1 {
		err = strconv.ErrRange
	}
	return position, err
}

func (c *console) eventPage(v *visit, e api.Event) error {
	p := eventPage{Event: e, MayProve: v.may(api.GetProof.ID), MayReveal: v.may(api.RevealEvent.ID)}
	if d, err := domain.Declared(p.Type); err == nil {
		p.Summary = d.Summary
	}
	return c.page(v, "event", "Event "+decimal(p.Position), p)
}

func (c *console) proof(v *visit) error {
	in := api.GetProof.In()
	in.Position, _ = strconv.ParseInt(v.r.PathValue("position"), 10, 64)
	out, err := api.GetProof.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return v.download("event-"+decimal(in.Position)+".tlog-proof", "text/plain; charset=utf-8", out.Body)
}

type verificationPage struct {
	api.Verification
	Head       int64
	Checkpoint *schema.Checkpoint
	MayStart   bool
}

func (c *console) showVerification(v *visit) error {
	out, err := api.GetVerification.Call(v.r.Context(), c.Service, v.who, api.GetVerification.In())
	if err != nil {
		return err
	}
	p := verificationPage{Verification: out.Body, MayStart: v.may(api.StartVerification.ID)}
	if p.Head, err = schema.Head(v.r.Context(), c.DB); err != nil {
		return err
	}
	if checkpoint, err := schema.LastCheckpoint(v.r.Context(), c.DB); err == nil {
		p.Checkpoint = &checkpoint
	}
	return c.page(v, "verification", "Verification", p)
}

func (c *console) startVerification(v *visit) error {
	if _, err := api.StartVerification.Call(v.r.Context(), c.Service, v.who, api.StartVerification.In()); err != nil {
		return err
	}
	return v.back("/verification", "verify")
}
