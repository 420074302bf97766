package console

import (
	"database/sql"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// cookieName's prefix has browsers accept it only over TLS (or from this machine), for the whole host, and from nobody but
// this host.
const cookieName = "__Host-dispatch-ledger"

// visit is one request of somebody who is signed in.
type visit struct {
	w   http.ResponseWriter
	r   *http.Request
	who api.Principal
	ses schema.Session

	head int64 // of the ledger before the page was made: what comes after it is what the page lacks
}

// may reports whether the visitor may use an operation of the API.
func (v *visit) may(operation string) bool { return api.May(v.who.Role, operation) }

// visit finds out who makes a request.
func (c *console) visit(w http.ResponseWriter, r *http.Request) (*visit, error) {
	cookie, err := r.Cookie(cookieName)
	if err != nil || cookie.Value == "" {
		return nil, schema.ErrNoSession
	}
	find := c.Sessions.Find
	if r.URL.Path == "/live" || r.Method == http.MethodGet && r.Header.Get("X-Fragment") != "" {
		find = c.Sessions.Peek // the page asks, and nobody may be at it
	}
	s, err := find(r.Context(), cookie.Value)
	if err != nil {
		return nil, err
	}
	return &visit{w: w, r: r, who: api.Principal{Name: s.Name, Role: s.Role}, ses: s}, nil
}

// signedIn runs a route for those who may use it.
func (c *console) signedIn(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := c.visit(w, r)
		if err != nil {
			c.enter(w, r, err)
			return
		}
		if rt.operation != "" && !v.may(rt.operation) {
			c.fail(w, r, v, &api.Problem{
				Status: http.StatusForbidden, Title: "Your role does not allow this",
				Detail: "You are signed in as " + string(v.who.Role) + "; this takes " + api.Roles(rt.operation) + ".", NextStep: "Ask somebody who has one of these roles.",
			})
			return
		}
		if r.Method == http.MethodGet {
			if v.head, err = schema.Head(r.Context(), c.DB); err != nil {
				c.fail(w, r, v, err)
				return
			}
		}
		if err := rt.handle(c, v); err != nil {
			c.fail(w, r, v, err)
		}
	})
}

// enter shows the way in to somebody without a session, and back to where they wanted to go.
func (c *console) enter(w http.ResponseWriter, r *http.Request, err error) {
	if !errors.Is(err, schema.ErrUnauthenticated) {
		c.fail(w, r, nil, err)
		return
	}
	if r.Method != http.MethodGet || r.Header.Get("Accept") == "text/event-stream" || r.Header.Get("X-Fragment") != "" {
		c.fail(w, r, nil, &api.Problem{Status: http.StatusUnauthorized, Title: "Your session has ended", NextStep: "Sign in again; then repeat what you did."})
		return
	}
	q := url.Values{}
	if r.URL.Path != "/" {
		q.Set("to", r.URL.RequestURI())
	}
	address := url.URL{Path: "/login", RawQuery: q.Encode()}
	http.Redirect(w, r, address.String(), http.StatusSeeOther)
}

// destination keeps a way back on this site.
func destination(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") || strings.HasPrefix(to, "/login") {
		return "/"
	}
	return to
}

type loginPage struct {
	To     string
	OIDC   string // the provider's name; empty offers tokens only
	Failed string
}

func (c *console) showLogin(w http.ResponseWriter, r *http.Request) {
	if _, err := c.visit(w, r); err == nil {
		http.Redirect(w, r, destination(r.FormValue("to")), http.StatusSeeOther) //nolint:gosec // destination gives paths of this console only
		return
	}
	c.askIn(w, r, http.StatusOK, "")
}

func (c *console) askIn(w http.ResponseWriter, r *http.Request, status int, failed string) {
	page := loginPage{To: destination(r.FormValue("to")), Failed: failed}
	if c.OIDC != nil {
		page.OIDC = c.OIDC.Name
	}
	c.show(w, r, nil, status, "login", "Sign in", page)
}

// login begins a session by token, with the API's own lockout for those who guess.
func (c *console) login(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimSpace(r.PostFormValue("token"))
	who, err := c.Service.Admit(r.Context(), token, r.RemoteAddr)
	if err != nil {
		p := c.Service.Problem(r.Context(), err)
		if p.Status != http.StatusUnauthorized {
			c.refuse(w, r, p)
			return
		}
		c.askIn(w, r, p.Status, "This token does not open the console. It may be mistyped, expired or revoked.")
		return
	}
	if who.Role == schema.RoleEmitter || who.Role == schema.RoleDispatcher {
		c.askIn(w, r, http.StatusForbidden, "This token is a program's, for sending events or requests: it sees nothing.")
		return
	}
	info, err := c.Tokens.Authenticate(r.Context(), token)
	if err != nil {
		c.fail(w, r, nil, err)
		return
	}
	c.begin(w, r, schema.Session{Name: who.Name, Role: who.Role, Method: "token", TokenID: info.ID}, domain.SessionOpened{Name: who.Name, Role: string(who.Role), Method: "token"}, r.FormValue("to"))
}

// waits answers somebody whose address has failed too often, and reports whether it did.
func (c *console) waits(w http.ResponseWriter, r *http.Request) bool {
	p := c.Service.Locked(r.Context(), r.RemoteAddr)
	if p == nil {
		return false
	}
	c.refuse(w, r, p)
	return true
}

// refuse asks in again, saying why and, where it is known, from when on.
func (c *console) refuse(w http.ResponseWriter, r *http.Request, p *api.Problem) {
	if after := p.GetHeaders().Get("Retry-After"); after != "" {
		w.Header().Set("Retry-After", after)
	}
	c.askIn(w, r, p.Status, p.Title+". "+p.NextStep)
}

// begin opens a session and records it, in one transaction, and leads on.
func (c *console) begin(w http.ResponseWriter, r *http.Request, s schema.Session, opened domain.SessionOpened, to string) {
	var secret string
	err := c.Ledger.Act(r.Context(), c.by(opened.Name), func(tx *sql.Tx) (_ domain.Payload, err error) {
		secret, s, err = c.Sessions.Open(r.Context(), tx, s)
		return opened, err
	})
	if err != nil {
		c.fail(w, r, nil, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: secret, Path: "/", Expires: s.ExpiresAt, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, destination(to), http.StatusSeeOther) //nolint:gosec // destination gives paths of this console only
}

func (c *console) logout(w http.ResponseWriter, r *http.Request) {
	v, err := c.visit(w, r)
	if err == nil {
		err = c.Ledger.Act(r.Context(), c.by(v.who.Name), func(tx *sql.Tx) (domain.Payload, error) {
			cookie, err := r.Cookie(cookieName)
			if err != nil {
				return nil, err
			}
			return domain.SessionClosed{Name: v.who.Name}, c.Sessions.Close(r.Context(), tx, cookie.Value)
		})
	}
	if err != nil && !errors.Is(err, schema.ErrUnauthenticated) {
		c.fail(w, r, nil, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
