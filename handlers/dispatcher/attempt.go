package dispatcher

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/tracing"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
)

// attempt makes out the request of a planned delivery and has it sent, as one span of the firing's trace. The receiver is
// told of the trace, unless the target's author has it told something else.
func (d *Dispatcher) attempt(ctx context.Context, j job, planned domain.DeliveryPlanned, t targets.Target) (outbound.Outcome, error) {
	r, err := outbound.MakeOut(ctx, d.Vault, planned, t.Target, j.Attempt)
	if err != nil {
		return outbound.Outcome{
			Attempt: domain.DeliveryAttempted{StartedAt: d.Now().UTC().Truncate(time.Microsecond)},
			Verdict: platforms.Verdict{Kind: domain.RetryLater, Reason: "not sent: " + err.Error()},
		}, nil
	}
	r.Known, r.Concurrency = j.work.Known, j.target.Limits.Concurrency
	r.People, r.Addresses = j.consents.DependsOn(planned.ProfileID)
	id := tracing.SpanID(planned.DeliveryID, fmt.Sprintf("attempt-%d", j.Attempt))
	ctx, span := d.Tracer.Begin(ctx, tracing.Span{Name: "attempt", Firing: planned.FiringID, ID: id, Kind: trace.SpanKindClient})
	defer span.End()
	if !named(r.Headers, traceparent) {
		headers := make(map[string]string, len(r.Headers)+1)
		maps.Copy(headers, r.Headers)
		headers[traceparent] = tracing.Traceparent(planned.FiringID, id, span)
		r.Headers = headers
	}
	outcome, err := d.Sender.Send(ctx, r)
	if span.IsRecording() {
		describe(span, j, planned, t, outcome, err)
	}
	return outcome, err
}

const traceparent = "Traceparent"

// named reports whether the headers hold one of that name, however it is written.
func named(headers map[string]string, name string) bool {
	for h := range headers {
		if strings.EqualFold(h, name) {
			return true
		}
	}
	return false
}

// describe tells a span what it was about. Nothing of it is personal data or a secret.
func describe(span trace.Span, j job, planned domain.DeliveryPlanned, t targets.Target, o outbound.Outcome, err error) {
	span.SetAttributes(
		attribute.String("http.request.method", t.Method), attribute.Int("http.response.status_code", o.Attempt.Status),
		attribute.String("dispatch.delivery", planned.DeliveryID.String()), attribute.String("dispatch.target", planned.Target),
		attribute.Int64("dispatch.target_version", planned.TargetVersion), attribute.String("dispatch.platform", t.Platform),
		attribute.Int("dispatch.attempt", j.Attempt), attribute.String("dispatch.verdict", string(o.Verdict.Kind)), attribute.String("network.peer.address", o.Attempt.Address),
	)
	switch {
	case err != nil:
		span.SetStatus(codes.Error, err.Error())
	case !o.Verdict.Kind.Settles():
		span.SetStatus(codes.Error, string(o.Verdict.Kind))
	}
}
