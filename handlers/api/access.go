package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// The roles of the rules below. Admin may do everything.
const (
	emitter    = schema.RoleEmitter
	operator   = schema.RoleOperator
	compliance = schema.RoleCompliance
	privacy    = schema.RolePrivacy
	analyst    = schema.RoleAnalyst
)

// rule says who may use an operation.
type rule struct {
	public bool
	roles  []schema.Role // besides admin
}

func only(roles ...schema.Role) rule { return rule{roles: roles} }

// public is for what a load balancer, a scraper or a newcomer asks without a token. It shows no event.
var public = rule{public: true}

// access says who may use each operation. It is the one place: nothing else in the API looks at a role, and an
// operation that is missing here is not served. The reasoning:
//
//   - an emitter sends events in and reads nothing back, so a stolen engine token shows nobody's data;
//   - an operator runs the dispatch: targets, deliveries, firings by hand;
//   - compliance reads all of the trail and changes nothing, so that it audits what others did;
//   - privacy acts for the person: consent by hand, access, erasure;
//   - an analyst reads what holds no person's consent history.
var access = map[string]rule{
	"health":     public,
	"ready":      public,
	"metrics":    public,
	"openapi":    public,
	"docs":       public,
	"docs-style": public,

	"accept-events": only(emitter, operator),
	"list-events":   only(operator, compliance, privacy),
	"get-event":     only(operator, compliance, privacy),
	"stream":        only(operator, compliance, privacy),

	"get-checkpoint": public, // a root and a size: no event, and worth more the more people keep it
	"get-tile":       public, // hashes, of which each is of something that stays where it is
	"get-proof":      only(operator, compliance, privacy),

	"list-targets":         only(operator, compliance, analyst),
	"get-target":           only(operator, compliance, analyst),
	"list-target-versions": only(operator, compliance, analyst),
	"put-target":           only(operator),
	"delete-target":        only(operator),
	"disable-target":       only(operator),
	"enable-target":        only(operator),
	"preview-target":       only(operator),
	"diff-target":          only(operator, compliance, analyst),
	"roll-back-target":     only(operator),
	"move-target":          only(operator),

	"test-target":       only(operator),
	"open-past-context": only(operator),
	"list-bins":         only(operator),
	"create-bin":        only(operator),
	"list-bin-requests": only(operator),
	"delete-bin":        only(operator),

	"list-proposals":          only(operator, compliance, analyst),
	"list-target-proposals":   only(operator, compliance, analyst),
	"get-target-proposal":     only(operator, compliance, analyst),
	"approve-target-proposal": only(operator, compliance), // a second pair of eyes need not be an operator's
	"decline-target-proposal": only(operator, compliance),

	"list-partials":         only(operator, compliance, analyst),
	"get-partial":           only(operator, compliance, analyst),
	"list-partial-versions": only(operator, compliance, analyst),
	"put-partial":           only(operator),
	"delete-partial":        only(operator),

	"get-consent":         only(operator, compliance, privacy),
	"put-consent":         only(operator, privacy),
	"get-consent-history": only(operator, compliance, privacy),
	"list-consent-fields": only(operator, compliance, privacy, analyst), // names, nobody's data
	"get-consent-policy":  only(operator, compliance, privacy, analyst),
	"put-consent-policy":  only(), // it decides who is sent to without having been asked

	"list-addresses":  only(operator, compliance, privacy),
	"list-opt-outs":   only(operator, compliance, privacy),
	"sum-opt-outs":    only(operator, compliance, privacy, analyst),
	"import-consent":  only(operator, privacy),
	"take-omneo-hook": public, // its signature is its credential

	"list-deliveries": only(operator, compliance, privacy, analyst),
	"get-delivery":    only(operator, compliance, privacy, analyst),

	"retry-delivery":    only(operator),
	"cancel-delivery":   only(operator, privacy),
	"replay-deliveries": only(operator),
	"list-replays":      only(operator, compliance, privacy, analyst),
	"get-replay":        only(operator, compliance, privacy, analyst),
	"cancel-replay":     only(operator),

	"list-queue":       only(operator, compliance, analyst),
	"pause-target":     only(operator),
	"resume-target":    only(operator),
	"discard-held":     only(operator),
	"describe-retries": only(operator, compliance, analyst), // it reads and records nothing

	"list-platforms":  only(operator, compliance, privacy, analyst),
	"get-platform":    only(operator, compliance, privacy, analyst),
	"put-platform":    only(operator),
	"receive-webhook": public, // its signature says who sends it; what nothing proves may only suppress

	"list-reconciliations":         only(operator, compliance, analyst),
	"start-reconciliation":         only(operator),
	"get-reconciliation":           only(operator, compliance, analyst),
	"list-reconciliation-findings": only(operator, compliance, privacy),
	"approve-reconciliation":       only(operator),
	"stop-reconciliation":          only(operator),
	"list-findings":                only(operator, compliance, privacy),
	"get-finding":                  only(operator, compliance, privacy),
	"resolve-finding":              only(operator, privacy),
	"resolve-findings":             only(operator, privacy),
	"list-profile-suppressions":    only(operator, compliance, privacy),

	"audit-outcomes":         only(operator, compliance, privacy, analyst),
	"audit-unknown-outcomes": only(operator, compliance, privacy, analyst),
	"audit-consent-changes":  only(operator, compliance, privacy),

	"list-tokens":     only(compliance), // who has access is for audit; giving it is for admin
	"create-token":    only(),
	"revoke-token":    only(),
	"list-secrets":    only(operator, compliance),
	"put-secret":      only(operator),
	"retire-secret":   only(operator),
	"delete-secret":   only(operator),
	"erase-profile":   only(privacy),
	"access-profile":  only(privacy),
	"access-page":     only(privacy),
	"reveal-event":    only(compliance, privacy),
	"reveal-delivery": only(compliance, privacy),
	"list-retentions": only(operator, compliance, privacy),
	"put-retention":   only(privacy),

	"get-verification":   only(operator, compliance, privacy),
	"start-verification": only(operator, compliance),
	"get-evidence":       only(operator, compliance, privacy),

	"list-projections":   only(operator, compliance, analyst),
	"rebuild-projection": only(operator, analyst), // it changes nothing that the ledger says
	"resume-reader":      only(operator),
	"skip-event":         only(operator),
}

