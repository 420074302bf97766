package console

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Config is what the console works on.
type Config struct {
	Service  *api.Service     // the operations
	DB       *sql.DB          // reads for overviews; the projections' schemas are on its search path
	Ledger   *schema.Ledger   // records who signs in and out
	Sessions *schema.Sessions // who is signed in
	Tokens   *schema.Tokens   // signing in by token
	OIDC     *OIDC            // signing in by OpenID Connect; nil offers tokens only
	Log      *slog.Logger     // nil is discarded
	Clock    func() time.Time // nil is the system's
	Version  string
}

// console is the state behind the handler.
type console struct {
	Config
	pages  pages
	assets assets
	mux    *http.ServeMux
}

// New gives the handler of the console, which answers for every path that is left to it.
func New(c Config) (http.Handler, error) {
	con, err := newConsole(c)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return con.handler(), nil
}

func newConsole(c Config) (*console, error) {
	if c.Service == nil || c.DB == nil || c.Ledger == nil || c.Sessions == nil || c.Tokens == nil {
		return nil, errors.New("the fields Service, DB, Ledger, Sessions and Tokens are required")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now //nolint:forbidigo // the one place where the console's clock is the system's
	}
	con := &console{Config: c, mux: http.NewServeMux()}
	var err error
	if con.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	if con.pages, err = con.loadPages(); err != nil {
		return nil, err
	}
	for pattern, r := range routes {
		con.mux.Handle(pattern, con.signedIn(r))
	}
	con.mux.HandleFunc("GET /login", con.showLogin)
	con.mux.HandleFunc("POST /login", con.login)
	con.mux.HandleFunc("POST /logout", con.logout)
	con.mux.HandleFunc("GET /login/oidc", con.beginOIDC)
	con.mux.HandleFunc("GET /login/oidc/callback", con.endOIDC)
	con.mux.HandleFunc("GET /assets/{file}", con.assets.serve)
	con.mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, con.assets.url("icon.svg"), http.StatusFound)
	})
	return con, nil
}

// moves tells a page that the ledger has moved, for as long as its session holds. The page then asks for itself again.
func (c *console) moves(v *visit) error {
	return c.Service.Moves(v.w, v.r, func(context.Context) error {
		_, err := c.visit(v.w, v.r)
		return err
	})
}

// route is a page or an act: what it needs of the API, and what it does.
type route struct {
	// operation is the API's whose rule holds for the route; empty is for everybody who is signed in.
	operation string
	handle    func(*console, *visit) error
}

