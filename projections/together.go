package projections

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// sideBySide replays the ledger for several runs, slice after slice, until each has come near the head or failed. All of them are at
// the same slice, so it is read from the disk once. Each session takes its share of them and has the slice on a desk of its own.
func (e *Engine) sideBySide(ctx context.Context, runs []*run, atOnce int) {
	near, err := e.near(ctx)
	hands := make([]hand, max(1, atOnce))
	defer func() {
		for i := range hands {
			hands[i].rest()
		}
	}()
	for _, r := range runs {
		r.analyzed = r.position
	}
	for {
		var behind []*run // those that have come least far
		past := int64(-1) // how far the next have
		for _, r := range runs {
			switch {
			case r.err != nil:
				continue
			case err != nil:
				r.fail(ctx, err)
				continue
			}
			goal, err := near(r.position, r.slice)
			if r.fail(ctx, err); err != nil || r.position >= goal {
				continue
			}
			switch {
			case len(behind) == 0 || r.position < behind[0].position:
				if len(behind) > 0 {
					past = behind[0].position
				}
				behind = []*run{r}
			case r.position == behind[0].position:
				behind = append(behind, r)
			case past < 0 || r.position < past:
				past = r.position
			}
			r.goal = goal
		}
		if len(behind) == 0 {
			return
		}
		to := behind[0].goal
		if past >= 0 {
			to = min(to, past)
		}
		for _, r := range behind {
			to = min(to, r.position+r.slice, r.goal)
			if r.took == 0 && len(behind) > len(hands) { // how long each takes is seen at little
				to = min(to, r.position+trial)
			}
		}
		var wg sync.WaitGroup
		for i, share := range shares(behind, len(hands)) {
			wg.Go(func() { hands[i].apply(ctx, share, to) })
		}
		wg.Wait()
	}
}

// trial is how many events are applied first, for it to be known who takes how long.
const trial = 10_000

// weight is how long a run takes for a slice, as far as that is known: before the first, its statements have to do.
func (r *run) weight() time.Duration {
	return cmp.Or(r.took, time.Duration(len(r.d.Apply))*time.Second)
}

// steadied is how long the next slice will take, going by how long that was said to take which took so long: slices differ, and who
// else uses the machine does.
func steadied(said, took time.Duration) time.Duration {
	if said == 0 {
		return took
	}
	return (3*said + took) / 4
}

func longestFirst(runs []*run) {
	slices.SortStableFunc(runs, func(a, b *run) int { return cmp.Compare(b.weight(), a.weight()) })
}

// shares deals the runs out so that all hands are done at about the same time, going by what the last slices took: the longest
// first, each to the hand that has least.
func shares(runs []*run, n int) [][]*run {
	runs = slices.Clone(runs)
	longestFirst(runs)
	out := make([][]*run, min(n, len(runs)))
	load := make([]time.Duration, len(out))
	for _, r := range runs {
		least := slices.Index(load, slices.Min(load))
		out[least] = append(out[least], r)
		load[least] += r.weight()
	}
	return out
}

// hand is a session that applies slices to several projections at a time.
type hand struct{ desk *desk }

func (h *hand) rest() {
	if h.desk != nil {
		h.desk.close()
		h.desk = nil
	}
}

// apply applies a slice to the runs, in one transaction. One that fails is left out, and the others try again.
func (h *hand) apply(ctx context.Context, runs []*run, to int64) {
	for len(runs) > 0 {
		failed, err := h.try(ctx, runs, to)
		if err == nil {
			for _, r := range runs {
				r.fail(ctx, r.moved(ctx, to, r.goal))
			}
			return
		}
		h.rest() // what its transaction made is gone
		var at *EventError
		if failed == nil || !errors.As(err, &at) { // it lies in no projection
			for _, r := range runs {
				r.fail(ctx, err)
			}
			return
		}
		failed.fail(ctx, err)
		runs = slices.DeleteFunc(slices.Clone(runs), func(r *run) bool { return r == failed })
	}
}

// try gives the run that failed with the error, if it was one.
func (h *hand) try(ctx context.Context, runs []*run, to int64) (failed *run, err error) {
	e := runs[0].e
	begin := e.db.BeginTx
	if len(runs) > 1 { // a slice is laid out for several: for one it would save no more than it costs
		if h.desk == nil {
			if h.desk, err = e.openDesk(ctx); err != nil {
				return nil, err
			}
		}
		begin = h.desk.conn.BeginTx
	} else {
		h.rest()
	}
	tx, err := begin(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, buildSettings); err != nil {
		return nil, err
	}
	if h.desk != nil {
		if err := h.desk.lay(ctx, tx, schema.Slice{From: runs[0].position, To: to}, typesOf(runs)); err != nil {
			return nil, err
		}
	}
	for _, r := range runs {
		began := time.Now() //nolint:forbidigo // measures how long it took; only who does what is decided by it
		r.place.desk = h.desk
		err := r.applyIn(ctx, tx, to, r.goal)
		r.place.desk = nil
		if err != nil {
			return r, err
		}
		r.took = steadied(r.took, time.Since(began))
	}
	return nil, tx.Commit()
}

// typesOf are the types of events that some runs read; nil means any.
func typesOf(runs []*run) []string {
	var types []string
	for _, r := range runs {
		of := r.d.Types()
		if of == nil {
			return nil
		}
		types = append(types, of...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}
