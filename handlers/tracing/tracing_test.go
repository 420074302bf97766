package tracing

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestOneTraceOverManyProcesses: what one process begins and another goes on with is one trace, under the firing's id.
func TestOneTraceOverManyProcesses(t *testing.T) {
	t.Parallel()
	firing, delivery := uuid.New(), uuid.New()
	made := tracetest.NewInMemoryExporter()
	process := func() *Tracer { return newTracer(sdktrace.WithSyncer(made), Config{Ratio: 1}) }
	producers := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID(uuid.New()), SpanID: trace.SpanID{1}, Remote: true})

	_, first := process().Begin(trace.ContextWithSpanContext(t.Context(), producers), Span{Name: "reaction.fired", Firing: firing, ID: Fired(firing)})
	first.End()
	id := SpanID(delivery, "attempt-1")
	_, attempt := process().Begin(t.Context(), Span{Name: "attempt", Firing: firing, ID: id, Kind: trace.SpanKindClient})
	attempt.End()

	spans := made.GetSpans()
	if len(spans) != 2 {
		t.Fatalf("%d spans, want 2", len(spans))
	}
	for _, s := range spans {
		if got := s.SpanContext.TraceID(); got != trace.TraceID(firing) {
			t.Errorf("%s is part of trace %s, want the firing's id", s.Name, got)
		}
	}
	if spans[1].Parent.SpanID() != spans[0].SpanContext.SpanID() || spans[0].Parent.IsValid() {
		t.Errorf("the attempt's parent is %s, want the firing's span %s, which has none", spans[1].Parent.SpanID(), spans[0].SpanContext.SpanID())
	}
	if len(spans[0].Links) != 1 || !spans[0].Links[0].SpanContext.Equal(producers) {
		t.Errorf("links = %v, want the producer's own span", spans[0].Links)
	}
	want := "00-" + strings.ReplaceAll(firing.String(), "-", "") + "-" + spans[1].SpanContext.SpanID().String() + "-01"
	if got := Traceparent(firing, id, attempt); got != want {
		t.Errorf("traceparent = %s, want %s", got, want)
	}
}

// TestWithoutACollector there are no spans, and receivers are told the same ids.
func TestWithoutACollector(t *testing.T) {
	t.Parallel()
	var off *Tracer
	firing := uuid.New()
	ctx, span := off.Begin(t.Context(), Span{Name: "attempt", Firing: firing, ID: SpanID(firing, "x")})
	span.End()
	if span.IsRecording() || ctx != t.Context() || off.On() || off.Close(t.Context()) != nil {
		t.Error("a tracer that is off does something")
	}
	if got := Traceparent(firing, SpanID(firing, "x"), span); !strings.HasSuffix(got, "-00") || !strings.Contains(got, strings.ReplaceAll(firing.String(), "-", "")) {
		t.Errorf("traceparent = %s, want the firing's id, not sampled", got)
	}
}

// TestSamplingGoesByTheFiring: a part of the firings is traced, each with all of its spans.
func TestSamplingGoesByTheFiring(t *testing.T) {
	t.Parallel()
	made := tracetest.NewInMemoryExporter()
	one, other := newTracer(sdktrace.WithSyncer(made), Config{Ratio: 0.25}), newTracer(sdktrace.WithSyncer(made), Config{Ratio: 0.25})
	sampled := 0
	for range 2000 {
		firing := uuid.Must(uuid.NewV7())
		_, a := one.Begin(t.Context(), Span{Name: "reaction.fired", Firing: firing, ID: Fired(firing)})
		_, b := other.Begin(t.Context(), Span{Name: "plan", Firing: firing})
		if a.SpanContext().IsSampled() != b.SpanContext().IsSampled() {
			t.Fatal("half a trace is sampled")
		}
		if a.SpanContext().IsSampled() {
			sampled++
		}
	}
	if sampled < 380 || sampled > 620 {
		t.Errorf("%d of 2000 firings are traced, want about a quarter", sampled)
	}
}

func TestSpansArriveAtACollector(t *testing.T) {
	t.Parallel()
	got := make(chan *collector.ExportTraceServiceRequest, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		got <- &request
		w.WriteHeader(http.StatusOK)
	}))
	defer s.Close()
	tracer, err := Open(t.Context(), Config{Endpoint: s.URL, Ratio: 1, Version: "1.2.3", Worker: "host/1"})
	if err != nil {
		t.Fatal(err)
	}
	firing := uuid.New()
	_, span := tracer.Begin(t.Context(), Span{Name: "reaction.fired", Firing: firing, ID: Fired(firing)})
	span.End()
	if err := tracer.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	spans := (<-got).GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()
	if len(spans) != 1 || spans[0].GetName() != "reaction.fired" || uuid.UUID(spans[0].GetTraceId()) != firing {
		t.Errorf("spans = %v", spans)
	}
	if _, err := Open(t.Context(), Config{Endpoint: s.URL, Ratio: 2}); err == nil {
		t.Error("twice all firings are traced")
	}
	if _, err := Open(t.Context(), Config{Endpoint: "localhost:4318", Ratio: 1}); err == nil {
		t.Error("an address without a scheme is taken")
	}
}