// routes are all that takes a session. The rule of each is the API's, in api.May.
var routes = map[string]route{
	"GET /{$}":  {"", (*console).overview},
	"GET /live": {"", (*console).moves},

	"GET /deliveries":                                   {api.ListDeliveries.ID, (*console).listDeliveries},
	"GET /deliveries/{id}":                              {api.GetDelivery.ID, (*console).showDelivery},
	"GET /deliveries/{id}/evidence":                     {api.GetEvidence.ID, (*console).evidence},
	"POST /deliveries/{id}/retry":                       {api.RetryDelivery.ID, (*console).retryDelivery},
	"POST /deliveries/{id}/cancel":                      {api.CancelDelivery.ID, (*console).cancelDelivery},
	"GET /deliveries/unknown":                           {api.AuditUnknown.ID, (*console).listUnknown},
	"POST /deliveries/{id}/reveal":                      {api.RevealDelivery.ID, (*console).revealDelivery},
	"POST /ledger/{position}/reveal":                    {api.RevealEvent.ID, (*console).revealEvent},
	"POST /people/{id}/erase":                           {api.EraseProfile.ID, (*console).erasePerson},
	"POST /targets/{handle}/pause":                      {api.PauseTarget.ID, (*console).pauseTarget},
	"POST /targets/{handle}/resume":                     {api.ResumeTarget.ID, (*console).resumeTarget},
	"GET /replays":                                      {api.ListReplays.ID, (*console).listReplays},
	"POST /replays":                                     {api.ReplayDeliveries.ID, (*console).askReplay},
	"GET /replays/{id}":                                 {api.GetReplay.ID, (*console).showReplay},
	"POST /replays/{id}/cancel":                         {api.CancelReplay.ID, (*console).cancelReplay},
	"GET /targets":                                      {api.ListTargets.ID, (*console).listTargets},
	"GET /targets/{handle}":                             {api.GetTarget.ID, (*console).showTarget},
	"GET /targets/{handle}/edit":                        {api.PutTarget.ID, (*console).editTarget},
	"POST /targets/{handle}/edit":                       {api.PutTarget.ID, (*console).saveTarget},
	"POST /targets/{handle}/preview":                    {api.PreviewTarget.ID, (*console).previewTarget},
	"POST /targets/{handle}/context":                    {api.OpenPastContext.ID, (*console).openContext},
	"POST /targets/{handle}/try":                        {api.TestTarget.ID, (*console).tryTarget},
	"POST /targets/{handle}/fire":                       {api.TestTarget.ID, (*console).fireTest},
	"POST /targets/{handle}/move":                       {api.MoveTarget.ID, (*console).moveTarget},
	"POST /targets/{handle}/rollback":                   {api.RollBackTarget.ID, (*console).rollBack},
	"GET /proposals":                                    {api.ListProposals.ID, (*console).listProposals},
	"POST /targets/{handle}/proposals/{number}/approve": {api.ApproveProposal.ID, (*console).approveProposal},
	"POST /targets/{handle}/proposals/{number}/decline": {api.DeclineProposal.ID, (*console).declineProposal},
	"POST /targets/{handle}/switch":                     {api.DisableTarget.ID, (*console).switchTarget},
	"POST /targets/{handle}/delete":                     {api.DeleteTarget.ID, (*console).deleteTarget},
	"GET /people":                                       {api.GetConsent.ID, (*console).findPerson},
	"GET /people/{id}":                                  {api.GetConsent.ID, (*console).showPerson},
	"GET /people/{id}/erase":                            {api.EraseProfile.ID, (*console).askErasure},
	"POST /people/{id}/access":                          {api.AccessPage.ID, (*console).accessPerson},
	"POST /people/{id}/consent":                         {api.PutConsent.ID, (*console).setConsent},
	"GET /consent-changes":                              {api.AuditConsentChanges.ID, (*console).listConsentChanges},
	"GET /reconciliation":                               {api.ListReconciliations.ID, (*console).showReconciliation},
	"POST /reconciliation":                              {api.StartReconciliation.ID, (*console).startReconciliation},
	"GET /reconciliation/{id}":                          {api.GetReconciliation.ID, (*console).showRun},
	"POST /reconciliation/{id}/approve":                 {api.ApproveRun.ID, (*console).approveRun},
	"POST /reconciliation/{id}/stop":                    {api.StopRun.ID, (*console).stopRun},
	"GET /findings":                                     {api.ListFindings.ID, (*console).listFindings},
	"POST /findings/{id}/resolve":                       {api.ResolveFinding.ID, (*console).resolveFinding},
	"POST /findings/resolve":                            {api.ResolveFindings.ID, (*console).resolveFindings},
	"GET /opt-outs":                                     {api.SumOptOuts.ID, (*console).listOptOuts},
	"GET /policies":                                     {api.GetConsentPolicy.ID, (*console).showPolicies},
	"POST /policies/consent":                            {api.PutConsentPolicy.ID, (*console).putConsentPolicy},
	"POST /policies/retention":                          {api.PutRetention.ID, (*console).putRetention},
	"GET /policies/platforms/{$}":                       {api.PutPlatform.ID, (*console).newPlatform},
	"GET /policies/platforms/{name}":                    {api.GetPlatform.ID, (*console).showPlatform},
	"POST /policies/platforms/{name}":                   {api.PutPlatform.ID, (*console).putPlatform},
	"GET /ledger":                                       {api.ListEvents.ID, (*console).listEvents},
	"GET /ledger/{position}":                            {api.GetEvent.ID, (*console).showEvent},
	"GET /ledger/{position}/proof":                      {api.GetProof.ID, (*console).proof},
	"GET /verification":                                 {api.GetVerification.ID, (*console).showVerification},
	"POST /verification":                                {api.StartVerification.ID, (*console).startVerification},
	"GET /projections":                                  {api.ListProjections.ID, (*console).listProjections},
	"POST /projections/{name}/rebuild":                  {api.RebuildProjection.ID, (*console).rebuild},
	"POST /projections/{name}/resume":                   {api.ResumeReader.ID, (*console).resumeReader},
	"POST /projections/{name}/skip":                     {api.SkipEvent.ID, (*console).skipEvent},
	"GET /settings":                                     {"", (*console).settings},
	"POST /settings/tokens":                             {api.CreateToken.ID, (*console).createToken},
	"POST /settings/tokens/{name}/revoke":               {api.RevokeToken.ID, (*console).revokeToken},
	"POST /settings/secrets":                            {api.PutSecret.ID, (*console).putSecret},
}

