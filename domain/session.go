package domain

// SessionOpened records that somebody signed in at the console.
type SessionOpened struct {
	Name   string `json:"name" doc:"who: the actor of what follows"`
	Role   string `json:"role" doc:"operator, compliance, privacy, analyst or admin"`
	Method string `json:"method" doc:"token or oidc"`
	Issuer string `json:"issuer,omitempty" doc:"of an OpenID Connect identity"`
	Login  string `json:"login,omitempty" doc:"the identity's subject, as the issuer names it"`
}

// SessionClosed records that somebody signed out. A session that runs out has no such event.
type SessionClosed struct {
	Name string `json:"name"`
}

var (
	_ = declare("session.opened", 1, FromLedger, "Somebody signed in at the console.", SessionOpened{Name: "ada@example.com", Role: "compliance", Method: "oidc", Issuer: "https://login.example.com", Login: "00u1a2b3"})
	_ = declare("session.closed", 1, FromLedger, "Somebody signed out of the console.", SessionClosed{Name: "ada@example.com"})
)

// Stream is the person's who signed in.
func (s SessionOpened) Stream() string { return "session-" + s.Name }

// Keys are the role.
func (s SessionOpened) Keys() Keys { return Keys{State: s.Role} }

// Validate accepts what the service made.
func (s SessionOpened) Validate() error { return nil }

// Stream is the person's who signed out.
func (s SessionClosed) Stream() string { return "session-" + s.Name }

// Keys has none.
func (s SessionClosed) Keys() Keys { return Keys{} }

// Validate accepts what the service made.
func (s SessionClosed) Validate() error { return nil }
