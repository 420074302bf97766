package twig

import (
	"container/list"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Cache keeps compiled templates by the hash of their source and options, the least recently used going first. It is
// safe for concurrent use; compiling costs about fifteen renderings of a usual body.
type Cache struct {
	max int

	mu    sync.Mutex
	order *list.List               // guarded by mu; of *cached, the latest used first
	byKey map[string]*list.Element // guarded by mu
}

type cached struct {
	key      string
	template *Template
}

// NewCache makes a cache of at most max templates; max below 1 means 1,024.
func NewCache(max int) *Cache {
	if max < 1 {
		max = 1024
	}
	return &Cache{max: max, order: list.New(), byKey: map[string]*list.Element{}}
}

// Compile is the package's Compile, kept. version names the state of what the source alone does not tell: the
// partials behind o.Partials. Two sets of partials must not share a version.
func (c *Cache) Compile(text string, o Options, version string) (*Template, error) {
	key := cacheKey(text, &o, version)
	c.mu.Lock()
	if e, ok := c.byKey[key]; ok {
		c.order.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*cached).template, nil // the list holds nothing else
	}
	c.mu.Unlock()
	t, err := Compile(text, o)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; !ok {
		c.byKey[key] = c.order.PushFront(&cached{key, t})
		if c.order.Len() > c.max {
			last := c.order.Back()
			c.order.Remove(last)
			delete(c.byKey, last.Value.(*cached).key)
		}
	}
	return t, nil
}

// Len is the number of templates kept.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}

// cacheKey hashes everything that a compiled template depends on. Each part goes in with its length, so that no two
// lists of parts look the same.
func cacheKey(text string, o *Options, version string) string {
	h := sha256.New()
	part := func(s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }
	part(text)
	part(version)
	part(o.Name)
	part(fmt.Sprintf("%d %t %+v %+v", o.Mode, o.StrictTypes, o.Limits, o.Number))
	part(o.Timezone)
	part(o.DateFormat)
	part(o.Interval)
	for _, f := range o.Functions {
		part(fmt.Sprintf("%s(%s)%d", f.Name, strings.Join(f.Params, ","), f.Required))
	}
	for _, name := range sortedKeys(o.Globals) {
		part(name)
		part(fmt.Sprintf("%#v", o.Globals[name]))
	}
	names := slices.Clone(o.Names)
	slices.Sort(names)
	part(strings.Join(names, "\x00"))
	return hex.EncodeToString(h.Sum(nil))
}
