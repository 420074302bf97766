package console

import (
	"net/http"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
)

// fill gives an optional body to an operation's parameters.
func fill[T any](body **T) *T {
	*body = new(T)
	return *body
}

// revealDelivery shows what was sent and answered, in the answer itself: who looked, and why, is recorded each time.
func (c *console) revealDelivery(v *visit) error {
	in := api.RevealDelivery.In()
	in.ID, in.Body.Reason = v.r.PathValue("id"), v.value("reason")
	if in.Body.Reason == "" {
		return needsReason()
	}
	out, err := api.RevealDelivery.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return c.page(v, "delivery", "Delivery "+in.ID[:8], c.deliveryPage(v, out.Body))
}

func (c *console) revealEvent(v *visit) error {
	position, err := positionOf(v)
	if err != nil {
		return v.back("/ledger", "")
	}
	in := api.RevealEvent.In()
	in.Position, in.Body.Reason = position, v.value("reason")
	if in.Body.Reason == "" {
		return needsReason()
	}
	out, err := api.RevealEvent.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return c.eventPage(v, out.Body)
}

func needsReason() error {
	return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "A reason is needed", Detail: "It is recorded with the act, for ever.", NextStep: "Say why, in words, without naming the person."}
}

func (c *console) pauseTarget(v *visit) error {
	in := api.PauseTarget.In()
	in.Handle = v.r.PathValue("handle")
	fill(&in.Body).Reason = v.value("reason")
	if _, err := api.PauseTarget.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/targets/"+in.Handle, "paused")
}

func (c *console) resumeTarget(v *visit) error {
	in := api.ResumeTarget.In()
	in.Handle = v.r.PathValue("handle")
	fill(&in.Body).Reason = v.value("reason")
	if _, err := api.ResumeTarget.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/targets/"+in.Handle, "resumed")
}
