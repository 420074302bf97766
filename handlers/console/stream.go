package console

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
)

// watcher tells pages when the ledger or a reader of it has moved. It asks the database once a second for all of them, and
// not at all when nobody looks.
type watcher struct {
	db        *sql.DB
	mu        sync.Mutex
	listeners map[chan string]struct{} // guarded by mu
	stop      context.CancelFunc       // guarded by mu
}

// listenersMost bounds the pages that are told.
const listenersMost = 500

// pulse is how often the database is asked.
const pulse = time.Second

func (w *watcher) join() (chan string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.listeners) >= listenersMost {
		return nil, false
	}
	if w.listeners == nil {
		w.listeners = map[chan string]struct{}{}
	}
	l := make(chan string, 1)
	w.listeners[l] = struct{}{}
	if w.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		w.stop = stop
		go w.run(ctx)
	}
	return l, true
}

func (w *watcher) leave(l chan string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.listeners, l)
	if len(w.listeners) == 0 {
		w.stop()
		w.stop = nil
	}
}

func (w *watcher) run(ctx context.Context) {
	ticker := time.NewTicker(pulse)
	defer ticker.Stop()
	last := ""
	for {
		var now string
		// The cursors of all readers, and of builds: what any page shows follows from these.
		err := w.db.QueryRowContext(ctx, `SELECT coalesce((SELECT max(position) FROM events), 0) || '.' || coalesce((SELECT sum(position) FROM subscriptions), 0)
			|| '.' || coalesce((SELECT sum(position) || '.' || count(*) FROM builds), '0')`).Scan(&now)
		if err == nil && now != last {
			last = now
			w.mu.Lock()
			for l := range w.listeners {
				select {
				case l <- now:
				default: // it has not yet taken the word before, which says the same: look again
				}
			}
			w.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// stream sends a word for each movement, as server-sent events. A page then asks for itself again.
func (c *console) stream(v *visit) error {
	l, ok := c.live.join()
	if !ok {
		return &api.Problem{Status: http.StatusServiceUnavailable, Title: "Too many pages are looking", NextStep: "Reload the page to see what is new."}
	}
	defer c.live.leave(l)
	v.w.Header().Set("Content-Type", "text/event-stream")
	v.w.Header().Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(v.w)
	say := func(text string) error {
		if err := control.SetWriteDeadline(c.Clock().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprint(v.w, text); err != nil {
			return err
		}
		return control.Flush()
	}
	if err := say("retry: 3000\n\n"); err != nil {
		return nil
	}
	alive := time.NewTicker(20 * time.Second)
	defer alive.Stop()
	end := time.NewTimer(5 * time.Minute) // then the browser comes again, with a session that still holds or not
	defer end.Stop()
	for {
		text := ": still here\n\n"
		select {
		case <-v.r.Context().Done():
			return nil
		case <-end.C:
			return nil
		case <-alive.C:
		case now := <-l:
			text = "event: moved\ndata: " + now + "\n\n"
		}
		if err := say(text); err != nil {
			return nil
		}
	}
}
