package broker

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// FencesName is the subscription that broadcasts what was withdrawn. Renaming it broadcasts nothing twice: it begins at the
// ledger's head.
const FencesName = "broker.fences"

const kindHeader = "kind"

// fenceKeys is how many keys one message holds at most.
const fenceKeys = 5000

// natsMsg is a message for a subject, with its kind beside it.
func (b *Broker) natsMsg(subject, kind string, msg *message.Message) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Data = msg.Payload
	m.Header.Set(kindHeader, kind)
	for k, v := range msg.Metadata {
		m.Header.Set(k, v)
	}
	return m
}

// revocation is the one event type besides that dispatchers have to hear of: it changes the key that they are told under.
const revocation = "token.revoked"

// fenced lists the event types after which a job that was claimed before may be wrong.
func fenced() []string {
	types := []string{revocation}
	for _, d := range domain.Declarations() {
		if d.Overtakes() {
			types = append(types, d.Type)
		}
	}
	return types
}

// pump is a writer's side of the gate: it broadcasts fences and answers marks. Any number of writers may run one.
type pump struct {
	broker *Broker
	db     *sql.DB
	vault  *schema.Vault
	keys   *keys
	now    func() time.Time

	mu     sync.Mutex
	marks  uint64 // stream sequence of the latest mark
	asked  chan struct{}
	census map[string]seen
}

// seen is a dispatcher that put a mark.
type seen struct {
	capacity int
	at       time.Time
}

func newPump(b *Broker, db *sql.DB, vault *schema.Vault, k *keys, now func() time.Time) *pump {
	return &pump{broker: b, db: db, vault: vault, keys: k, now: now, asked: make(chan struct{}, 1), census: map[string]seen{}}
}

// Subscription is the pump's reading of the ledger. Whichever writer holds its cursor broadcasts.
func (p *pump) subscription(head int64) schema.Subscription {
	return schema.Subscription{Name: FencesName, Limit: 5000, Types: fenced(), Start: head}
}

// handle broadcasts the fences of a slice. They are in the stream before the cursor moves.
func (p *pump) handle(ctx context.Context, tx *sql.Tx, _ schema.Slice) error {
	rows, err := tx.QueryContext(ctx, `SELECT position, type, data FROM slice WHERE type = ANY ($1) ORDER BY position`, pqArray(fenced()))
	if err != nil {
		return fmt.Errorf("fences: %w", err)
	}
	defer rows.Close()
	keys, at, revoked := map[string]bool{}, int64(0), false
	for rows.Next() {
		var position int64
		var kind string
		var data []byte
		if err := rows.Scan(&position, &kind, &data); err != nil {
			return fmt.Errorf("fences: %w", err)
		}
		at = max(at, position)
		if kind == revocation {
			revoked = true
			continue
		}
		payload, err := domain.Decode(kind, data, nil) // what it overtakes is never sealed
		if err != nil {
			return fmt.Errorf("fences: event %d: %w", position, err)
		}
		if p, ok := payload.(domain.Overtaking); ok {
			for _, key := range overtaken(p.Overtakes()) {
				keys[key] = true
			}
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("fences: %w", err)
	}
	f := fence{Position: at}
	var rotated schema.Fleet
	if revoked {
		fleet, err := p.vault.RotateFleet(ctx, p.keys.epoch())
		if err != nil {
			return err
		}
		f.Epoch, rotated = fleet.Newest.Epoch, fleet
	}
	for k := range keys {
		f.Keys = append(f.Keys, k)
	}
	if len(f.Keys) == 0 && f.Epoch == 0 {
		return nil
	}
	slices.Sort(f.Keys)
	// In pieces that a message can hold, the last one with the new epoch; all under the key that everybody has.
	for len(f.Keys) > fenceKeys {
		if err := p.put(ctx, p.broker.fence(), "fence", fence{Position: at, Keys: f.Keys[:fenceKeys]}); err != nil {
			return err
		}
		f.Keys = f.Keys[fenceKeys:]
	}
	if err := p.put(ctx, p.broker.fence(), "fence", f); err != nil {
		return err
	}
	if f.Epoch > 0 {
		p.keys.set(rotated.Newest, rotated.Keys)
	}
	return nil
}

// put publishes to the stream of fences and waits until the cluster has it. Failing is of the moment.
func (p *pump) put(ctx context.Context, subject, kind string, value any) error {
	msg, err := p.keys.seal(kind, "", value)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := p.broker.js.PublishMsg(ctx, p.broker.natsMsg(subject, kind, msg), jetstream.WithRetryAttempts(0)); err != nil {
		return fmt.Errorf("%w: %s: %w: %w", schema.ErrUnavailable, kind, ErrUnreachable, err)
	}
	return nil
}

// marked takes a mark in.
func (p *pump) marked(msg *message.Message) error {
	var m mark
	if _, err := p.keys.open("mark", msg, &m); err != nil {
		return nil //nolint:nilerr // of somebody who is no member any more
	}
	p.mu.Lock()
	p.census[m.Dispatcher] = seen{m.Capacity, p.now()}
	p.marks = max(p.marks, sequenceOf(msg))
	p.mu.Unlock()
	select {
	case p.asked <- struct{}{}:
	default:
	}
	return nil
}

// capacity is how many requests the dispatchers that are alive may have in flight together, and how many they are.
func (p *pump) capacity() (requests, dispatchers int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, s := range p.census {
		if p.now().Sub(s.at) > Staleness+markInterval {
			delete(p.census, name)
			continue
		}
		requests += s.capacity
		dispatchers++
	}
	return requests, dispatchers
}

// run answers marks until ctx ends.
func (p *pump) run(ctx context.Context) {
	for {
		select {
		case <-p.asked:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		echo := p.marks
		p.mu.Unlock()
		if err := p.answer(ctx, echo); err != nil && ctx.Err() == nil {
			p.broker.Log.WarnContext(ctx, "cannot tell dispatchers what was withdrawn; they stop until it is possible again", slog.Any("error", err))
		}
	}
}

const answerPatience = time.Second

// answer puts a tide once every fence of what the ledger held when it was asked is in the stream.
func (p *pump) answer(ctx context.Context, echo uint64) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	head, err := schema.Head(ctx, p.db)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		var broadcast int64
		if err := p.db.QueryRowContext(ctx, `SELECT position FROM subscriptions WHERE name = $1`, FencesName).Scan(&broadcast); err != nil {
			return fmt.Errorf("fences: %w", err)
		}
		if broadcast >= head {
			return p.put(ctx, p.broker.tide(), "tide", tide{Echo: echo, Position: head})
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("fences are broadcast up to event %d of %d: %w", broadcast, head, ctx.Err())
		}
	}
}
