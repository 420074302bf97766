package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Lag is how far a replica is behind the ledger.
type Lag struct {
	Positions int64   `json:"positions" doc:"Events of the ledger that it does not hold yet."`
	Bytes     int64   `json:"bytes" doc:"Of PostgreSQL's write-ahead log that it has not applied yet."`
	Seconds   float64 `json:"seconds" doc:"Age of the first event that it does not hold yet; 0 when it holds all."`
}

// Replica is a standby of the database that answers questions, so that the primary does not have to. It is asked only while it
// answers and is not further behind than it may be; otherwise the primary is.
type Replica struct {
	db, primary *sql.DB
	most        time.Duration
	log         *slog.Logger

	mu  sync.Mutex
	lag Lag       // guarded by mu; as last measured
	at  time.Time // guarded by mu; when that was; zero: it is not asked

	up                        prometheus.Gauge
	positions, bytes, seconds prometheus.Gauge
	asked                     *prometheus.CounterVec
}

// measureEvery is how often the lag is measured, and measureWithin how long that may take.
const (
	measureEvery  = time.Second
	measureWithin = 2 * time.Second
)

// NewReplica asks db in place of primary while it is at most so far behind. Run measures. Metrics are registered with reg
// unless it is nil.
func NewReplica(db, primary *sql.DB, most time.Duration, log *slog.Logger, reg prometheus.Registerer) *Replica {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "ledger_replica_" + name, Help: help})
	}
	r := &Replica{
		db: db, primary: primary, most: most, log: log,
		up:        gauge("up", "1 while the read replica is asked, 0 while the primary is in its place."),
		positions: gauge("lag_positions", "Events that the read replica does not hold yet."),
		bytes:     gauge("lag_bytes", "Write-ahead log that the read replica has not applied yet."),
		seconds:   gauge("lag_seconds", "Age of the first event that the read replica does not hold yet."),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ledger_reads_total", Help: "Requests that a replica may answer, by who was asked.",
		}, []string{"database"}),
	}
	if reg != nil {
		reg.MustRegister(r.up, r.positions, r.bytes, r.seconds, r.asked)
	}
	return r
}

// Run measures until ctx ends.
func (r *Replica) Run(ctx context.Context) {
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	for {
		if err := r.Measure(ctx); err != nil && ctx.Err() == nil {
			r.down(ctx, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// down has the primary asked until the replica is measured again.
func (r *Replica) down(ctx context.Context, err error) {
	r.mu.Lock()
	was := r.at
	r.at = time.Time{}
	r.mu.Unlock()
	r.up.Set(0)
	if !was.IsZero() {
		r.log.WarnContext(ctx, "the read replica does not answer; the primary is asked", slog.Any("error", err))
	}
}

// Measure finds out how far the replica is behind.
func (r *Replica) Measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, measureWithin)
	defer cancel()
	var lsn string
	held, err := Head(ctx, r.db)
	if err == nil {
		err = r.db.QueryRowContext(ctx, `SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')`).Scan(&lsn)
	}
	if err != nil {
		return fmt.Errorf("the read replica: %w", unavailable(err))
	}
	var lag Lag
	err = r.primary.QueryRowContext(ctx, `SELECT coalesce(max(e.position), 0) - $1, greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), $2::pg_lsn), 0)::bigint,
		coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - f.recorded_at), 0)::float8 FROM events f WHERE f.position = $1 + 1), 0) FROM events e`,
		held, lsn).Scan(&lag.Positions, &lag.Bytes, &lag.Seconds)
	if err != nil {
		return fmt.Errorf("the primary: %w", unavailable(err))
	}
	r.mu.Lock()
	r.lag, r.at = lag, time.Now() //nolint:forbidigo // how old a measurement is
	r.mu.Unlock()
	r.up.Set(1)
	r.positions.Set(float64(lag.Positions))
	r.bytes.Set(float64(lag.Bytes))
	r.seconds.Set(lag.Seconds)
	return nil
}

// Lag is how far the replica was behind when it was last measured. It reports false while it is not asked.
func (r *Replica) Lag() (Lag, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.IsZero() {
		return Lag{}, false
	}
	unknown := time.Since(r.at)
	return r.lag, time.Duration(r.lag.Seconds*float64(time.Second)) <= r.most && unknown <= r.most
}

// Choose gives whom to ask something that the answer to must know of every event up to position, projections included; 0 asks
// for nothing. The replica has a moment to get there; then it is the primary, and behind says that it does not know it either.
func (r *Replica) Choose(ctx context.Context, position int64) (db *sql.DB, replica bool, err error) {
	if _, ok := r.Lag(); ok {
		err := AwaitProjected(ctx, r.db, position, replicaPatience)
		if err == nil {
			r.asked.WithLabelValues("replica").Inc()
			return r.db, true, nil
		}
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
	}
	r.asked.WithLabelValues("primary").Inc()
	return r.primary, false, AwaitProjected(ctx, r.primary, position, ProjectedPatience)
}

// Failed tells of a question that the replica could not answer for reasons of the moment.
func (r *Replica) Failed(ctx context.Context, err error) {
	r.down(ctx, err)
	r.asked.WithLabelValues("primary").Inc()
}

// replicaPatience is how long a replica that does not know a position yet is waited for, and ProjectedPatience how long the
// projections of the primary are.
const (
	replicaPatience   = 500 * time.Millisecond
	ProjectedPatience = 3 * time.Second
)

// ErrBehind is a question about what is not projected yet. Ask again in a moment.
var ErrBehind = fmt.Errorf("%w: not projected yet", ErrUnavailable)

// AwaitCheckpoint returns once db holds a checkpoint of at least that size, or with ErrBehind when it does not before long.
func AwaitCheckpoint(ctx context.Context, db *sql.DB, size int64) error {
	return await(ctx, ProjectedPatience, func() error {
		c, err := LastCheckpoint(ctx, db)
		if err == nil && c.Size < size {
			err = fmt.Errorf("%w: the checkpoint of %d events was asked for, and the newest there is of %d", ErrBehind, size, c.Size)
		}
		return err
	})
}

// AwaitProjected returns once the ledger and every projection that is not parked hold all events up to position, or with
// ErrBehind when they have not for that long.
func AwaitProjected(ctx context.Context, db *sql.DB, position int64, patience time.Duration) error {
	if position <= 0 {
		return nil
	}
	return await(ctx, patience, func() error {
		var head, projected int64
		err := db.QueryRowContext(ctx, `SELECT coalesce((SELECT max(position) FROM events), 0),
			coalesce((SELECT min(position) FROM subscriptions WHERE name LIKE 'projection.%' AND state = 'running'), 0)`).Scan(&head, &projected)
		if err != nil {
			return fmt.Errorf("await event %d: %w", position, unavailable(err))
		}
		if min(head, projected) < position {
			return fmt.Errorf("%w: event %d was asked for, the ledger ends at %d and the projections hold it up to %d", ErrBehind, position, head, projected)
		}
		return nil
	})
}

// await asks until the answer is not ErrBehind, or patience ends.
func await(ctx context.Context, patience time.Duration, ask func() error) error {
	deadline := time.Now().Add(patience) //nolint:forbidigo // bounds a wait
	for {
		err := ask()
		if !errors.Is(err, ErrBehind) || time.Until(deadline) <= 0 {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
