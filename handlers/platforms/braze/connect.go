package braze

import (
	"fmt"
	"maps"
	"slices"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

var needs = []platforms.Need{
	{Name: "key", Secret: true, Doc: "a REST API key with email.unsubscribes, email.hard_bounces, email.status and subscription.status.set"},
	{Name: "instance", Optional: true, Doc: "the instance that the account lives on, such as us-01 or eu-01; needed unless an url is given"},
	{Name: "sms_group", Optional: true, Doc: "the subscription group that texts are sent to; without it, opt-outs of SMS are not written"},
	{Name: "webhook_token", Secret: true, Optional: true, Doc: "what Currents and postbacks send as a bearer token; without it they are unauthenticated"},
}

func connect(c platforms.Connection) (platforms.Describer, error) {
	base := c.URL
	if base == "" {
		var ok bool
		if base, ok = Instances[c.Settings["instance"]]; !ok {
			return nil, fmt.Errorf("%w: braze has no instance %q; there are %v", platforms.ErrConnection, c.Settings["instance"], slices.Sorted(maps.Keys(Instances)))
		}
	}
	return Client{HTTP: c.HTTP, Base: base, Key: c.Secrets["key"], Now: c.Now}, nil
}

func receive(c platforms.Connection) (platforms.Inbound, error) {
	return platforms.AnyOf(c, "webhook_token", func(token platforms.Secret) platforms.Inbound { return Inbound{Token: token, Now: c.Now} }), nil
}
