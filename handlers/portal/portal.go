package portal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Config is what the portal works on. Intake, Vault, Links, DB and Clock are required.
type Config struct {
	Intake *intake.Service // records what people decide
	Vault  *schema.Vault   // knows who was erased
	Links  *schema.Links   // reads tokens
	DB     *sql.DB         // reads; the projections' schemas are on its search path
	Clock  func() time.Time

	Theme          Theme          // the zero Theme is the plain one
	TrustedProxies []netip.Prefix // whose X-Forwarded-For says who asks
	Log            *slog.Logger   // nil is discarded
	Registry       prometheus.Registerer
}

// Actor is who records what people decide here, in events.
const Actor = "portal"

type portal struct {
	Config
	mux       *http.ServeMux
	locales   *locales
	pages     *template.Template
	style     []byte
	styleName string // with a hash of its content, so that it may be kept for long
	callers   *limiter
	people    *limiter
	saved     *prometheus.CounterVec
}

//go:embed pages/page.html
var pageFile string

//go:embed pages/style.css
var styleFile string

// New gives the handler of everything below /preferences/ and /unsubscribe/. It fails on a mistake in the theme or in
// the texts.
func New(c Config) (http.Handler, error) {
	p, err := newPortal(c)
	if err != nil {
		return nil, fmt.Errorf("portal: %w", err)
	}
	return p, nil
}

func newPortal(c Config) (*portal, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &portal{Config: c, mux: http.NewServeMux(), saved: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ledger_portal_decisions_total", Help: "Decisions that people made on their own pages, by how.",
	}, []string{"method"})}
	var err error
	if c.Registry != nil {
		if err := c.Registry.Register(p.saved); err != nil {
			return nil, err
		}
	}
	if p.Theme, err = c.Theme.complete(); err != nil {
		return nil, err
	}
	if p.locales, err = readLocales(p.Theme.Locales, p.Theme.Language); err != nil {
		return nil, err
	}
	if p.pages, err = template.New("page").Parse(pageFile); err != nil {
		return nil, err
	}
	p.style = append([]byte(p.Theme.css()), styleFile...)
	sum := sha256.Sum256(p.style)
	p.styleName = "style-" + hex.EncodeToString(sum[:6]) + ".css"
	if p.callers, err = newLimiter(callerEvery, callerBurst, c.Clock); err != nil {
		return nil, err
	}
	if p.people, err = newLimiter(personEvery, personBurst, c.Clock); err != nil {
		return nil, err
	}
	p.mux.HandleFunc("GET /preferences/-/{file}", p.asset)
	p.mux.HandleFunc("GET /preferences/{token}", p.showPreferences)
	p.mux.HandleFunc("POST /preferences/{token}", p.savePreferences)
	p.mux.HandleFunc("GET /unsubscribe/{token}", p.showUnsubscribe)
	p.mux.HandleFunc("POST /unsubscribe/{token}", p.unsubscribe)
	return p, nil
}

// headers of every answer: nothing is loaded from elsewhere, nothing is kept, nobody frames it or learns the address.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	"Referrer-Policy":         "no-referrer",
	"X-Content-Type-Options":  "nosniff",
	"X-Robots-Tag":            "noindex, nofollow",
	"Cache-Control":           "no-store",
	"Permissions-Policy":      "camera=(), geolocation=(), microphone=(), payment=()",
	"Vary":                    "Accept-Language",
}

// bodyMax bounds what is posted, in bytes.
const bodyMax = 16 << 10

// ServeHTTP answers for all paths that the portal was given.
func (p *portal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range headers {
		w.Header().Set(name, value)
	}
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http panics with this very value
				panic(v)
			}
			p.Log.ErrorContext(r.Context(), "the portal panicked", slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
			p.message(w, r, http.StatusInternalServerError, "unavailable")
		}
	}()
	if wait := p.callers.wait(p.caller(r).String()); wait > 0 {
		p.busy(w, r, wait)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, bodyMax)
	if _, pattern := p.mux.Handler(r); pattern == "" {
		p.message(w, r, http.StatusNotFound, "invalid")
		return
	}
	p.mux.ServeHTTP(w, r)
}

func (p *portal) busy(w http.ResponseWriter, r *http.Request, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	p.message(w, r, http.StatusTooManyRequests, "busy")
}

// asset serves the style sheet and the logo.
func (p *portal) asset(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Del("Vary")
	switch r.PathValue("file") {
	case p.styleName:
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(p.style)
	case p.Theme.logoName:
		w.Header().Set("Content-Type", p.Theme.logoType)
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox") // an SVG is a document
		_, _ = w.Write(p.Theme.logo)
	default:
		w.Header().Set("Cache-Control", "no-store")
		p.message(w, r, http.StatusNotFound, "invalid")
	}
}

// open reads the token of a request for a kind of page. Where it does not open, it has answered.
func (p *portal) open(w http.ResponseWriter, r *http.Request, kind domain.LinkKind) (domain.Link, bool) {
	link, err := p.Links.Open(r.PathValue("token"), p.Clock())
	if err == nil && link.Kind != kind {
		err = schema.ErrLink
	}
	switch {
	case errors.Is(err, schema.ErrLinkExpired):
		p.message(w, r, http.StatusGone, "expired")
		return link, false
	case err != nil:
		p.message(w, r, http.StatusNotFound, "invalid")
		return link, false
	}
	_, erased, err := p.Vault.Erasure(r.Context(), link.ProfileID)
	if err != nil {
		p.failed(w, r, err)
		return link, false
	}
	if erased {
		p.message(w, r, http.StatusGone, "erased")
		return link, false
	}
	return link, true
}

// failed answers when the ledger cannot be read or written: nothing was changed, and the person may try again.
func (p *portal) failed(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(r.Context().Err(), context.Canceled) {
		p.Log.ErrorContext(r.Context(), "the portal cannot reach the ledger", slog.Any("error", err))
	}
	w.Header().Set("Retry-After", "5")
	p.message(w, r, http.StatusServiceUnavailable, "unavailable")
}

// message shows a page that says one thing.
func (p *portal) message(w http.ResponseWriter, r *http.Request, status int, what string) {
	view := p.view(r)
	view.Message = &Message{Title: view.Text(what + "_title"), Text: view.Text(what + "_text")}
	view.Title = view.Message.Title
	p.show(w, r, status, view)
}

// show renders a page whole before it answers.
func (p *portal) show(w http.ResponseWriter, r *http.Request, status int, view View) {
	var page bytes.Buffer
	if err := p.pages.Execute(&page, view); err != nil {
		p.Log.ErrorContext(r.Context(), "the portal cannot render a page", slog.Any("error", err))
		http.Error(w, "Please try again later.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", view.Language)
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(page.Bytes())
	}
}
