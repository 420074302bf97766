package klaviyo

import "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"

var needs = []platforms.Need{
	{Name: "key", Secret: true, Doc: "a private API key with profiles:read, profiles:write, subscriptions:write and lists:write"},
	{Name: "webhook_secret", Secret: true, Optional: true, Doc: "the secret key that system webhooks were made with"},
}

func connect(c platforms.Connection) (platforms.Describer, error) {
	base := c.URL
	if base == "" {
		base = Base
	}
	return Client{HTTP: c.HTTP, Base: base, Key: c.Secrets["key"], Now: c.Now}, nil
}

func receive(c platforms.Connection) (platforms.Inbound, error) {
	return platforms.AnyOf(c, "webhook_secret", func(secret platforms.Secret) platforms.Inbound { return Inbound{Secret: secret, Now: c.Now} }), nil
}
