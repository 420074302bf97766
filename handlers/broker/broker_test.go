package broker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// newBroker is a connection to a server of the test's own.
func newBroker(t *testing.T) *Broker {
	t.Helper()
	server, err := StartEmbedded(EmbeddedConfig{Dir: t.TempDir(), Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	b := connect(t, server.URL())
	if err := b.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func connect(t *testing.T, url string) *Broker {
	t.Helper()
	b, err := Connect(t.Context(), Config{URL: url, Ledger: "ledger", Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.nc.Close() })
	return b
}

// newKeys makes the fleet's keys of some epochs, as the vault does.
func newKeys(t *testing.T, epochs ...int64) *keys {
	t.Helper()
	all := map[int64]schema.FleetKey{}
	var newest schema.FleetKey
	for _, epoch := range epochs {
		handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := insecurecleartextkeyset.Write(handle, keyset.NewBinaryWriter(&b)); err != nil {
			t.Fatal(err)
		}
		if newest, err = schema.ImportFleetKey(epoch, b.Bytes()); err != nil {
			t.Fatal(err)
		}
		all[epoch] = newest
	}
	k := &keys{}
	k.set(newest, all)
	return k
}

func TestProvisioningIsRepeatable(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	if err := b.Provision(t.Context()); err != nil {
		t.Errorf("a second time: %v", err)
	}
	alone := *b
	alone.Replicas = 3
	alone.names.stream = "DL_other_"
	alone.names.prefix = "dispatch-ledger.other."
	if err := alone.Provision(t.Context()); !errors.Is(err, ErrConfig) {
		t.Errorf("three replicas on one server: %v, want ErrConfig", err)
	}
}

// A server that is too old is refused at once: with it dispatchers would wait for ever for what was withdrawn.
func TestAnOldServerIsRefused(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]error{"2.9.10": ErrConfig, "2.10.0": nil, "2.15.2": nil} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "INFO {\"server_id\":\"x\",\"version\":%q,\"headers\":true,\"max_payload\":1024}\r\n", version)
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if lines.Text() == "PING" {
					fmt.Fprint(conn, "PONG\r\n")
				}
			}
		}()
		b, err := Connect(t.Context(), Config{URL: "nats://" + l.Addr().String(), Ledger: "ledger"})
		if !errors.Is(err, want) {
			t.Errorf("NATS %s: %v, want %v", version, err, want)
		}
		if err == nil {
			b.nc.Close()
		}
	}
}

