// Package inspector is a place to send test requests to, and to look at what arrived: every request with its headers and
// body, as it comes.
//
//	any method but GET   /inspector/{bin}[/…]   ─▶ kept, answered with the bin's status
//	GET                  /inspector/{bin}        ─▶ the page, which holds nothing by itself
//	GET                  /inspector/-/live/{bin} ─▶ what arrived and arrives, to who has the bin's key
//
// Whoever knows a bin may send to it, and its id stands in targets for all to read; only its key shows what arrived. The
// page takes the key from the part of its URL that browsers keep to themselves.
package inspector

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

//go:embed static
var static embed.FS

// Pace of a bin, and of the look for what reached it through another process.
const (
	perSecond   = 50
	burst       = 200
	lookEvery   = 500 * time.Millisecond
	stayingLive = 15 * time.Second // between signs of life
	liveMost    = time.Hour
)

// csp lets the page load what this package serves, and nothing else.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the paths below /inspector/.
type Handler struct {
	Inspector *schema.Inspector
	Log       *slog.Logger

	mux   *http.ServeMux
	paces *lru.Cache[string, *rate.Limiter] // by bin
}

// New makes the handler.
func New(i *schema.Inspector, log *slog.Logger) *Handler {
	paces, _ := lru.New[string, *rate.Limiter](schema.BinsMax) // fails on a size below 1
	h := &Handler{Inspector: i, Log: log, mux: http.NewServeMux(), paces: paces}
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the path is a constant
	}
	h.mux.HandleFunc("GET /inspector/{bin}", h.page)
	h.mux.HandleFunc("GET /inspector/-/live/{bin}", h.live)
	h.mux.Handle("GET /inspector/-/static/", http.StripPrefix("/inspector/-/static/", asset(http.FileServerFS(files))))
	h.mux.HandleFunc("/inspector/{bin}", h.capture)
	h.mux.HandleFunc("/inspector/{bin}/{rest...}", h.capture)
	return h
}

// ServeHTTP is that of http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func asset(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		next.ServeHTTP(w, r)
	})
}

func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, schema.ErrNotFound) {
		http.Error(w, "There is no such inspector bin, or it has expired.", http.StatusNotFound)
		return
	}
	if errors.Is(err, schema.ErrErased) {
		http.Error(w, "The person whom this is about was erased; it was not kept.", http.StatusGone)
		return
	}
	h.Log.WarnContext(r.Context(), "inspector failed", slog.Any("error", err))
	w.Header().Set("Retry-After", "2")
	http.Error(w, "The inspector is not available at the moment.", http.StatusServiceUnavailable)
}

// page is the same for every bin that there is: it shows nothing that its script does not fetch.
func (h *Handler) page(w http.ResponseWriter, r *http.Request) {
	if _, err := h.Inspector.Bin(r.Context(), r.PathValue("bin")); err != nil {
		h.fail(w, r, err)
		return
	}
	content, err := static.ReadFile("static/page.html")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", csp)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(content) // a reader who is gone does not miss it
}

// capture keeps a request.
func (h *Handler) capture(w http.ResponseWriter, r *http.Request) {
	bin := r.PathValue("bin")
	pace, ok := h.paces.Get(bin)
	if !ok {
		if _, err := h.Inspector.Bin(r.Context(), bin); err != nil { // what is not there takes no room
			h.fail(w, r, err)
			return
		}
		pace = rate.NewLimiter(perSecond, burst)
		h.paces.Add(bin, pace)
	}
	if !pace.Allow() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "More requests than an inspector bin takes.", http.StatusTooManyRequests)
		return
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	subject, err := h.whose(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.keep(w, r, bin, subject, scheme+"://"+r.Host+r.URL.RequestURI(), r.RemoteAddr)
}

