package dotdigital

import (
	"fmt"
	"maps"
	"slices"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

var needs = []platforms.Need{
	{Name: "user", Doc: "the API user's address, as Dotdigital generated it"},
	{Name: "password", Secret: true, Doc: "the API user's password"},
	{Name: "region", Optional: true, Doc: "r1 (Europe), r2 (North America) or r3 (Asia and Pacific); needed unless an url is given"},
	{Name: "webhook_secret", Secret: true, Optional: true, Doc: "the secret that webhooks were made with"},
}

func connect(c platforms.Connection) (platforms.Describer, error) {
	base := c.URL
	if base == "" {
		var ok bool
		if base, ok = Regions[c.Settings["region"]]; !ok {
			return nil, fmt.Errorf("%w: dotdigital has no region %q; there are %v", platforms.ErrConnection, c.Settings["region"], slices.Sorted(maps.Keys(Regions)))
		}
	}
	return Client{HTTP: c.HTTP, Base: base, User: c.Settings["user"], Password: c.Secrets["password"], Now: c.Now}, nil
}

func receive(c platforms.Connection) (platforms.Inbound, error) {
	return platforms.AnyOf(c, "webhook_secret", func(secret platforms.Secret) platforms.Inbound { return Inbound{Secret: secret, Now: c.Now} }), nil
}