// policy is what a page may load and do: nothing but its own files, and no script or style inside it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// headers that every answer carries.
var headers = map[string]string{
	"Content-Security-Policy":      policy,
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "same-origin",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
	"Cache-Control":                "no-store",
}

// formMost bounds what a form may send, in bytes: a target with its templates.
const formMost = 1 << 20

// handler is the console with what happens to every request. What another site's page sends in a signed-in browser's name is
// refused, by the browser's own word on where it comes from; the cookie is SameSite besides.
func (c *console) handler() http.Handler {
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.fail(w, r, nil, &api.Problem{Status: http.StatusForbidden, Title: "The request came from another site", NextStep: "Open the console itself and do it there."})
	}))
	inner := guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := c.mux.Handler(r); pattern == "" {
			c.unrouted(w, r)
			return
		}
		c.mux.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		r.Body = http.MaxBytesReader(w, r.Body, formMost)
		inner.ServeHTTP(w, r)
	})
}

// unrouted answers for a path that is nothing: to somebody who is not signed in with the way in, which is all they may know.
func (c *console) unrouted(w http.ResponseWriter, r *http.Request) {
	v, err := c.visit(w, r)
	if err != nil {
		c.enter(w, r, err)
		return
	}
	c.fail(w, r, v, &api.Problem{Status: http.StatusNotFound, Title: "There is nothing at this address", NextStep: "Choose a page from the menu."})
}

//go:embed assets
var assetFiles embed.FS

// assets are the embedded files, each at an address that its content is part of, so that browsers may keep it for ever.
type assets map[string]asset

type asset struct {
	content []byte
	kind    string
	hash    string
}

func loadAssets() (assets, error) {
	kinds := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	out := assets{}
	entries, err := fs.ReadDir(assetFiles, "assets")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		content, err := assetFiles.ReadFile("assets/" + e.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		out[e.Name()] = asset{content, kinds[path.Ext(e.Name())], hex.EncodeToString(sum[:6])}
	}
	return out, nil
}

func (a assets) url(name string) string { return "/assets/" + name + "?" + a[name].hash }

func (a assets) serve(w http.ResponseWriter, r *http.Request) {
	f, ok := a[r.PathValue("file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "public, max-age=300")
	if r.URL.RawQuery == f.hash {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(f.content) // a browser that is gone does not miss it
}

// by says that somebody does something in the console now.
func (c *console) by(actor string) domain.Event {
	return domain.Event{Actor: actor, Source: "/console", OccurredAt: c.Clock()}
}

// trimmed gives a form's or query's value without the blanks around it.
func (v *visit) value(name string) string { return strings.TrimSpace(v.r.FormValue(name)) }
