package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// ServeConfig says how a server treats its connections. A zero field is its default.
type ServeConfig struct {
	// Notice is how long /readyz says no before the listener closes, so that load balancers look elsewhere first. 0.
	Notice time.Duration
	// Drain is how long requests that are being answered may take to end. 25s.
	Drain time.Duration
	Log   *slog.Logger // nil is discarded
}

const defaultDrain = 25 * time.Second

// Serve answers on a listener until ctx ends, then lets what has begun come to its end. It returns nil after a
// complete drain, and an error when the listener failed or requests were cut off.
func Serve(ctx context.Context, l net.Listener, h http.Handler, c ServeConfig) error {
	if c.Drain <= 0 {
		c.Drain = defaultDrain
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var draining atomic.Bool
	srv := &http.Server{
		Handler:           refuseReady(h, &draining),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       60 * time.Second,
		WriteTimeout:      90 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		// Requests outlive ctx: it ends the serving, not what is being answered.
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.WithoutCancel(ctx), drainingKey{}, ctx.Done())
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	draining.Store(true)
	rest := context.WithoutCancel(ctx)
	if c.Notice > 0 {
		notice := time.NewTimer(c.Notice)
		defer notice.Stop()
		<-notice.C
	}
	deadline, cancel := context.WithTimeout(rest, c.Drain)
	defer cancel()
	if err := srv.Shutdown(deadline); err != nil {
		return errors.Join(fmt.Errorf("requests were cut off after %s: %w", c.Drain, err), srv.Close())
	}
	return nil
}

// refuseReady makes /readyz say no while the server drains.
func refuseReady(next http.Handler, draining *atomic.Bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if draining.Load() && r.URL.Path == "/readyz" {
			writeReadiness(w, readiness{Status: notReady, Checks: map[string]string{"server": "is draining"}})
			return
		}
		next.ServeHTTP(w, r)
	})
}
