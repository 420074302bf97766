package schema

import (
	"testing"
	"testing/synctest"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

func TestBellWakesWhomItConcerns(t *testing.T) {
	t.Parallel()
	rung := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	for name, c := range map[string]struct {
		waits, rings []string
		want         bool
	}{
		"one of several":          {[]string{"a", "b"}, []string{"b", "c"}, true},
		"none of them":            {[]string{"a", "b"}, []string{"c"}, false},
		"whoever waits for all":   {nil, []string{"c"}, true},
		"a ring for everybody":    {[]string{"a"}, nil, true},
		"anything, for everybody": {nil, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBell()
			before := b.next(c.waits...)
			b.ring(c.rings...)
			if got := rung(before); got != c.want {
				t.Errorf("woken: %t, want %t", got, c.want)
			}
			if rung(b.next(c.waits...)) {
				t.Error("a strike that is taken after the ring was rung before")
			}
			b.ring()
			if !rung(before) {
				t.Error("a ring for everybody leaves one asleep that an earlier ring did not concern")
			}
		})
	}
}

func TestTheNewsOfAnOwnAppendMayComeBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		own, err := lru.New[int64, struct{}](4)
		if err != nil {
			t.Fatal(err)
		}
		l := &Ledger{own: own}
		alone := func() bool { return false }
		if l.isOwn(1, alone) {
			t.Error("nothing was appended, and position 1 is this process's own")
		}
		l.calls.Add(1)
		go func() {
			<-time.After(ownPatience * 3 / 2) // the bubble's time
			l.own.Add(7, struct{}{})
		}()
		if !l.isOwn(7, alone) {
			t.Error("an append whose answer came after the news of it is taken for another process's")
		}
		if l.isOwn(7, alone) || l.isOwn(8, alone) {
			t.Error("each append is known by where it ended, and once")
		}
		began := time.Now()
		if l.isOwn(9, func() bool { return true }) || time.Since(began) > 0 {
			t.Error("other processes' news is waited over one by one while more of it comes in")
		}
	})
}
