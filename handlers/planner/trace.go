package planner

import (
	"context"

	"go.opentelemetry.io/otel/attribute"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/tracing"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// traced has a firing answered as one span of its trace.
func (p *Planner) traced(ctx context.Context, o schema.Opened, answer func(context.Context) domain.Payload) domain.Payload {
	if !p.Tracer.On() {
		return answer(ctx)
	}
	ctx, span := p.Tracer.Begin(ctx, tracing.Span{Name: "plan", Firing: o.ID, ID: tracing.SpanID(o.ID, "plan")})
	defer span.End()
	got := answer(ctx)
	span.SetAttributes(attribute.String("dispatch.target", o.Target), attribute.String("dispatch.answer", domain.TypeOf(got)), attribute.Int64("dispatch.firing_position", o.Position))
	return got
}
