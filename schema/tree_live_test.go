package schema_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// TestTreeFollowsTheLedger runs the tree as the service does, as a subscription of the topic, with its checkpointer, while
// several writers append: every checkpoint that comes of it continues the one before, and all of it verifies.
func TestTreeFollowsTheLedger(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	topic, err := schema.OpenTopic(l.db.DB, l.ledger, "", schema.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	subscriber, err := topic.Subscriber(t.Context(), schema.TreeSubscription)
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router.AddConsumerHandler("tree", schema.TopicName, subscriber, topic.Handler(schema.TreeSubscription, schema.GrowTree))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := router.Run(ctx); err != nil {
			t.Errorf("router: %v", err)
		}
	})
	l.Every = 5 * time.Millisecond
	running.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("checkpointer: %v", err)
		}
	})
	defer running.Wait()
	defer topic.Close()
	defer cancel()

	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for i := range 40 {
				if _, err := l.ledger.Append(ctx, liveEvent(w, i, 0), liveEvent(w, i, 1), liveEvent(w, i, 2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	for ctx.Err() == nil {
		c, err := schema.LastCheckpoint(ctx, l.db)
		if err == nil && c.Size == 360 {
			break
		}
		if err != nil && !errors.Is(err, schema.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if r := l.verify(t, schema.VerifyOptions{Anchors: []schema.Anchor{l.anchor}}); !r.OK() || r.Events != 360 {
		t.Errorf("verify: %s", r)
	}
	var before evidence.Checkpoint
	for position := int64(1); position <= 360; position = before.Size + 1 {
		c, err := schema.CheckpointAt(t.Context(), l.db, position)
		if err != nil {
			t.Fatal(err)
		}
		path, err := schema.ConsistencyProof(t.Context(), l.db, before.Size, c.Size)
		if err != nil {
			t.Fatal(err)
		}
		if before.Size > 0 {
			if err := evidence.VerifyConsistency(before, c.Checkpoint, path); err != nil {
				t.Error(err)
			}
		}
		before = c.Checkpoint
	}
}
