package dispatcher

import (
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
)

// A lane is given as many claims ahead as are on their way while its slots are at work, and no more.
func TestALaneIsKeptBusy(t *testing.T) {
	t.Parallel()
	const width = 8
	for name, tc := range map[string]struct {
		mean, handing time.Duration
		road          int
		want          int // claims in hand in all
	}{
		"nothing is known of the target yet":                            {0, 0, 256, width},
		"the way is a fifth of the target's time":                       {50 * time.Millisecond, 10 * time.Millisecond, 256, width + 2},
		"it takes ten seconds: claims would grow old":                   {10 * time.Second, 10 * time.Millisecond, 256, width + 1},
		"the way is as long as the target's time":                       {50 * time.Millisecond, 50 * time.Millisecond, 256, 2 * width},
		"the way is endless":                                            {50 * time.Millisecond, time.Hour, 256, width + aheadMost*width},
		"it answers at once":                                            {time.Millisecond, 0, 256, width + aheadMost*width},
		"others may have half of a narrow road, whatever is on the way": {50 * time.Millisecond, time.Hour, 8, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLanes(tc.road)
			claim := queue.Claim{Planned: domain.Recorded{Event: domain.Event{Keys: domain.Keys{Target: "t"}}}}
			enter := func() { l.enter([]queue.Claim{claim}, func(string) int { return width }) }
			enter()
			l.lanes["t"].mean, l.lanes["t"].handing = tc.mean, tc.handing
			n := 1
			for ; n < 1000 && l.room("t", width) > 0; n++ {
				enter()
			}
			if n != tc.want {
				t.Errorf("%d claims are in hand, want %d", n, tc.want)
			}
		})
	}
}