func TestABatchIsTakenOnce(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	for range 20 {
		id := uuid.NewString()
		var taken atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				switch err := b.take(t.Context(), id, fmt.Sprint("dispatcher-", i)); {
				case err == nil:
					taken.Add(1)
				case !errors.Is(err, errTaken):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := taken.Load(); n != 1 {
			t.Fatalf("%d dispatchers took one batch", n)
		}
	}
	id := uuid.NewString()
	for range 2 { // whoever asks again because the answer was lost
		if err := b.take(t.Context(), id, "same"); err != nil {
			t.Errorf("taking what is one's own: %v", err)
		}
	}
}

func TestSealing(t *testing.T) {
	t.Parallel()
	ours, theirs := newKeys(t, 3, 4), newKeys(t, 4)
	msg, err := ours.seal("jobs", "1", batch{ID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	var got batch
	if epoch, err := ours.open("jobs", msg, &got); err != nil || epoch != 4 || got.ID != "b" {
		t.Errorf("open = %d, %v, %v", epoch, got, err)
	}
	if bytes.Contains(msg.Payload, []byte(`"id"`)) {
		t.Error("the message can be read without a key")
	}
	if _, err := ours.open("results", msg, &got); !errors.Is(err, errSealed) {
		t.Errorf("passed off as another kind: %v", err)
	}
	if _, err := theirs.open("jobs", msg, &got); !errors.Is(err, errSealed) {
		t.Errorf("under a stranger's key of the same epoch: %v", err)
	}
	msg.Metadata.Set(epochHeader, "7")
	if _, err := ours.open("jobs", msg, &got); !errors.Is(err, errSealed) {
		t.Errorf("of an epoch that is not known: %v", err)
	}
	msg.Metadata.Set(epochHeader, "x")
	if _, err := ours.open("jobs", msg, &got); !errors.Is(err, errSealed) {
		t.Errorf("of no epoch: %v", err)
	}
}

// clock is time that the test moves.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func TestTheGateIsClosedUntilATideAnswersAMark(t *testing.T) {
	t.Parallel()
	var c clock
	c.advance(time.Hour)
	g := newGate(nil, newKeys(t, 1), "d", 1, c.now, func() {})
	if err := g.admit(10, nil); !errors.Is(err, ErrStale) {
		t.Errorf("before anything was heard: %v", err)
	}
	g.marks = []sentMark{{5, c.now()}}
	c.advance(time.Second)
	g.rose(tide{Echo: 4})
	if err := g.admit(10, nil); !errors.Is(err, ErrStale) {
		t.Errorf("after the answer to an older mark, of another dispatcher: %v", err)
	}
	g.rose(tide{Echo: 5})
	if err := g.admit(10, nil); err != nil {
		t.Errorf("after the answer: %v", err)
	}
	c.advance(Staleness - time.Second)
	if err := g.admit(10, nil); err != nil {
		t.Errorf("the mark was put %s ago: %v", Staleness, err)
	}
	c.advance(time.Nanosecond)
	if err := g.admit(10, nil); !errors.Is(err, ErrStale) {
		t.Errorf("the answer counts from when the mark was put, not from when it came: %v", err)
	}
}

func TestTheGateSendsBackWhatWasWithdrawn(t *testing.T) {
	t.Parallel()
	var c clock
	c.advance(time.Hour)
	g := newGate(nil, newKeys(t, 1), "d", 1, c.now, func() {})
	g.marks = []sentMark{{1, c.now()}}
	g.rose(tide{Echo: 1})
	person, delivery := uuid.New(), uuid.New()
	merged, address := uuid.New(), domain.ContactHash{Channel: domain.Email, Hash: "ab12"}
	keys := keysOf(outbound.Request{
		ProfileID: person, DeliveryID: delivery, Target: "welcome", Secrets: map[string]string{"api_key": "x"},
		People: []uuid.UUID{merged}, Addresses: []domain.ContactHash{address},
	})
	for name, key := range map[string]string{
		"opted out": "profile:" + person.String(), "cancelled": "delivery:" + delivery.String(), "target changed": "target:welcome", "secret rotated": "secret:api_key",
		"somebody they were merged with opted out": "profile:" + merged.String(), "address bounced": "address:email:ab12", "policy changed": "everybody",
	} {
		t.Run(name, func(t *testing.T) {
			g.heard(fence{Position: 100, Keys: []string{key}})
			if err := g.admit(99, keys); !errors.Is(err, ErrFenced) {
				t.Errorf("claimed before: %v", err)
			}
			if err := g.admit(100, keys); err != nil {
				t.Errorf("claimed with knowledge of it: %v", err)
			}
			g.heard(fence{Position: 50, Keys: []string{key}}) // an older one comes again
			if err := g.admit(99, keys); !errors.Is(err, ErrFenced) {
				t.Errorf("after an older fence came again: %v", err)
			}
			g.fences = map[string]heard{}
		})
	}
	if err := g.admit(0, keysOf(outbound.Request{ProfileID: uuid.New(), DeliveryID: uuid.New(), Target: "other"})); err != nil {
		t.Errorf("what nothing was said about: %v", err)
	}
}

func TestTheGateClosesWhenItCannotRead(t *testing.T) {
	t.Parallel()
	var c clock
	c.advance(time.Hour)
	asked := 0
	g := newGate(&Broker{Config: Config{Log: discard}}, newKeys(t, 1), "d", 1, c.now, func() { asked++ })
	g.marks = []sentMark{{1, c.now()}}
	g.rose(tide{Echo: 1})
	msg, err := newKeys(t, 2).seal("fence", "", fence{Position: 1})
	if err != nil {
		t.Fatal(err)
	}
	msg.Metadata.Set(kindHeader, "fence")
	if err := g.handle(msg); err != nil {
		t.Fatal(err)
	}
	if err := g.admit(10, nil); !errors.Is(err, ErrStale) || asked == 0 {
		t.Errorf("after a fence that it cannot read: %v, asked %d times for the keys", err, asked)
	}
}

// TestMarksAndTidesTravel has a gate and whoever answers it meet over a real stream, in its order.
func TestMarksAndTidesTravel(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	k := newKeys(t, 1)
	g := newGate(b, k, "d", 4, time.Now, func() {})
	p := newPump(b, nil, nil, k, time.Now)
	router, err := newRouter(discard)
	if err != nil {
		t.Fatal(err)
	}
	marks, err := b.subscriber(subscription{name: "marks", consumer: b.inOrder(jetstream.DeliverNewPolicy, b.mark())})
	if err != nil {
		t.Fatal(err)
	}
	fences, err := b.subscriber(subscription{name: "fences", consumer: b.inOrder(deliverAll, b.fence(), b.tide())})
	if err != nil {
		t.Fatal(err)
	}
	router.AddConsumerHandler("marks", "fences", marks, p.marked)
	router.AddConsumerHandler("fences", "fences", fences, g.handle)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	<-router.Running()
	defer func() {
		b.Close(context.Background())
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	person := uuid.New()
	if err := p.put(t.Context(), b.fence(), "fence", fence{Position: 7, Keys: []string{"profile:" + person.String()}}); err != nil {
		t.Fatal(err)
	}
	for { // the readers begin when they begin; a mark from before is answered to nobody
		g.mark(t.Context())
		select {
		case <-p.asked:
		case <-time.After(100 * time.Millisecond):
			continue
		case <-t.Context().Done():
			t.Fatal("no mark arrived")
		}
		break
	}
	if n, d := p.capacity(); n != 4 || d != 1 {
		t.Errorf("capacity is %d of %d dispatchers, want 4 of 1", n, d)
	}
	p.mu.Lock()
	echo := p.marks
	p.mu.Unlock()
	if err := p.put(t.Context(), b.tide(), "tide", tide{Echo: echo, Position: 7}); err != nil {
		t.Fatal(err)
	}
	keys := keysOf(outbound.Request{ProfileID: person, DeliveryID: uuid.New(), Target: "t"})
	for g.admit(7, keys) != nil {
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the gate never opened")
		}
	}
	if err := g.admit(6, keys); !errors.Is(err, ErrFenced) {
		t.Errorf("the fence before the tide was not heard: %v", err)
	}
}

func TestCredential(t *testing.T) {
	t.Parallel()
	c := Credential{Token: "dl_x", Public: "abc"}
	got, err := ParseCredential(" " + c.String() + "\n")
	if err != nil || got != c {
		t.Errorf("ParseCredential = %v, %v", got, err)
	}
	for _, bad := range []string{"", "dl_x", "dlj_", "dlj_!!", "dlj_e30"} {
		if _, err := ParseCredential(bad); !errors.Is(err, ErrConfig) {
			t.Errorf("ParseCredential(%q) = %v, want ErrConfig", bad, err)
		}
	}
}
