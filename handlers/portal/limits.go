package portal

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// How often one address may ask, and how often one person's answers may be posted. Whole offices and mobile networks
// share an address, so the first is generous.
const (
	callerEvery = 200 * time.Millisecond
	callerBurst = 120
	personEvery = 5 * time.Second
	personBurst = 20

	limitersKept = 20_000 // the least recently seen are forgotten first
)

// limiter counts by key, in bounded memory.
type limiter struct {
	every time.Duration
	burst int
	now   func() time.Time
	keys  *lru.Cache[string, *rate.Limiter]
}

func newLimiter(every time.Duration, burst int, now func() time.Time) (*limiter, error) {
	keys, err := lru.New[string, *rate.Limiter](limitersKept)
	return &limiter{every: every, burst: burst, now: now, keys: keys}, err
}

// wait counts one and says how long the key has to wait; 0 is not at all.
func (l *limiter) wait(key string) time.Duration {
	known, ok := l.keys.Get(key)
	if !ok {
		known = rate.NewLimiter(rate.Every(l.every), l.burst)
		if earlier, there, _ := l.keys.PeekOrAdd(key, known); there {
			known = earlier
		}
	}
	if known.AllowN(l.now(), 1) {
		return 0
	}
	return l.every
}

// caller is who asks: the address of the connection or, where that is a proxy that is trusted, the last address in
// X-Forwarded-For that is none. Whatever stands before it was written by strangers. An IPv6 address counts by its /64.
func (p *portal) caller(r *http.Request) netip.Prefix {
	address := p.address(r)
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	prefix, err := address.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// address is the caller's whole address, which is evidence.
func (p *portal) address(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= 0 && p.trusts(address); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		address = next
	}
	return address.Unmap()
}

func (p *portal) trusts(address netip.Addr) bool {
	for _, network := range p.TrustedProxies {
		if network.Contains(address.Unmap()) {
			return true
		}
	}
	return false
}