// allows reports whether a role is enough.
func (r rule) allows(role schema.Role) bool {
	return r.public || role == schema.RoleAdmin || slices.Contains(r.roles, role)
}

// names lists the roles for people.
func (r rule) names() string {
	names := make([]string, 0, len(r.roles)+1)
	for _, role := range append(slices.Clone(r.roles), schema.RoleAdmin) {
		names = append(names, string(role))
	}
	return strings.Join(names, ", ")
}

// Principal is who makes a request.
type Principal struct {
	Name string // the token's name: the actor in the ledger
	Role schema.Role
}

type principalKey struct{}

// PrincipalOf is who makes the request of an operation; the zero Principal in a public one.
func PrincipalOf(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// Authenticator knows tokens; *schema.Tokens is one. An error that wraps schema.ErrUnauthenticated refuses the token;
// any other says that it could not be looked up.
type Authenticator interface {
	Authenticate(ctx context.Context, presented string) (schema.Token, error)
}

// The lockout: an address may fail so many times at once, and once more in each interval.
const (
	failuresMax      = 20
	failureInterval  = 6 * time.Second
	addressesTracked = 10_000 // the least recently failing are forgotten first
	tokensKnown      = 1_024
)

// doorman authenticates requests. An address that keeps failing is not looked up for any more until its time has
// passed, except for tokens that this process has accepted lately: behind one proxy address, a client with a wrong
// token does not lock out the others. Its memory is bounded.
type doorman struct {
	auth     Authenticator
	now      func() time.Time
	failures *lru.Cache[string, *rate.Limiter]       // by address
	known    *lru.Cache[[sha256.Size]byte, struct{}] // hashes of accepted tokens
}

func newDoorman(auth Authenticator, now func() time.Time) (*doorman, error) {
	failures, err := lru.New[string, *rate.Limiter](addressesTracked)
	if err != nil {
		return nil, err
	}
	known, err := lru.New[[sha256.Size]byte, struct{}](tokensKnown)
	if err != nil {
		return nil, err
	}
	return &doorman{auth: auth, now: now, failures: failures, known: known}, nil
}

// admit authenticates the bearer of a header and asks whether the rule allows the role.
func (d *doorman) admit(ctx context.Context, authorization, remoteAddr string, r rule) (Principal, error) {
	token, ok := bearer(authorization)
	if !ok {
		return Principal{}, errUnauthenticated // nothing was tried, so nothing counts as a failure
	}
	address, hash := host(remoteAddr), sha256.Sum256([]byte(token))
	if err := d.locked(address); err != nil && !d.known.Contains(hash) {
		return Principal{}, err
	}
	info, err := d.auth.Authenticate(ctx, token)
	if errors.Is(err, schema.ErrUnauthenticated) {
		d.known.Remove(hash)
		d.failed(address)
		return Principal{}, fmt.Errorf("%w: %w", errUnauthenticated, err)
	}
	if err != nil {
		return Principal{}, err
	}
	d.known.Add(hash, struct{}{})
	who := Principal{Name: info.Name, Role: info.Role}
	if !r.allows(who.Role) {
		return who, fmt.Errorf("%w: it is %s, and this takes %s", errForbidden, who.Role, r.names())
	}
	return who, nil
}

// locked is the answer to an address that has to wait; nil for one that need not.
func (d *doorman) locked(address string) error {
	wait := d.wait(address)
	if wait <= 0 {
		return nil
	}
	p := kindOf(errLocked).problem(fmt.Errorf("%w; try again in %s", errLocked, wait.Round(time.Second)))
	p.header.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	return p
}

// wait is how long an address has to wait before it may try another token; 0 is not at all.
func (d *doorman) wait(address string) time.Duration {
	limiter, ok := d.failures.Peek(address)
	if !ok {
		return 0
	}
	missing := 1 - limiter.TokensAt(d.now())
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing * float64(failureInterval))
}

func (d *doorman) failed(address string) {
	limiter, ok := d.failures.Get(address)
	if !ok {
		limiter = rate.NewLimiter(rate.Every(failureInterval), failuresMax)
		if earlier, there, _ := d.failures.PeekOrAdd(address, limiter); there {
			limiter = earlier
		}
	}
	limiter.AllowN(d.now(), 1)
}

// bearer takes the token out of an Authorization header.
func bearer(authorization string) (string, bool) {
	scheme, token, ok := strings.Cut(authorization, " ")
	token = strings.TrimSpace(token)
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}

// host is the address without its port; an IPv6 one by its /64, which is what one client has.
func host(remoteAddr string) string {
	name, _, err := net.SplitHostPort(remoteAddr)
	if err != nil {
		return remoteAddr
	}
	if ip := net.ParseIP(name); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return name
}

// guard is admit for a plain handler.
func (a *api) guard(r rule, next http.Handler) http.Handler {
	if r.public {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		who, err := a.doorman.admit(req.Context(), req.Header.Get("Authorization"), req.RemoteAddr, r)
		if err != nil {
			a.refuse(w, req.Context(), err)
			return
		}
		next.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), principalKey{}, who)))
	})
}
