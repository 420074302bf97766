package platforms

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrUnknown says that no platform has the name.
var ErrUnknown = errors.New("unknown platform")

// Platform is everything the ledger knows about one comms platform.
type Platform struct {
	Name    string // as targets write it: klaviyo, sfmc, braze, dotdigital, yotpo, webhook
	Title   string // as people write it: "Salesforce Marketing Cloud"
	Dialect Dialect
	Caps    Caps
	Targets fs.FS   // ready-made target files, *.yaml at the top; nil: none
	Import  Columns // how its own export names its columns

	// Needs are what a connection is made with, beside its address.
	Needs []Need
	// Connect makes a client, which implements what the platform can do: [Source], [Sink] and so on. nil: there is none.
	Connect func(Connection) (Describer, error)
	// Receive makes what decodes the platform's webhooks. nil: it sends none.
	Receive func(Connection) (Inbound, error)
}

// Need is one thing that a connection is made with.
type Need struct {
	Name     string // key, client_id, store, …
	Secret   bool   // a credential: the policy names the secret that holds it
	Optional bool
	Doc      string // what it is and where it is found
}

// Connection is how one account of a platform is reached.
type Connection struct {
	HTTP     *http.Client
	URL      string // of the API; empty: the platform's own
	Secrets  map[string]Secret
	Previous map[string]Secret // what a rotated secret was before, as long as it still counts
	Settings map[string]string
	Now      func() time.Time
}

// Check reports the first thing that a connection lacks. The error is [ErrConnection].
func (p Platform) Check(c Connection) error {
	for _, need := range p.Needs {
		given := c.Settings[need.Name] != ""
		where := "settings"
		if need.Secret {
			given, where = c.Secrets[need.Name] != "", "credentials"
		}
		if !given && !need.Optional {
			return fmt.Errorf("%w: %s needs %s in its %s: %s", ErrConnection, p.Name, need.Name, where, need.Doc)
		}
	}
	return nil
}

// ErrConnection says that a connection lacks something, or has it wrong.
var ErrConnection = errors.New("the platform's connection is incomplete")

// Template is a ready-made target file for one of a platform's integrations.
type Template struct {
	Platform string
	Name     string // file name without .yaml: the target's handle
	YAML     []byte
}

// Templates lists the ready-made target files of all registered platforms, by platform and name.
func Templates() ([]Template, error) {
	var templates []Template
	for _, p := range Platforms() {
		if p.Targets == nil {
			continue
		}
		names, err := fs.Glob(p.Targets, "*.yaml")
		if err != nil {
			return nil, fmt.Errorf("targets of %s: %w", p.Name, err)
		}
		for _, name := range names {
			content, err := fs.ReadFile(p.Targets, name)
			if err != nil {
				return nil, fmt.Errorf("targets of %s: %w", p.Name, err)
			}
			templates = append(templates, Template{Platform: p.Name, Name: strings.TrimSuffix(name, ".yaml"), YAML: content})
		}
	}
	return templates, nil
}

var registry = struct {
	sync.RWMutex
	byName map[string]Platform
}{byName: map[string]Platform{}}

// Register makes a platform available to [Lookup]. Platform packages call it from init; a second platform of the
// same name is a programming error and panics.
func Register(p Platform) {
	registry.Lock()
	defer registry.Unlock()
	if _, taken := registry.byName[p.Name]; taken || p.Name == "" || p.Dialect == nil {
		panic(fmt.Sprintf("platforms: cannot register %q: the name is empty or taken, or it has no dialect", p.Name))
	}
	registry.byName[p.Name] = p
}

// Lookup finds a platform by the name that targets use. The error is [ErrUnknown] and names those there are.
func Lookup(name string) (Platform, error) {
	registry.RLock()
	defer registry.RUnlock()
	if p, ok := registry.byName[name]; ok {
		return p, nil
	}
	known := slices.Sorted(maps.Keys(registry.byName))
	return Platform{}, fmt.Errorf("%w %q: use one of %s", ErrUnknown, name, strings.Join(known, ", "))
}

// Platforms lists the registered platforms by name.
func Platforms() []Platform {
	registry.RLock()
	defer registry.RUnlock()
	return slices.SortedFunc(maps.Values(registry.byName), func(a, b Platform) int { return strings.Compare(a.Name, b.Name) })
}
