package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
)

// Staleness bounds how long after a withdrawal was recorded a dispatcher may still begin a request that it forbids, whatever
// is slow, cut off or dead: a dispatcher sends only while it has proof that it heard every fence recorded up to this long ago.
const Staleness = 2 * time.Second

// Reasons to send a job back.
var (
	// ErrStale says that this dispatcher may have missed a withdrawal: it has not heard from a writer for too long.
	ErrStale = errors.New("what was withdrawn lately is not known here")
	// ErrFenced says that something the job depends on was changed or withdrawn after the job was claimed.
	ErrFenced = errors.New("withdrawn or changed since it was claimed")
)

// fence says that what carries one of the keys has changed at a position of the ledger.
type fence struct {
	Position int64    `json:"position"`
	Keys     []string `json:"keys"`            // profile:…, address:…, everybody, target:…, secret:…, delivery:…
	Epoch    int64    `json:"epoch,omitempty"` // the fleet's new key, when it has a new one
}

// tide answers marks: every fence recorded before the marks up to Echo were read stands in the stream before it.
type tide struct {
	Echo     uint64 `json:"echo"` // stream sequence
	Position int64  `json:"position"`
}

// mark asks for a tide, and says that its dispatcher is alive.
type mark struct {
	Dispatcher string `json:"dispatcher"`
	Capacity   int    `json:"capacity"` // requests at once
}

// Timing of the gate. A tide is due well within Staleness however unlucky one mark is.
const (
	markInterval = 250 * time.Millisecond
	marksKept    = 64
)

// gate is a dispatcher's knowledge of what was withdrawn.
//
// How fresh it is follows from this process's monotonic clock alone, whatever the clocks of other machines say and however
// long a message lay in a buffer: the gate puts a mark into the stream of fences at a time that it remembers; a writer that
// has read the mark asks the ledger where it ends, waits until every fence up to there is in the stream, and only then puts
// a tide behind them that names the mark. Who reads the stream in order, and finds the tide, has heard every fence of what
// was recorded before the mark was put.
type gate struct {
	broker *Broker
	keys   *keys
	name   string
	size   int
	now    func() time.Time
	renew  func() // asks for the keys anew

	mu     sync.Mutex
	marks  []sentMark
	known  time.Time        // everything recorded up to then has been heard; zero: nothing yet
	fences map[string]heard // by key
	swept  time.Time
}

type sentMark struct {
	sequence uint64
	at       time.Time
}

type heard struct {
	position int64
	at       time.Time
}

func newGate(b *Broker, k *keys, name string, size int, now func() time.Time, renew func()) *gate {
	return &gate{broker: b, keys: k, name: name, size: size, now: now, renew: renew, fences: map[string]heard{}}
}

// admit reports whether a request may begin: nil, ErrStale or ErrFenced.
func (g *gate) admit(claimedAt int64, keys []string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known.IsZero() || g.now().Sub(g.known) > Staleness {
		return ErrStale
	}
	for _, k := range keys {
		if f, ok := g.fences[k]; ok && f.position > claimedAt {
			return fmt.Errorf("%w: %s at event %d", ErrFenced, k, f.position)
		}
	}
	return nil
}

// The keys of fences.
const everybodyKey = "everybody" // whom consent is asked for

func profileKey(id uuid.UUID) string { return "profile:" + id.String() }
func addressKey(h domain.ContactHash) string {
	return "address:" + string(h.Channel) + ":" + h.Hash
}
func deliveryKey(id uuid.UUID) string { return "delivery:" + id.String() }
func targetKey(handle string) string  { return "target:" + handle }
func secretKey(name string) string    { return "secret:" + name }

