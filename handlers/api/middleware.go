package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/tracing"
)

// handler is the API with all that happens to every request.
func (a *api) handler() http.Handler {
	return a.identify(tracing.Incoming(http.HandlerFunc(a.observe)))
}

// metrics of the API. Labels are routes, not paths, and classes of status, so that their number is bounded.
type metrics struct {
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	refused  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	m := metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ledger_http_request_seconds", Help: "Time to answer a request, by route and class of status.",
			Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
		}, []string{"route", "code"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ledger_http_requests_in_flight", Help: "Requests being answered."}),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Name: "ledger_http_authentications_failed_total", Help: "Requests refused for want of a valid token."}),
	}
	return m, errors.Join(reg.Register(m.seconds), reg.Register(m.inFlight), reg.Register(m.refused))
}

type requestKey struct{}

// requestID is the id that a request is logged and answered under.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}

var requestIDShape = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// headers that every answer carries: it is data, never a page to be framed, sniffed or kept.
var headers = map[string]string{
	"X-Content-Type-Options":       "nosniff",
	"Cache-Control":                "no-store",
	"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
}

// identify gives a request its id, a caller's own where it looks like one, and its answer the headers of the API.
func (a *api) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !requestIDShape.MatchString(id) {
			id = uuid.NewString()
		}
		w.Header().Set("X-Request-Id", id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestKey{}, id)))
	})
}

// observe routes a request, and counts, times and logs it. A panic becomes an answer and a log line.
func (a *api) observe(w http.ResponseWriter, r *http.Request) {
	start := a.Clock()
	rec := &recorder{ResponseWriter: w}
	a.metrics.inFlight.Inc()
	route := "none"
	defer func() {
		if p := recover(); p != nil {
			a.recovered(rec, r, p)
		}
		a.metrics.inFlight.Dec()
		took := a.Clock().Sub(start)
		a.metrics.seconds.WithLabelValues(route, strconv.Itoa(rec.code()/100)+"xx").Observe(took.Seconds())
		level := slog.LevelDebug
		if rec.code() >= http.StatusBadRequest {
			level = slog.LevelInfo
		}
		// The route, not the path: paths and queries name people.
		a.Log.Log(r.Context(), level, "request", slog.String("request", requestID(r.Context())), slog.String("route", route),
			slog.String("method", methodLabel(r.Method)), slog.Int("status", rec.code()), slog.Int64("bytes", rec.bytes), slog.Duration("took", took))
	}()
	_, pattern := a.mux.Handler(r)
	if pattern == "" {
		if a.Fallback != nil && !ours(r.URL.Path) {
			route = "fallback"
			a.Fallback.ServeHTTP(rec, r)
			return
		}
		setHeaders(rec)
		a.unrouted(rec, r)
		return
	}
	route = pattern
	setHeaders(rec)
	ctx := r.Context()
	if pattern != streamRoute {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTimeout)
		defer cancel()
	}
	a.mux.ServeHTTP(rec, r.WithContext(ctx))
}

// requestTimeout is how long an answer may take to find; then the caller is told to try again.
const requestTimeout = time.Minute

func setHeaders(w http.ResponseWriter) {
	for name, value := range headers {
		w.Header().Set(name, value)
	}
}

// ours reports whether a path is the API's even when no route has it.
func ours(path string) bool { return strings.HasPrefix(path, "/v1/") || path == "/v1" }

var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// methodLabel keeps made-up methods out of the log.
func methodLabel(method string) string {
	if slices.Contains(methods, method) || method == http.MethodOptions {
		return method
	}
	return "other"
}

// unrouted answers a request that no route takes: another method may, or nothing is there.
func (a *api) unrouted(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range methods {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := a.mux.Handler(probe); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		a.refuse(w, r.Context(), errNoRoute)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	a.refuse(w, r.Context(), errNoMethod)
}

// recovered answers for a handler that panicked, if it had not begun to answer itself.
func (a *api) recovered(w *recorder, r *http.Request, p any) {
	if p == http.ErrAbortHandler { //nolint:errorlint // net/http panics with this very value
		panic(p)
	}
	a.Log.ErrorContext(r.Context(), "request panicked", slog.String("request", requestID(r.Context())),
		slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
	if w.status != 0 {
		panic(http.ErrAbortHandler) // half an answer is out; breaking the connection says so
	}
	p500 := internal.problem(errInternal)
	p500.RequestID = requestID(r.Context())
	writeProblem(w, p500)
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int // 0 until the answer begins
	bytes  int64
}

func (w *recorder) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// WriteHeader notes the status.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write notes how much.
func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
