package broker

import (
	"context"
	"time"
)

// outbox gathers values that come from many goroutines into messages: those that wait together travel together.
type outbox[T any] struct {
	in   chan T
	most int
	wait time.Duration
	send func(ctx context.Context, values []T) // in a goroutine of its own
}

func newOutbox[T any](most int, wait time.Duration, send func(context.Context, []T)) *outbox[T] {
	return &outbox[T]{in: make(chan T, most), most: most, wait: wait, send: send}
}

// put hands a value over. It reports false when ctx ends first.
func (o *outbox[T]) put(ctx context.Context, v T) bool {
	select {
	case o.in <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

// run sends until ctx ends; what is in hand then still goes.
func (o *outbox[T]) run(ctx context.Context) {
	for {
		var gathered []T
		select {
		case v := <-o.in:
			gathered = append(gathered, v)
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(o.wait)
	gathering:
		for len(gathered) < o.most {
			select {
			case v := <-o.in:
				gathered = append(gathered, v)
			case <-timer.C:
				break gathering
			}
		}
		timer.Stop()
		o.send(ctx, gathered)
	}
}
