package domain

// TokenCreated records that somebody was given access.
type TokenCreated struct {
	Name string `json:"name"`
	Role string `json:"role" doc:"emitter, operator, compliance, privacy, analyst or admin"`
}

// TokenRevoked records that an access ended.
type TokenRevoked struct {
	Name string `json:"name"`
}

// SecretChanged records that a named secret got a value, never the value.
type SecretChanged struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint" doc:"keyed hash, to tell values apart"`
}

var (
	_ = declare("token.created", 1, FromLedger, "An API token was made; only its hash is kept.", TokenCreated{Name: "reaction-engine", Role: "emitter"})
	_ = declare("token.revoked", 1, FromLedger, "An API token was withdrawn.", TokenRevoked{Name: "reaction-engine"})
	_ = declare("secret.changed", 1, FromLedger, "A named secret was set or rotated.", SecretChanged{Name: "klaviyo_private_key", Fingerprint: "3f9a12c4"})
)

// Stream is the token's.
func (t TokenCreated) Stream() string { return "token-" + t.Name }

// Keys has none.
func (t TokenCreated) Keys() Keys { return Keys{State: t.Role} }

// Validate accepts what the service made.
func (t TokenCreated) Validate() error { return nil }

// Stream is the token's.
func (t TokenRevoked) Stream() string { return "token-" + t.Name }

// Keys has none.
func (t TokenRevoked) Keys() Keys { return Keys{} }

// Validate accepts what the service made.
func (t TokenRevoked) Validate() error { return nil }

// Stream is the secret's.
func (s SecretChanged) Stream() string { return "secret-" + s.Name }

// Keys has none.
func (s SecretChanged) Keys() Keys { return Keys{} }

// Validate accepts what the service made.
func (s SecretChanged) Validate() error { return nil }
