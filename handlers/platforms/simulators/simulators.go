// Package simulators makes any platform's simulator by the platform's name.
package simulators

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	braze "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/braze/simulator"
	dotdigital "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/dotdigital/simulator"
	klaviyo "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/klaviyo/simulator"
	sfmc "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/sfmc/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	webhook "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/webhook/simulator"
	yotpo "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/yotpo/simulator"
)

var makers = map[string]func(simulator.Options) (http.Handler, error){
	"braze":      func(o simulator.Options) (http.Handler, error) { return braze.New(o) },
	"dotdigital": func(o simulator.Options) (http.Handler, error) { return dotdigital.New(o) },
	"klaviyo":    func(o simulator.Options) (http.Handler, error) { return klaviyo.New(o) },
	"sfmc":       func(o simulator.Options) (http.Handler, error) { return sfmc.New(o) },
	"webhook":    func(o simulator.Options) (http.Handler, error) { return webhook.New(o) },
	"yotpo":      func(o simulator.Options) (http.Handler, error) { return yotpo.New(o) },
}

// New makes the simulator of a platform. The error is [platforms.ErrUnknown] or [simulator.ErrNoClock].
func New(platform string, opts simulator.Options) (http.Handler, error) {
	maker, ok := makers[platform]
	if !ok {
		return nil, fmt.Errorf("%w %q: there are simulators of %s", platforms.ErrUnknown, platform, strings.Join(Names(), ", "))
	}
	return maker(opts)
}

// Names lists the platforms that have a simulator.
func Names() []string { return slices.Sorted(maps.Keys(makers)) }
