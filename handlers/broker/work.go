package broker

import (
	"fmt"
	"hash/fnv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/outbound"
)

// shards is how many lanes the queue of jobs has. A target is always in the same one, so what is slow to be taken in one
// lane holds up no other.
const shards = 8

func shardOf(target string) int {
	h := fnv.New32a()
	h.Write([]byte(target))
	return int(h.Sum32() % shards)
}

// batch is what one message on the queue of jobs holds. It is taken whole, by one dispatcher.
type batch struct {
	ID     string             `json:"id"`
	Writer string             `json:"writer"` // who claimed them, and waits
	Jobs   []outbound.Request `json:"jobs"`
}

// keyOf names a job, one attempt that is claimed in the ledger, among all that are under way.
func keyOf(r outbound.Request) attemptKey { return attemptKey{r.DeliveryID, r.Attempt} }

type attemptKey struct {
	delivery uuid.UUID
	attempt  int
}

// results is what one message on the way back holds.
type results struct {
	Writer  string   `json:"writer"`
	Results []result `json:"results"`
}

// result is what came of a job: an outcome, or the reason why it did not leave.
type result struct {
	DeliveryID uuid.UUID         `json:"delivery_id"`
	Attempt    int               `json:"attempt"`
	Dispatcher string            `json:"dispatcher"`
	Outcome    *outbound.Outcome `json:"outcome,omitempty"`
	Returned   string            `json:"returned,omitempty"`
	Waited     time.Duration     `json:"waited,omitempty"` // for a slot of the target
}

func (r result) key() attemptKey { return attemptKey{r.DeliveryID, r.Attempt} }

// start says who took a batch. The first one on its subject is believed.
type start struct {
	By string `json:"by"`
}

// Timing of the work. A lease lasts as long as the longest way of a job and its target's timeout together.
const (
	gatherFor    = 2 * time.Millisecond // jobs of one message
	gatherMost   = 16                   // of them
	returnFor    = 3 * time.Millisecond // results of one message
	returnMost   = 128                  // of them
	takePatience = 10 * time.Second     // a batch that nobody took by then is taken back by its writer
	slotPatience = 2 * time.Second      // a job that finds no slot of its target by then is sent back
	waitFresh    = time.Second          // for proof that nothing was withdrawn, before a job is sent back
	// LeaseGrace is how much longer than its target's timeout a lease lasts where a broker is between.
	LeaseGrace = takePatience + 10*time.Second
)

// jobsConsumer is the one cursor of all dispatchers on a lane.
func (b *Broker) jobsConsumer(shard int) subscription {
	return subscription{
		name: "jobs", ahead: 2, patience: takePatience, nakDelay: 100 * time.Millisecond,
		consumer: b.shared(streamJobs, jetstream.ConsumerConfig{
			Durable: fmt.Sprint("dispatchers-", shard), FilterSubject: b.jobs(shard), AckWait: takePatience, MaxAckPending: 1024,
		}),
	}
}

// resultsConsumer is the one cursor of all writers on what comes back.
func (b *Broker) resultsConsumer() subscription {
	return subscription{
		name: "results", ahead: 4, patience: time.Minute, nakDelay: 500 * time.Millisecond,
		consumer: b.shared(streamResults, jetstream.ConsumerConfig{Durable: "writers", AckWait: time.Minute, MaxAckPending: 1024}),
	}
}