// whose finds the person whom a request of the ledger's own is about, by the ids that it carries: of the delivery, or of the
// firing's trace. What it brings is then erased with them. Anybody else's request is about nobody that is known.
func (h *Handler) whose(r *http.Request) (uuid.UUID, error) {
	ids := []string{r.Header.Get("Webhook-Id"), r.Header.Get("Idempotency-Key")}
	if parts := strings.Split(r.Header.Get("Traceparent"), "-"); len(parts) == 4 {
		ids = append(ids, parts[1])
	}
	for _, text := range ids {
		id, err := uuid.Parse(text)
		if err != nil {
			continue
		}
		if subject, err := h.Inspector.Whose(r.Context(), id); err != nil || subject != uuid.Nil {
			return subject, err
		}
	}
	return uuid.Nil, nil
}

// Rehearsal gives a handler that keeps a test's request in a bin, with the URL that it would have been for, under the key of the
// person whom it is about. kept is told its number.
func (h *Handler) Rehearsal(bin string, subject uuid.UUID, url, from string, kept func(number int64)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if number := h.keep(w, r, bin, subject, url, from); number > 0 {
			kept(number)
		}
	})
}

func (h *Handler) keep(w http.ResponseWriter, r *http.Request, bin string, subject uuid.UUID, url, from string) int64 {
	body, err := io.ReadAll(io.LimitReader(r.Body, schema.BinBodyMax+1))
	if err != nil {
		http.Error(w, "The body does not arrive.", http.StatusBadRequest)
		return 0
	}
	in := schema.Inspected{Method: r.Method, URL: url, Protocol: r.Proto, From: from, Headers: r.Header, Body: body, BodyBytes: int64(len(body))}
	if len(body) > schema.BinBodyMax {
		rest, _ := io.Copy(io.Discard, io.LimitReader(r.Body, 16<<20)) // so that the sender hears the answer
		in.Body, in.Truncated, in.BodyBytes = body[:schema.BinBodyMax], true, in.BodyBytes+rest
	}
	number, status, err := h.Inspector.Capture(r.Context(), bin, subject, in)
	if err != nil {
		h.fail(w, r, err)
		return 0
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status != http.StatusNoContent && status != http.StatusNotModified {
		fmt.Fprintf(w, `{"bin":%q,"number":%d}`+"\n", bin, number) //nolint:gosec // quoted, and served as JSON
	}
	return number
}

// live sends what has reached a bin and what reaches it, as server-sent events whose ids are the requests' numbers.
func (h *Handler) live(w http.ResponseWriter, r *http.Request) {
	bin := r.PathValue("bin")
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !h.Inspector.Opens(bin, key) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="inspector"`)
		http.Error(w, "The key is not this bin's.", http.StatusUnauthorized)
		return
	}
	if _, err := h.Inspector.Bin(r.Context(), bin); err != nil {
		h.fail(w, r, err)
		return
	}
	after, _ := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64) // 0 when there is none
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	end := time.NewTimer(liveMost)
	defer end.Stop()
	look, alive := time.NewTicker(lookEvery), time.NewTicker(stayingLive)
	defer look.Stop()
	defer alive.Stop()
	say := func(text string) bool {
		_, err := io.WriteString(w, text)
		return errors.Join(err, out.Flush()) == nil && out.SetWriteDeadline(time.Time{}) == nil
	}
	if !say("retry: 2000\n\n") {
		return
	}
	for {
		arrived := h.Inspector.Arrived(bin)
		found, err := h.Inspector.Requests(r.Context(), bin, after, 50)
		if err != nil {
			return // the page comes back with the id of the last one
		}
		for _, one := range found {
			data, err := json.Marshal(one)
			if err != nil || !say(fmt.Sprintf("id: %d\nevent: request\ndata: %s\n\n", one.Number, data)) {
				return
			}
			after = one.Number
		}
		if len(found) > 0 {
			continue
		}
		select {
		case <-arrived:
		case <-look.C:
		case <-alive.C:
			if _, err := h.Inspector.Bin(r.Context(), bin); err != nil || !say(": still here\n\n") {
				return
			}
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		}
	}
}
