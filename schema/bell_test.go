package schema

import "testing"

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
