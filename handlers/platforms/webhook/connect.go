package webhook

import (
	"fmt"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

var needs = []platforms.Need{
	{Name: "token", Secret: true, Optional: true, Doc: "sent as a bearer token"},
	{Name: "signing", Secret: true, Optional: true, Doc: "whsec_…: what our writes are signed with"},
	{Name: "webhook_secret", Secret: true, Optional: true, Doc: "whsec_…: what the system signs its own webhooks with"},
}

func connect(c platforms.Connection) (platforms.Describer, error) {
	if c.URL == "" {
		return nil, fmt.Errorf("%w: webhook needs the url below which the system keeps its suppressions", platforms.ErrConnection)
	}
	return Client{HTTP: c.HTTP, Base: c.URL, Token: c.Secrets["token"], Signing: c.Secrets["signing"], Now: c.Now}, nil
}

func receive(c platforms.Connection) (platforms.Inbound, error) {
	var secrets []platforms.Secret
	for _, of := range []map[string]platforms.Secret{c.Secrets, c.Previous} {
		if secret := of["webhook_secret"]; secret != "" {
			secrets = append(secrets, secret)
		}
	}
	return Inbound{Secrets: secrets, Now: c.Now}, nil
}
