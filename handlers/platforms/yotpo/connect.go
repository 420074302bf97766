package yotpo

import "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"

var needs = []platforms.Need{
	{Name: "store", Doc: "the store's app key"},
	{Name: "secret", Secret: true, Doc: "the store's API secret"},
}

func connect(c platforms.Connection) (platforms.Describer, error) {
	base := c.URL
	if base == "" {
		base = Base
	}
	return NewClient(c.HTTP, base, c.Settings["store"], c.Secrets["secret"], c.Now), nil
}

func receive(c platforms.Connection) (platforms.Inbound, error) { return Inbound{Now: c.Now}, nil }
