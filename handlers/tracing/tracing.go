package tracing

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Tracer makes the spans. A nil one makes none, and still says what a receiver is told.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// Config says where spans go.
type Config struct {
	Endpoint string  // URL of a collector that takes OTLP over HTTP, such as http://localhost:4318
	Ratio    float64 // of the firings that are traced, 0 to 1
	Version  string  // of the program
	Worker   string  // names this process
}

// Open exports spans to a collector. Close the tracer, so that the last ones get there.
func Open(ctx context.Context, c Config) (*Tracer, error) {
	if !(c.Ratio >= 0 && c.Ratio <= 1) {
		return nil, fmt.Errorf("the ratio of firings to trace is %g; it is 0 to 1", c.Ratio)
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the collector's address is %q; it looks like http://localhost:4318", c.Endpoint)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()))
	if err != nil {
		return nil, fmt.Errorf("export spans to %s: %w", c.Endpoint, err)
	}
	return newTracer(sdktrace.WithBatcher(exporter), c), nil
}

func newTracer(export sdktrace.TracerProviderOption, c Config) *Tracer {
	about := resource.NewSchemaless(
		attribute.String("service.name", "dispatch-ledger"), attribute.String("service.version", c.Version), attribute.String("service.instance.id", c.Worker))
	p := sdktrace.NewTracerProvider(export, sdktrace.WithResource(about), sdktrace.WithIDGenerator(ids{}), sdktrace.WithSampler(byTrace{c.Ratio}))
	return &Tracer{provider: p, tracer: p.Tracer("github.com/dispatch-ledger/dispatch-ledger")}
}

// Close sends what has ended and stops.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// On reports whether spans are made at all, for callers who would otherwise gather attributes for nothing.
func (t *Tracer) On() bool { return t != nil }

// Span is one step of a firing.
type Span struct {
	Name   string
	Firing uuid.UUID
	ID     trace.SpanID // see SpanID; zero takes a random one
	Parent trace.SpanID // zero: the firing's own, see Fired
	Kind   trace.SpanKind
	Start  time.Time // zero: now
}

// SpanID derives the id of a span from what it is about.
func SpanID(of uuid.UUID, what string) (id trace.SpanID) {
	sum := sha256.Sum256(append(of[:], what...))
	copy(id[:], sum[:])
	return id
}

// Fired is the id of a firing's first span.
func Fired(firing uuid.UUID) trace.SpanID { return SpanID(firing, "fired") }

// Begin makes a span. End it. The context is what its own children are made under.
func (t *Tracer) Begin(ctx context.Context, s Span, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	if t == nil {
		return ctx, trace.SpanFromContext(context.Background())
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(s.Kind), trace.WithAttributes(attributes...)}
	if !s.Start.IsZero() {
		options = append(options, trace.WithTimestamp(s.Start))
	}
	if from := trace.SpanContextFromContext(ctx); from.IsValid() && from.TraceID() != trace.TraceID(s.Firing) {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: from})) // the producer's own trace
	}
	parent := trace.SpanContext{}
	if first := Fired(s.Firing); s.ID != first {
		if !s.Parent.IsValid() {
			s.Parent = first
		}
		parent = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID(s.Firing), SpanID: s.Parent, Remote: true})
	}
	ctx = trace.ContextWithSpanContext(ctx, parent)
	return t.tracer.Start(context.WithValue(ctx, wanted{}, s), s.Name, options...)
}

// Traceparent is the header that tells a receiver which trace its request belongs to (W3C Trace Context).
func Traceparent(firing uuid.UUID, id trace.SpanID, span trace.Span) string {
	return fmt.Sprintf("00-%s-%s-%s", trace.TraceID(firing), id, span.SpanContext().TraceFlags())
}

// Incoming puts the trace that a caller names in its headers into the request's context. What is recorded of its events is
// linked to it.
func Incoming(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Traceparent") != "" {
			r = r.WithContext(propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header)))
		}
		next.ServeHTTP(w, r)
	})
}

// wanted is the key of the Span whose ids the next one takes.
type wanted struct{}

// ids gives a span the ids that were derived for it.
type ids struct{}

// NewIDs is for a span without a parent.
func (g ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if s, ok := ctx.Value(wanted{}).(Span); ok {
		return trace.TraceID(s.Firing), g.NewSpanID(ctx, trace.TraceID(s.Firing))
	}
	var id trace.TraceID
	rand.Read(id[:])
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID is for a span with one.
func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) (id trace.SpanID) {
	if s, ok := ctx.Value(wanted{}).(Span); ok && s.ID.IsValid() {
		return s.ID
	}
	rand.Read(id[:])
	return id
}

// byTrace samples a part of the traces, each of them wholly, in whichever process: it goes by the trace's id alone. The id
// is a UUID, whose bits are not all random, so it is hashed first.
type byTrace struct{ ratio float64 }

// ShouldSample decides by the trace's id.
func (b byTrace) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	sum := sha256.Sum256(p.TraceID[:])
	if float64(binary.BigEndian.Uint64(sum[:8])>>11) < b.ratio*math.Exp2(53) {
		return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
	}
	return sdktrace.SamplingResult{Decision: sdktrace.Drop}
}

// Description names the sampler in diagnostics.
func (b byTrace) Description() string { return fmt.Sprintf("ByTrace{%g}", b.ratio) }