// keysOf are the keys of what a request depends on.
func keysOf(r outbound.Request) []string {
	keys := make([]string, 0, len(r.Secrets)+len(r.People)+len(r.Addresses)+4)
	keys = append(keys, targetKey(r.Target), deliveryKey(r.DeliveryID))
	if r.ProfileID != uuid.Nil {
		keys = append(keys, everybodyKey, profileKey(r.ProfileID))
	}
	for _, p := range r.People {
		keys = append(keys, profileKey(p))
	}
	for _, a := range r.Addresses {
		keys = append(keys, addressKey(a))
	}
	for s := range r.Secrets {
		keys = append(keys, secretKey(s))
	}
	return keys
}

// overtaken are the keys of what an event overtakes.
func overtaken(o domain.Overtaken) (keys []string) {
	if o.Everybody {
		keys = append(keys, everybodyKey)
	}
	for _, a := range o.Addresses {
		keys = append(keys, addressKey(a))
	}
	for _, p := range o.Profiles {
		if p != uuid.Nil {
			keys = append(keys, profileKey(p))
		}
	}
	if o.Delivery != uuid.Nil {
		keys = append(keys, deliveryKey(o.Delivery))
	}
	if o.Target != "" {
		keys = append(keys, targetKey(o.Target))
	}
	if o.Secret != "" {
		keys = append(keys, secretKey(o.Secret))
	}
	return keys
}

// handle takes a fence or a tide in, in the order of the stream.
func (g *gate) handle(msg *message.Message) error {
	switch msg.Metadata.Get(kindHeader) {
	case "fence":
		var f fence
		if _, err := g.keys.open("fence", msg, &f); err != nil {
			return g.unreadable(msg.Context(), err)
		}
		g.heard(f)
	case "tide":
		var t tide
		if _, err := g.keys.open("tide", msg, &t); err != nil {
			return g.unreadable(msg.Context(), err)
		}
		g.rose(t)
	}
	return nil
}

// unreadable is a message under a key that this process does not have. It may be a fence: nothing is known any more until
// the keys are there. One from before this process joined is of no matter, since its jobs are later ones.
func (g *gate) unreadable(ctx context.Context, err error) error {
	g.mu.Lock()
	started := !g.known.IsZero()
	g.known, g.marks = time.Time{}, nil
	g.mu.Unlock()
	if started {
		g.broker.Log.DebugContext(ctx, "a fence or tide cannot be read yet; asking for the keys", slog.Any("error", err))
	}
	g.renew()
	return nil
}

func (g *gate) heard(f fence) {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range f.Keys {
		if g.fences[k].position < f.Position {
			g.fences[k] = heard{f.Position, now}
		}
	}
	if f.Epoch > g.keys.epoch() {
		g.renew()
	}
	if now.Sub(g.swept) > fenceAge/4 { // a job that an old fence could concern is long gone
		for k, h := range g.fences {
			if now.Sub(h.at) > fenceAge {
				delete(g.fences, k)
			}
		}
		g.swept = now
	}
}

func (g *gate) rose(t tide) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for n < len(g.marks) && g.marks[n].sequence <= t.Echo {
		if g.marks[n].at.After(g.known) {
			g.known = g.marks[n].at
		}
		n++
	}
	g.marks = g.marks[n:]
}

// run puts marks until ctx ends.
func (g *gate) run(ctx context.Context) {
	ticker := time.NewTicker(markInterval)
	defer ticker.Stop()
	for {
		g.mark(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (g *gate) mark(ctx context.Context) {
	msg, err := g.keys.seal("mark", "", mark{Dispatcher: g.name, Capacity: g.size})
	if err != nil {
		g.renew()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, Staleness)
	defer cancel()
	at := g.now()
	ack, err := g.broker.js.PublishMsg(ctx, g.broker.natsMsg(g.broker.mark(), "mark", msg), jetstream.WithRetryAttempts(0))
	if err != nil {
		g.broker.Log.DebugContext(ctx, "cannot put a mark", slog.Any("error", err))
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.marks = append(g.marks, sentMark{ack.Sequence, at})
	if len(g.marks) > marksKept {
		g.marks = g.marks[1:]
	}
}
