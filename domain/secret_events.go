package domain

// SecretRetired records that the value before a named secret's current one was deleted: its rotation is over.
type SecretRetired struct {
	Name string `json:"name"`
}

// SecretDeleted records that a named secret was deleted with all its values.
type SecretDeleted struct {
	Name string `json:"name"`
}

var (
	_ = declare("secret.retired", 1, FromLedger, "The value before a named secret's current one was deleted; nothing is signed with it any more.", SecretRetired{Name: "signing_key"})
	_ = declare("secret.deleted", 1, FromLedger, "A named secret was deleted; what names it is no longer sent.", SecretDeleted{Name: "signing_key"})
)

// Stream is the secret's.
func (s SecretRetired) Stream() string { return "secret-" + s.Name }

// Keys has none.
func (s SecretRetired) Keys() Keys { return Keys{} }

// Validate accepts what the service made.
func (s SecretRetired) Validate() error { return nil }

// Stream is the secret's.
func (s SecretDeleted) Stream() string { return "secret-" + s.Name }

// Keys has none.
func (s SecretDeleted) Keys() Keys { return Keys{} }

// Validate accepts what the service made.
func (s SecretDeleted) Validate() error { return nil }
